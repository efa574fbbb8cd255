"""What a folder of someone's images may hold that would be lost, misread or skipped without a word."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data.conftest import SIDE, picture, square
from PIL import Image

from cadiff.data import inspect_root, read_samples
from cadiff.errors import CADiffError, UsageError
from cadiff.params import DatasetParams
from cadiff.storage import read_image, write_image


def problems_of(root: Path) -> list[str]:
    return inspect_root(root, base=16).problems


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.linspace(8000, 50000, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)).save(path)


def real_numbers(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32)).save(path.with_suffix(".tif"))
    path.unlink()


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save(path, exif=exif)


def sixteen_bit_colour(path: Path) -> None:
    """Pillow writes none: a PNG by hand, as its specification has it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + bytes(6 * SIDE) for _ in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def two_pages(path: Path) -> None:
    first, second = (Image.fromarray(picture(seed)) for seed in (0, 1))
    first.save(path.with_suffix(".tif"), save_all=True, append_images=[second])
    path.unlink()


def transparent(path: Path) -> None:
    Image.fromarray(np.dstack([picture(0), square()])).save(path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(sixteen_bits, "8 bits"), (real_numbers, "8 bits"), (turned, "orientation 6"), (transparent, "opaque"),
     (sixteen_bit_colour, "8 bits"), (two_pages, "2 pages"),
     (lambda path: path.write_bytes(b""), "0 bytes")],
)  # fmt: skip
def test_pixels_that_would_be_lost_are_refused(mvtec_root, spoil, said):
    spoil(mvtec_root / "nut/train/good/001.png")
    (problem,) = problems_of(mvtec_root)
    assert problem.startswith(str(mvtec_root / "nut/train/good/001"))
    assert said in problem


def test_a_picture_beyond_pillows_limit_is_named(mvtec_root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIDE * SIDE // 3)
    assert all("too large" in problem for problem in problems_of(mvtec_root))
    assert len(problems_of(mvtec_root)) == 5, "one, two, and of seven and of four one with the count of the others"


def test_opaque_alpha_and_palettes_are_read_as_ever(tmp_path):
    shown = picture(3)
    Image.fromarray(np.dstack([shown, np.full((SIDE, SIDE), 255, np.uint8)])).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), shown)
    flat = Image.fromarray(square()).convert("P")
    flat.save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png", "L"), square())


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.full((SIDE, SIDE), 255, np.uint8), "every pixel is marked"),
        (np.maximum(square(), np.roll(square(value=100), 12, 1)), "both 255 and areas of 100"),
    ],
)
def test_masks_that_mean_something_else_are_refused(mvtec_root, mask, said):
    path = mvtec_root / "nut/ground_truth/scratch/002_mask.png"
    write_image(path, mask)
    (problem,) = problems_of(mvtec_root)
    assert problem.startswith(f"{path}: ")
    assert said in problem


def test_a_mask_drawn_in_its_alpha_channel_is_refused(mvtec_root):
    path = mvtec_root / "nut/ground_truth/scratch/002_mask.png"
    Image.fromarray(np.dstack([np.full((SIDE, SIDE, 3), 255, np.uint8), square()])).save(path)
    assert "opaque" in problems_of(mvtec_root)[0]


def test_a_smoothed_rim_is_no_label(tmp_path):
    large = Image.fromarray(square(96).repeat(1, 0)).resize((SIDE * 3, SIDE * 3), Image.Resampling.BICUBIC)
    large.save(tmp_path / "mask.png")
    assert read_image(tmp_path / "mask.png", "L").any()


