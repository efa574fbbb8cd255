"""Whatever a user's file is, opening it gives pixels or one error that begins with its name."""

from __future__ import annotations

import ast
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cadiff.errors import CADiffError
from cadiff.gathering import read
from cadiff.opening import opened, read_file
from cadiff.records import Levels
from cadiff.storage import image_size, read_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of a broken file's tags
ROOT = Path(__file__).resolve().parents[2]
SIDE = 20
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
DEEP = PIXELS.astype(np.uint16) * 201


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def chunked(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def header(width: int, height: int, depth: int = 8, kind: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)


LINES = b"".join(b"\0" + line.astype(">u2").tobytes() for line in DEEP)
FILES = {
    "png": encoded("PNG"), "jpg": encoded("JPEG"), "bmp": encoded("BMP"), "gif": encoded("GIF"), "webp": encoded("WEBP"),
    "tif": encoded("TIFF"), "tif-lzw": encoded("TIFF", compression="tiff_lzw"), "tif-16": tiff(DEEP, photometric="rgb"),
    "tif-16-zip": tiff(DEEP[..., 0], compression="zlib"), "tif-real": tiff(DEEP[..., 0].astype(np.float32)),
    "png-16": chunked(header(SIDE, SIDE, 16), (b"IDAT", zlib.compress(LINES)), (b"IEND", b"")),
}  # fmt: skip


def error_of(look: Callable[[], object]) -> str | None:
    try:
        look()
    except CADiffError as error:
        return str(error)
    return None


def outcome(path: Path) -> str:
    """``pixels`` or ``refused``: as a picture, as a mask, by its header and for a detector; anything else fails."""
    looks = (lambda: read_image(path, levels=Levels(0, 65535)), lambda: read_image(path, "L"), lambda: image_size(path))
    errors = list(filter(None, map(error_of, looks)))
    assert all(error.startswith(f"{path}: ") for error in errors), errors
    found = read(str(path), Levels(0, 65535))
    assert (found.pixels is None) != (found.error is None)
    return "pixels" if len(errors) < len(looks) else "refused"


@pytest.mark.parametrize("kind", FILES)
def test_the_files_that_are_spoilt_below_are_read_whole(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(FILES[kind])
    assert read_image(path, levels=Levels(0, 65535)).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_ends_early_is_read_or_named(kind: str, tmp_path: Path) -> None:
    path, data = tmp_path / "picture", FILES[kind]
    for length in sorted({*range(0, 40, 3), *np.linspace(0, len(data) - 1, 16).astype(int).tolist()}):
        path.write_bytes(data[:length])
        outcome(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CADiffError, match=rf"^{path}: "):
        read_image(path, levels=Levels(0, 65535))


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)
UNCHECKED = [HealthCheck.function_scoped_fixture]


def check_spoilt(kind: str, changes: list[tuple[float, bytes]], folder: Path) -> None:
    """Bytes of a whole file are replaced, each run of them from a share of its length on."""
    data = bytearray(FILES[kind])
    for share, new in changes:
        start = int(share * len(data))
        data[start : start + len(new)] = new
    (folder / "picture").write_bytes(data)
    outcome(folder / "picture")


@settings(max_examples=120, deadline=None, suppress_health_check=UNCHECKED)
@given(kind=st.sampled_from(sorted(FILES)), changes=CHANGES)
@example(kind="tif", changes=[(0.0, b"II*\0\xff\xff\xff\xff")])
@example(kind="png", changes=[(8 / len(FILES["png"]), b"\xff\xff\xff\xff")])
def test_a_spoilt_file_is_read_or_named(kind: str, changes: list[tuple[float, bytes]], tmp_path: Path) -> None:
    check_spoilt(kind, changes, tmp_path)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=UNCHECKED)
@given(kind=st.sampled_from(sorted(FILES)), changes=CHANGES)
def test_ten_thousand_spoilt_files_are_read_or_named(kind: str, changes: list[tuple[float, bytes]], tmp_path: Path) -> None:
    check_spoilt(kind, changes, tmp_path)


def looped_tiff() -> bytes:
    """A directory whose next one is itself."""
    data = bytearray(encoded("TIFF"))
    (start,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[start : start + 2])
    data[start + 2 + 12 * count : start + 6 + 12 * count] = struct.pack("<I", start)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (chunked(header(60000, 60000), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")), "too large"),
        (chunked(header(60000, 60000, 16, 0), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")), "too large"),
        (encoded("BMP")[:18] + struct.pack("<ii", 50000, 50000) + encoded("BMP")[26:], "too large"),
        (tiff(np.zeros((1, 1), np.uint8)).replace(struct.pack("<HHIH", 256, 4, 1, 1), struct.pack("<HHIH", 256, 4, 1, 60000))
         .replace(struct.pack("<HHIH", 257, 4, 1, 1), struct.pack("<HHIH", 257, 4, 1, 60000)), "too large"),
        (chunked(header(SIDE, SIDE), (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26))), (b"IDAT", b""), (b"IEND", b"")), "does not decode"),
    ],
    ids=["png", "png-16", "bmp", "tiff", "text"],
)  # fmt: skip
def test_a_bomb_is_refused_by_its_name_at_once(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(data)
    for mode in ("RGB", "L"):
        with pytest.raises(CADiffError, match=rf"^{path}: .*{said}"):
            read_image(path, mode)


@pytest.mark.parametrize("values", [PIXELS, DEEP[..., 0], DEEP[..., 0].astype(np.float32)], ids=["8", "16", "real"])
def test_rows_that_a_tiff_announces_and_does_not_hold_are_no_black_pixels(values: np.ndarray, tmp_path: Path) -> None:
    path, data = tmp_path / "tall.tif", bytearray(tiff(values))
    found = data.index(struct.pack("<HH", 257, 4))
    data[found + 10] = 16  # sixteen times 65536 rows more
    path.write_bytes(data)
    for look in (lambda: read_image(path, levels=Levels(0, 65535)), lambda: read_image(path, "L"), lambda: image_size(path)):
        with pytest.raises(CADiffError, match=rf"^{path}: expected {SIDE}x{SIDE + 16 * 2**16} pixels, .* found {SIDE * SIDE} of"):
            look()


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"rowsperstrip": 7}, {"rowsperstrip": 1, "compression": "zlib"}], ids=str)
def test_a_tiff_of_whatever_pieces_is_read_whole(options: dict[str, object], tmp_path: Path) -> None:
    for name, values in (("colour", PIXELS), ("grey", DEEP[..., 0]), ("real", DEEP[..., 0].astype(np.float32))):
        path = tmp_path / f"{name}.tif"
        path.write_bytes(tiff(values, **options))
        read_back = read_image(path, levels=None if name == "colour" else Levels(0, 65535))
        assert read_back.shape == (SIDE, SIDE, 3), name
    assert np.array_equal(read_image(tmp_path / "colour.tif"), PIXELS)


