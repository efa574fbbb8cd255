"""Files in and out: images, Parquet, tensors, JSON. Everything is written to a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors import SafetensorError, safe_open

from cadiff.decoding import decode_image as decode_image
from cadiff.decoding import decode_mask, shown, size_of
from cadiff.decoding import decode_values as decode_values
from cadiff.errors import CADiffError, UsageError, refused
from cadiff.marking import MASK_RULES as MASK_RULES
from cadiff.marking import MaskRule as MaskRule
from cadiff.marking import marked, union
from cadiff.marking import resize_mask as resize_mask
from cadiff.opening import opened
from cadiff.opening import read_file as read_file
from cadiff.records import Levels
from cadiff.visible import visible

if TYPE_CHECKING:  # torch takes a second to import, and reading parameters needs none
    import torch


IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg"})
SEAL = "self"  # the key of a JSON file that has the digest of all its others


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and is removed when not.

    Raises:
        CADiffError: if the disk is full, or does not let it be written.
    """
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".tmp")  # a name has 255 bytes at most
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        told = refused(path, error) if error.filename is None or _is_for(path.absolute(), Path(error.filename).absolute()) else None
        if told is None:
            raise
        raise told from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _is_for(path: Path, named: Path) -> bool:
    """Whether a name is that of a file to be written, of its temporary one, or of a folder that it lies in."""
    return named in (path, *path.parents) or (named.parent == path.parent and named.name.startswith(f".{path.name[:64]}."))