def test_nothing_is_skipped_without_a_word(mvtec_root):
    nut = mvtec_root / "nut"
    strays = ["train/good/010.webp", "train/010.png", "test/011.png", "test/dent/inner/000.png", "ground_truth/scratch/notes.txt"]
    for name in strays:
        (nut / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(nut / name, picture(0))
    (nut / "test/empty").mkdir()
    write_image(nut / "ground_truth/scratch/002_mask.bmp", square())
    (mvtec_root / "bolt/Train/good").mkdir(parents=True)
    (nut / "train/good/Thumbs.db").write_bytes(b"litter")
    problems = problems_of(mvtec_root)
    named = ["train/good/010.webp", "train/010.png", "test/011.png", "test/dent/inner", "ground_truth/scratch/notes.txt",
             "test/empty", "ground_truth/scratch/002_mask"]  # fmt: skip
    for path in [*(nut / name for name in named), mvtec_root / "bolt"]:
        assert any(problem.startswith(str(path)) for problem in problems), f"{path}: not a word of it"
    assert len(problems) == len(named) + 1


def test_readme_and_licence_beside_the_folders_are_no_problem(mvtec_root):
    for path in (mvtec_root / "license.txt", mvtec_root / "nut/readme.txt"):
        path.write_text("as MVTec ships them")
    assert problems_of(mvtec_root) == []


@pytest.mark.parametrize("name", ["my nut", "M8x20 (zinc)", "a&b", "a@b", "-nut", "nut%", "v1.0", "M8x1.25", "n" * 101])
def test_a_product_that_no_command_line_takes_is_refused(mvtec_root, name):
    (mvtec_root / "nut").rename(mvtec_root / name)
    (problem,) = problems_of(mvtec_root)
    assert problem.startswith(f"{mvtec_root / name}: ")
    with pytest.raises(UsageError, match="cannot name a product"):
        read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root), calibration=0.0), name)


@pytest.mark.parametrize("name", ["Gehäuse", "4711", "a+b", "part-v2_", "ねじ", "हिंदी", "08", "n" * 100])
def test_other_names_are_products(mvtec_root, name):
    (mvtec_root / "nut").rename(mvtec_root / name)
    assert problems_of(mvtec_root) == []


def test_types_that_would_share_a_token_are_named(mvtec_root):
    for part in ("test", "ground_truth"):
        (mvtec_root / "nut" / part / "dent").rename(mvtec_root / "nut" / part / "Scratch")
    (problem,) = problems_of(mvtec_root)
    assert "'Scratch' and 'scratch'" in problem


def test_a_type_named_as_the_context_is_refused(mvtec_root):
    for part in ("test", "ground_truth"):
        (mvtec_root / "nut" / part / "dent").rename(mvtec_root / "nut" / part / "context")
    assert "'context'" in problems_of(mvtec_root)[0]


def test_what_cannot_be_measured_is_said_before_anything_is_trained(mvtec_root):
    for path in (mvtec_root / "nut/test/good").iterdir():
        path.unlink()
    (mvtec_root / "nut/test/good").rmdir()
    write_image(mvtec_root / "nut/test/scratch/006.png", picture(0))  # a train normal's picture
    text = inspect_root(mvtec_root, base=16).text()
    assert "no test/good" in text
    assert "1 images to be scored are copies" in text


def test_an_image_that_is_listed_twice_is_named(folder_root):
    table = folder_root / "gear" / "table.csv"
    row = next(line for line in table.read_text().splitlines() if line.endswith(",train"))
    table.write_text(table.read_text() + row.removesuffix("train") + "test\n")
    (problem,) = problems_of(folder_root)
    assert "listed in train and in test" in problem


def test_a_bomb_or_no_image_is_a_cadiff_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(CADiffError, match="7 bytes"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("shape", "said"),
    [((15, 40), "40x15; expected at least 16 px of the shorter side"), ((16, 200), "200x16; expected sides of at most 8 to 1, found 12.5")],
)
def test_a_picture_without_room_for_a_window_is_refused(mvtec_root, shape, said):
    path = mvtec_root / "nut/train/good/001.png"
    write_image(path, np.zeros((*shape, 3), np.uint8))
    assert problems_of(mvtec_root) == [next(p for p in problems_of(mvtec_root) if said in p)]
    with pytest.raises(UsageError, match=rf"^{path}: {said}"):
        read_samples(DatasetParams(name="toy", layout="mvtec", root=str(mvtec_root), calibration=0.0), "nut")


def test_a_picture_of_sixteen_px_and_of_eight_to_one_is_read(mvtec_root):
    write_image(mvtec_root / "nut/train/good/001.png", np.zeros((16, 128, 3), np.uint8))
    assert problems_of(mvtec_root) == []
