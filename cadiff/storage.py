"""Files in and out: images, Parquet, tensors, JSON. Everything is written to a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter, UnidentifiedImageError
from safetensors import SafetensorError, safe_open

from cadiff.errors import CADiffError, UsageError

if TYPE_CHECKING:  # torch takes a second to import, and reading parameters needs none
    import torch


IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg"})
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 0x0102  # tags of EXIF and TIFF


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and is removed when not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".tmp")  # a name has 255 bytes at most
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    except json.JSONDecodeError as error:
        raise CADiffError(f"{path}: expected JSON, but it does not parse ({error}). Remove it and rerun its stage.") from None


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


@contextlib.contextmanager
def _opened(path: str | Path, schema: pa.Schema | None) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
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
    """The visible image files in ``path`` by name; none if ``path`` is not there."""
    if not path.is_dir():
        return []
    visible = (p for p in path.iterdir() if not p.name.startswith("."))
    return sorted(p for p in visible if p.suffix.lower() in IMAGE_SUFFIXES)


def decode_image(data: bytes, mode: str, name: str = "image") -> np.ndarray:
    """PNG bytes (or any format that Pillow reads) as uint8: ``h w 3`` for RGB, ``h w`` for L.

    Raises:
        CADiffError: if it is no image, is larger than Pillow's limit, or would lose something without a word: see
            ``_refuse_what_would_be_lost``.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_what_would_be_lost(image, data, mode, name)
            return np.asarray(image.convert(mode))
    except UnidentifiedImageError:
        raise CADiffError(f"{name}: expected an image, but these {len(data)} bytes are none that Pillow knows.") from None
    except Image.DecompressionBombError as error:
        raise CADiffError(f"{name}: too large ({error}). Cut it into tiles or shrink it.") from None
    except (OSError, SyntaxError) as error:
        raise CADiffError(f"{name}: expected an image, but it does not decode ({error}).") from None