def test_a_tiff_of_a_plane_a_channel_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "planes.tif").write_bytes(tiff(np.moveaxis(PIXELS, -1, 0), photometric="rgb", planarconfig="separate"))
    assert np.array_equal(read_image(tmp_path / "planes.tif"), PIXELS)


def test_directories_that_go_round_are_no_endless_reading(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(looped_tiff())
    outcome(tmp_path / "picture")


def folder(path: Path) -> None:
    path.mkdir()


def endless_link(path: Path) -> None:
    path.symlink_to(path.name)


def broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def absent(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "said"),
    [(folder, "found a folder"), (endless_link, "does not open"), (broken_link, "no such file"), (pipe, "no plain file"),
     (device, "no plain file"), (absent, "no such file")],
)  # fmt: skip
def test_what_is_no_file_is_refused_by_its_name(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    make(path)
    for look in (lambda: read_image(path), lambda: image_size(path), lambda: read_file(path)):
        with pytest.raises(CADiffError, match=rf"^{path}: expected .*{said}"):
            look()
    assert outcome(path) == "refused"


def test_names_that_no_disk_has_are_refused() -> None:
    for name in ("a" * 5000, "a.png/b.png", "a\0b.png"):
        with pytest.raises(CADiffError, match=r"no such file|does not open|no file has such a name"):
            read_image(name)


def test_a_file_of_someone_else_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(FILES["png"])
    path.chmod(0)
    if os.geteuid():
        with pytest.raises(CADiffError, match=rf"^{path}: .*Permission denied"):
            read_image(path)
        return
    for parent in (tmp_path, *tmp_path.parents):  # root reads all, so it is asked as nobody
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    code = f"import os\nfrom cadiff.opening import opened\nos.setuid(65534)\nwith opened({str(path)!r}, 'an image'): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert f"{path}: expected an image, but it does not open (Permission denied). Give the user that runs this the right" in done.stderr


def test_more_than_a_file_may_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(bytes(11))
    assert len(read_file(tmp_path / "a.json", most=11)) == 11
    with pytest.raises(CADiffError, match=rf"^{tmp_path / 'a.json'}: expected labels of at most"):
        read_file(tmp_path / "a.json", "labels", most=10)


def test_an_error_of_another_file_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError, match="beside"), opened(tmp_path / "a"):
        raise OSError(28, "No space left on device", str(tmp_path / "beside"))


# Modules that open no user's file past cadiff.opening, and why each other one opens files itself.
OWN = {
    "opening": "the one door", "storage": "artefacts of this project",
    "params/reading": "params.yaml, whose errors name the file too", "params/presets": "presets of this repository",
    "shipping/run": "runs without this package", "shipping/folder": "its own run.py", "shipping/graphs": "a graph that it has just written",
    "reporting/page": "a table of this package", "detection/seeds": "detectors that were just trained", "predict": "writes its own table",
    "detection/anomalib_peers": "detectors that were just trained", "pictures": "pixels that it has just written",
    "metrics/pixels": "maps that it has just written", "pretraining/stream": "batches that it has just written",
}  # fmt: skip
IMAGES = {"decoding": "the one door", "shipping/run": "runs without this package", "detection/batches": "images of its own shards"}
READING = {"read_bytes", "read_text", "open", "fromfile", "memmap", "imread", "genfromtxt", "loadtxt"}


def calls_of(module: Path) -> set[str]:
    """What is called in a module, as ``Image.open``, ``.open``, ``open``, ``np.load``."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            found.add(f"{owner}.{node.func.attr}" if owner in ("Image", "np", "numpy", "os") else f".{node.func.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            found.add("open")
    return found


def test_nothing_opens_a_users_file_past_the_one_function() -> None:
    for module in sorted((ROOT / "cadiff").rglob("*.py")):
        name, calls = module.relative_to(ROOT / "cadiff").with_suffix("").as_posix(), calls_of(module)
        assert name in IMAGES or "Image.open" not in calls, f"{name}: opens images past cadiff.decoding"
        past = {call for call in calls if call.split(".")[-1] in READING and call != "Image.open"}
        assert name in OWN or not past, f"{name}: opens files past cadiff.opening ({', '.join(sorted(past))})"
    stale = [name for name in {**OWN, **IMAGES} if not (ROOT / "cadiff" / f"{name}.py").is_file()]
    assert not stale, "these are no modules any more"