def write_bytes(path: str | Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise missing(path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CADiffError(f"{path}: expected JSON, but it does not parse ({error}). Remove it and rerun its stage.") from None


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """The same with ``SEAL``: the SHA-256 of their JSON (keys sorted, Python's usual separators) without that key. So a value that
    somebody changes in the file is seen by whoever reads it."""
    own = {name: value for name, value in values.items() if name != SEAL}
    return {**own, SEAL: sha256_bytes(json.dumps(own, sort_keys=True).encode())}


def read_sealed(path: str | Path) -> dict[str, Any]:
    """The JSON of a file that has a seal (``sealed``), which is checked.

    Raises:
        CADiffError: if the file is absent or broken, or was changed since it was sealed.
    """
    values = read_json(path)
    if not isinstance(values, dict) or values.get(SEAL) != sealed(values)[SEAL]:
        raise CADiffError(
            f"{path}: expected it as it was shipped, with the SHA-256 of the rest as {SEAL}, found other values. Ship it again (dvc repro)."
        )
    return values


def missing(path: str | Path) -> CADiffError:
    return CADiffError(f"{path}: expected this file, but it is not there. Run the stage that makes it (dvc repro).")


def write_table(path: str | Path, table: pa.Table) -> None:
    """One Parquet file; the same table gives the same bytes."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", store_schema=True)


@contextlib.contextmanager
def table_writer(path: str | Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends a table to one Parquet file, a row group each; the file appears when the block ends well."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd", store_schema=True) as writer:
        yield writer.write_table


def read_table(path: str | Path, schema: pa.Schema | None = None, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, with the schema it must have; ``columns``: these of it only.

    Raises:
        CADiffError: if the file is absent, is no Parquet file, or has other columns.
    """
    with _opened(path, schema) as file:
        return file.read(columns)


def read_batches(path: str | Path, schema: pa.Schema, rows: int = 64) -> Iterator[pa.Table]:
    """A Parquet file as ``read_table``, but ``rows`` of it in memory at a time."""
    with _opened(path, schema) as file:
        for batch in file.iter_batches(rows):
            yield pa.Table.from_batches([batch])


Stored = Callable[[], bytes]  # gives what was put aside


class Spill:
    """Bytes put aside in a temporary file, which goes with the object and with what it gave: a process's memory does not grow with them,
    and what is read often stays in the system's cache."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="cadiff-")  # noqa: SIM115 (it lives as long as this)

    def put(self, data: bytes) -> Stored:
        start = self._file.tell()
        self._file.write(data)
        self._file.flush()
        return partial(self._read, start, len(data))

    def _read(self, start: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, start)


@contextlib.contextmanager
def _opened(path: str | Path, schema: pa.Schema | None) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # buffered ahead, a file that is read in parts lies in memory whole
            if schema is not None and file.schema_arrow.names != schema.names:
                raise CADiffError(
                    f"{path}: expected the columns {schema.names}, found {file.schema_arrow.names}. Rerun the stage that makes it."
                )
            yield file
    except FileNotFoundError:
        raise missing(path) from None
    except pa.ArrowInvalid as error:
        raise CADiffError(
            f"{path}: expected a whole Parquet file, but it does not open ({error}). Remove it and rerun its stage."
        ) from None


def image_files(path: Path) -> list[Path]:
    """The visible image files in ``path`` by name; none if ``path`` is not there.

    Raises:
        UsageError: if the folder does not open.
    """
    return [p for p in visible(path) if p.suffix.lower() in IMAGE_SUFFIXES]


def mask_files(path: str | Path) -> list[Path]:
    """The files whose union a mask is: ``path`` is one path a line, and a folder stands for the images in it."""
    parts = map(Path, str(path).split("\n"))
    return [file for part in parts for file in (image_files(part) if part.is_dir() else [part])]


def read_image(
    path: str | Path, mode: str = "RGB", shape: tuple[int, int] | None = None, rule: MaskRule = "quarter", levels: Levels | None = None
) -> np.ndarray:
    """An image file as uint8 (``h w 3`` for RGB, ``h w`` for L), brought to ``shape`` (height, width) if given.

    ``levels`` say which values of a picture of more than 8 bits a channel are black and white (``SampleRow.levels``).

    Masks (mode L) come back as 0/255: what is marked is decided on the file's own values (``cadiff.marking.marked``), then resized.
    A mask may be several files, one a defect: their union (``mask_files``). ``rule`` says which pixels count in a mask that is
    brought to a shape (``resize_mask``).

    Raises:
        CADiffError: if a file does not open or decode, or would lose something without a word (``cadiff.decoding``).
    """
    if mode == "L":
        mask = _read_mask(Path(path))
        return np.where(mask if shape is None else resize_mask(mask, shape, rule), 255, 0).astype(np.uint8)
    pixels = shown(read_values(path), levels, str(path))
    if shape is None or pixels.shape[:2] == tuple(shape):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.LANCZOS))


def read_values(path: str | Path) -> np.ndarray:
    """A picture's values at the file's own depth (``cadiff.decoding.decode_values``)."""
    return decode_values(read_file(path, "an image"), str(path))


def _read_mask(path: Path) -> np.ndarray:
    if (files := mask_files(path)) != [path]:
        return union([_read_mask(file) for file in files], path)
    return marked(decode_mask(read_file(path, "an image"), str(path)), str(path))


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file, from its header.

    Raises:
        CADiffError: if it does not open, is no image, or is stored turned.
    """
    with opened(path, "an image") as file:
        return size_of(file, str(path))


def check_anomaly(path: str | Path, mask: np.ndarray) -> None:
    """An error if the mask of an anomaly, as ``read_image`` has read it, is a JPEG, or nothing or everything is marked in it."""
    for file in mask_files(path):
        if file.suffix.lower() in LOSSY_SUFFIXES:
            raise UsageError(f"{file}: JPEG blurs a mask's edge; expected a lossless mask, such as PNG")
    first = str(path).partition("\n")[0]
    if not mask.any():
        raise UsageError(f"{first}: empty mask; mark the anomaly, or remove the mask and its image")
    if mask.all():
        raise UsageError(f"{first}: every pixel is marked; expected the anomaly's alone (is the mask inverted?)")


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 pixels (``h w 3`` or ``h w``) as PNG bytes, without any metadata that varies.

    At the least compression: the usual one takes a photograph four times as long and makes it a seventh smaller.
    """
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def write_image(path: str | Path, pixels: np.ndarray) -> None:
    write_bytes(path, encode_png(pixels))


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file; the same tensors and metadata give the same bytes.

    Written from where the tensors lie: those that share memory, or lie on an accelerator, are copied once, all others not at all.
    """
    from safetensors.torch import save_file

    plain: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        plain[name] = value.detach().cpu().contiguous()
        if (place := plain[name].untyped_storage().data_ptr()) in seen:
            plain[name] = plain[name].clone()  # the library refuses memory that two share
        seen.add(place)
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:
            if number := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
            raise
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """safetensors writes its metadata in the order of a hash map, another one in every call. Sorted it has the same length."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(length))


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A safetensors file's tensors (on the CPU) and its metadata; never unpickles anything."""
    if not Path(path).is_file():
        raise missing(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise CADiffError(
            f"{path}: expected a whole safetensors file, but it does not open ({error}). Remove it and rerun its stage."
        ) from None


def read_metadata(path: str | Path) -> dict[str, str]:
    """A safetensors file's metadata alone, however large its tensors are."""
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: str | Path) -> str:
    """One digest over the relative names and bytes of all files below ``path``."""
    root = Path(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(root).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def digest(value: Any) -> str:
    """16 hex digits for any JSON-able value: the name of what depends on it."""
    return sha256_bytes(json.dumps(value, sort_keys=True, default=str).encode())[:16]