def _refuse_what_would_be_lost(image: Image.Image, data: bytes, mode: str, name: str) -> None:
    """Pillow clips more than 8 bits, drops what is transparent, and leaves a picture lying as it was stored: none of that
    is seen before a detector has learned from it."""
    if mode == "RGB" and (image.mode in ("I", "F") or image.mode.startswith("I;") or _bits(image, data) > 8):
        raise CADiffError(f"{name}: expected 8 bits a channel, found more (mode {image.mode}). Scale it to 0..255 and save it anew.")
    if image.format == "TIFF" and (pages := getattr(image, "n_frames", 1)) > 1:
        raise CADiffError(f"{name}: expected one picture, found {pages} pages. Save each as a file.")
    if image.getexif().get(ORIENTATION, 1) not in (0, 1):
        raise CADiffError(f"{name}: stored turned (EXIF orientation {image.getexif()[ORIENTATION]}). Save it upright, as its mask is.")
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise CADiffError(f"{name}: expected an opaque image, found transparent pixels. Save it without an alpha channel.")


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits a channel as stored: Pillow gives 16-bit colour the mode of 8."""
    if image.format == "PNG":
        return data[24]  # of the header chunk, which comes first
    if image.format == "TIFF":
        stored = image.getexif().get(BITS_PER_SAMPLE, 8)
        return max(stored) if isinstance(stored, tuple) else int(stored)
    return 8


MaskRule = Literal["any", "quarter", "half", "nearest"]
MASK_RULES: dict[str, float] = {"any": 0.0, "quarter": 63.5, "half": 127.5}  # of 255: how much of a shrunk pixel is anomaly (less rounding)


def read_image(path: str | Path, mode: str = "RGB", shape: tuple[int, int] | None = None, rule: MaskRule = "quarter") -> np.ndarray:
    """An image file as uint8 (``h w 3`` for RGB, ``h w`` for L), brought to ``shape`` (height, width) if given.

    Masks (mode L) come back as 0/255. Values above 127 are anomaly; in a mask that has none, any value above 0
    is (VisA numbers its regions 1, 2, ...). Both in one mask, each in an area of its own, would be a guess: an error.
    A mask may be a folder of images, one a defect: their union (MVTec LOCO AD). ``rule`` says which pixels count in a mask that is
    brought to a shape (``resize_mask``).
    """
    path = Path(path)
    if mode == "L" and path.is_dir():
        pixels = _union([read_image(file, "L") for file in sorted(path.glob("[!.]*"))], path)
    elif not path.is_file():
        raise CADiffError(f"{path}: expected an image, but there is no such file.")
    else:
        pixels = decode_image(path.read_bytes(), mode, str(path))
    if mode == "L":
        threshold = 127 if pixels.max() > 127 else 0
        if threshold and (label := _dark_area(pixels)):
            found = f"both {pixels.max()} and areas of {label}"
            raise CADiffError(f"{path}: expected 0 and 255, or labels up to 127, found {found}. Save it with two values.")
        pixels = np.where(pixels > threshold, 255, 0).astype(np.uint8)
    if shape is None or pixels.shape[:2] == tuple(shape):
        return pixels
    if mode == "L":
        return np.where(resize_mask(pixels > 0, shape, rule), 255, 0).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.LANCZOS))


def resize_mask(mask: np.ndarray, shape: tuple[int, int], rule: MaskRule = "quarter") -> np.ndarray:
    """A mask (bool, ``h w``) at a height and a width.

    A pixel of the result counts where at least a quarter of what it covers was anomaly (``quarter``: thin defects survive), at least
    half (``half``: the area stays), any (``any``), or where the pixel nearest to its centre was (``nearest``: as code that shrinks masks
    without a thought). Where no pixel has that much, those with the most count, so that no defect vanishes; ``nearest`` alone may lose it.
    """
    if mask.shape == tuple(shape):
        return mask
    if rule == "nearest":
        return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(shape[::-1], Image.Resampling.NEAREST)) > 0
    shares = Image.fromarray(np.where(mask, 255, 0).astype(np.float32))
    coverage = np.asarray(shares.resize(shape[::-1], Image.Resampling.BOX))
    return (coverage >= min(MASK_RULES[rule], coverage.max())) & (coverage > 0)


def check_anomaly(path: Path, mask: np.ndarray) -> None:
    """An error if the mask of an anomaly, as ``read_image`` has read it, is a JPEG, or nothing or everything is marked in it."""
    for file in image_files(path) if path.is_dir() else [path]:
        if file.suffix.lower() in LOSSY_SUFFIXES:
            raise UsageError(f"{file}: JPEG blurs a mask's edge; expected a lossless mask, such as PNG")
    if not mask.any():
        raise UsageError(f"{path}: empty mask; mark the anomaly, or remove the mask and its image")
    if mask.all():
        raise UsageError(f"{path}: every pixel is marked; expected the anomaly's alone (is the mask inverted?)")


def _dark_area(mask: np.ndarray) -> int:
    """A value from 1 to 127 that fills 3 by 3 pixels somewhere: a label, where the rim of a smoothed mask has none. 0: none."""
    least, most = (np.asarray(Image.fromarray(mask).filter(kind(3))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    return int(np.where((least == most) & (mask < 128), mask, 0).max())


def _union(masks: list[np.ndarray], folder: Path) -> np.ndarray:
    if len({mask.shape for mask in masks}) != 1:
        sizes = sorted(f"{mask.shape[1]}x{mask.shape[0]}" for mask in masks)
        raise CADiffError(f"{folder}: expected masks of one size, found {', '.join(sizes) or 'none'}.")
    return np.maximum.reduce(masks)


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
    """A safetensors file; the same tensors and metadata give the same bytes."""
    from safetensors.torch import save as safetensors_bytes

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes(path, _with_sorted_metadata(safetensors_bytes(plain, metadata)))


def _with_sorted_metadata(data: bytes) -> bytes:
    """safetensors writes its metadata in the order of a hash map, another one in every call."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


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
