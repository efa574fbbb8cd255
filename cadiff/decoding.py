"""From an image file's bytes to its values, at the file's own depth. Nothing is lost without a word."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, UnidentifiedImageError

from cadiff.errors import CADiffError
from cadiff.records import Levels

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF")  # none runs a program, as EPS does, or is stretched, as PGM
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 0x0112, 0x0102, 0x0106, 0x0153  # tags of EXIF and TIFF
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHER_END = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
TINT = 0.5  # of a mask's brightest value: channels that differ by more make a colour, such as a class is drawn in
CUT = "cadiff cut ROOT --out NEW"  # the command that makes of a data set with such pictures one without
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's grey


def decode_image(data: bytes, mode: str, name: str = "image") -> np.ndarray:
    """An image of 8 bits a channel as uint8: ``h w 3`` for RGB, ``h w`` for L.

    Raises:
        CADiffError: if it is no image, is larger than Pillow's limit, has more than 8 bits a channel, or would lose something without a
            word: see ``_refuse_what_would_be_lost``.
    """
    with _image(io.BytesIO(data), name) as image:
        _refuse_what_would_be_lost(image, name)
        if _is_deep(image, data):
            raise too_deep(name)
        return np.asarray(image.convert(mode))


def decode_values(data: bytes, name: str = "image") -> Num[np.ndarray, "h w *c"]:
    """An image's values: uint8 ``h w 3`` of 8 bits a channel, or with more (whole or real numbers, all finite) as stored, ``h w 3`` or,
    of a grey image, ``h w``.

    Raises:
        CADiffError: as ``decode_image``, but for the depth.
    """
    with _image(io.BytesIO(data), name) as image:
        _refuse_what_would_be_lost(image, name)
        return _stored(image, data, name) if _is_deep(image, data) else np.asarray(image.convert("RGB"))


def decode_mask(data: bytes, name: str = "mask") -> Num[np.ndarray, "h w"]:
    """A mask's values as stored. Of one that is drawn in colours 255 wherever it is not black; of one that is grey but for a tint its
    brightness, not rounded.

    Raises:
        CADiffError: as ``decode_values``.
    """
    with _image(io.BytesIO(data), name) as image:
        _refuse_what_would_be_lost(image, name)
        if image.mode in ("1", "L", "LA") and not _is_deep(image, data):
            return np.asarray(image.convert("L"))
        values = _stored(image, data, name) if _is_deep(image, data) else np.asarray(image.convert("RGB"))
    return mask_values(values)


def mask_values(values: Num[np.ndarray, "h w *c"]) -> Num[np.ndarray, "h w"]:
    """What a mask says by its values, grey or coloured (``decode_mask``)."""
    if values.ndim == 2 or (values == values[..., :1]).all():
        return values if values.ndim == 2 else values[..., 0]
    brightest = values.max(axis=-1)
    if np.ptp(values, axis=-1).max() > TINT * brightest.max():
        return np.where(brightest > 0, 255, 0).astype(np.uint8)
    return values.astype(np.float32) @ LUMA


class Page(NamedTuple):
    """One page of a file: its values as ``decode_values`` has them, and how opaque each pixel is (255: wholly; None: all are)."""

    values: Num[np.ndarray, "h w *c"]
    alpha: UInt8[np.ndarray, "h w"] | None


def decode_pages(data: bytes, name: str = "image") -> Iterator[Page]:
    """A file's pages, one at a time, with what ``decode_values`` refuses: several of them, and transparent pixels.

    Raises:
        CADiffError: as ``decode_values`` for the rest, or if a picture with transparent pixels is grey with more than 8 bits.
    """
    with _image(io.BytesIO(data), name) as image:
        for number in range(_pages(image)):
            image.seek(number)
            _refuse_what_is_not_there(image, name)
            _refuse_turned_and_inks(image, name)
            deep, clear = _is_deep(image, data), _is_transparent(image)
            if clear and image.mode[0] in "IF":
                raise CADiffError(f"{name}: expected an opaque image, found transparent pixels. Save it without an alpha channel.")
            alpha = np.asarray(image.convert("RGBA"))[..., 3] if clear else None
            plain = image.convert("RGBA").convert("RGB") if clear else image.convert("RGB")
            yield Page(_stored(image, data, name) if deep else np.asarray(plain), alpha)


def decode_grey(data: bytes, name: str = "map") -> Num[np.ndarray, "h w"]:
    """The values of a grey image as stored.

    Raises:
        CADiffError: as ``decode_values``, or if it is not grey.
    """
    with _image(io.BytesIO(data), name) as image:
        _refuse_what_would_be_lost(image, name)
        if image.mode != "L" and image.mode[0] not in "IF":
            raise CADiffError(f"{name}: expected one page of grey values, found mode {image.mode}. Save it as grey or as .npy.")
        return _stored(image, data, name) if _is_deep(image, data) else np.asarray(image)


def decode_numbers(data: bytes, name: str = "mask") -> UInt8[np.ndarray, "h w"]:
    """The number of each pixel as stored, of a palette or grey image of 8 bits: what its colours look like means nothing.

    Raises:
        CADiffError: as ``decode_image``, or if its pixels are no such numbers.
    """
    with _image(io.BytesIO(data), name) as image:
        _refuse_what_would_be_lost(image, name)
        if image.mode not in ("P", "L"):
            raise CADiffError(f"{name}: expected a number a pixel (a palette, or grey of 8 bits), found mode {image.mode}. Export it anew.")
        return np.asarray(image)


def shown(values: Num[np.ndarray, "h w *c"], levels: Levels | None, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """What of an image's values is seen: 8 bits as they are; of more those from ``levels.low`` to ``levels.high`` as 0 to 255.

    Raises:
        CADiffError: if there are more than 8 bits and no levels.
    """
    if values.dtype == np.uint8:
        return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    if levels is None:
        raise too_deep(name)
    scaled = values.astype(np.float32)  # in place from here on: a picture may have 179 million pixels
    scaled -= np.float32(levels.low)
    scaled *= np.float32(255 / (levels.high - levels.low))
    pixels = np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled).astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def check_depth(values: Num[np.ndarray, "h w *c"], levels: Levels | None, name: str, made: bool = False) -> Num[np.ndarray, "h w *c"]:
    """The same values, if they have the depth that ``levels`` are for: without 8 bits a channel, with them more, unless the picture was
    ``made`` from such.

    Raises:
        CADiffError: says so otherwise.
    """
    if levels is None and values.dtype != np.uint8:
        raise too_deep(name)
    if levels is not None and values.dtype == np.uint8 and not made:
        raise CADiffError(
            f"{name}: expected more than 8 bits a channel, as pictures have that are read by dataset.range, found 8. Save it as the camera "
            "gave it, or set dataset.range: null for pictures of 8 bits."
        )
    return values


def too_deep(name: str) -> CADiffError:
    return CADiffError(
        f"{name}: expected 8 bits a channel, found more. Say which values are black and white (dataset.range: [low, high], or "
        "[0.1%, 99.9%] of the train normals), or save all pictures with 8 bits."
    )


def is_deep(file: BinaryIO, name: str) -> bool:
    """Whether an image has more than 8 bits a channel, by its header alone.

    Raises:
        CADiffError: if it is no image.
    """
    start = file.read(32)
    with _image(file, name) as image:
        return _is_deep(image, start)


def size_of(file: BinaryIO, name: str) -> tuple[int, int]:
    """Width and height of an image, by its header alone.

    Raises:
        CADiffError: if it is no image, or is stored turned.
    """
    with _image(file, name) as image:
        if image.getexif().get(ORIENTATION, 1) not in (0, 1):
            raise CADiffError(f"{name}: stored turned (EXIF orientation {image.getexif()[ORIENTATION]}). Save it upright, as its mask is.")
        return image.size


@contextlib.contextmanager
def _image(file: BinaryIO, name: str) -> Iterator[Image.Image]:
    """An open image; what Pillow and its decoders raise, which for a broken file is of any type, names the file."""
    try:
        file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            _refuse_what_is_not_there(image, name)
            yield image
    except CADiffError:
        raise
    except UnidentifiedImageError:
        raise CADiffError(_unknown(file, name)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CADiffError(f"{name}: too large ({error}). Cut it into tiles or shrink it.") from None
    except MemoryError:
        raise CADiffError(f"{name}: too large for this machine's memory. Cut it into tiles or shrink it.") from None
    except Exception as error:
        said = str(error) or type(error).__name__
        raise CADiffError(f"{name}: expected an image, but it does not decode ({said}). Copy it from where it came anew.") from None


def _unknown(file: BinaryIO, name: str) -> str:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(4) in TIFF_MAGIC:
        return (
            f"{name}: expected an image, but Pillow does not read a TIFF of this kind. Save it anew: grey or colour in one plane, 8 or 16 "
            "bits, or grey real numbers of 32 bits."
        )
    return f"{name}: expected an image ({', '.join(FORMATS)}), but these {size} bytes are none that Pillow knows."


def _refuse_what_is_not_there(image: Image.Image, name: str) -> None:
    """Where a TIFF's strips end before its last row, Pillow makes the rest black: of 1.6 KB with one spoilt byte 120 million pixels, and no
    word of it. Asked before the pixels are decoded, while the strips are known."""
    if image.format != "TIFF":
        return
    width, height = image.size
    stored = sum((right - left) * (lower - upper) for left, upper, right, lower in {tile[1] for tile in image.tile})  # type: ignore[attr-defined]
    if stored < width * height:
        raise CADiffError(
            f"{name}: expected {width}x{height} pixels, as its header says, found {stored} of {width * height}. Copy it from where it came "
            "anew."
        )


def _refuse_what_would_be_lost(image: Image.Image, name: str) -> None:
    """Pillow takes the first of several pages, drops what is transparent, leaves a picture lying as it was stored and guesses what inks
    look like: none of that is seen before a detector has learned from it. (A camera's MPO holds its picture first, then previews.)"""
    if (pages := _pages(image)) > 1:
        raise CADiffError(f"{name}: expected one picture, found {pages} pages. Save each as a file, as `{CUT}` does.")
    _refuse_turned_and_inks(image, name)
    if _is_transparent(image):
        raise CADiffError(
            f"{name}: expected an opaque image, found transparent pixels. Save it without an alpha channel, or lay it on a background, as "
            f"`{CUT}` does."
        )


def _pages(image: Image.Image) -> int:
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _refuse_turned_and_inks(image: Image.Image, name: str) -> None:
    if image.getexif().get(ORIENTATION, 1) not in (0, 1):
        raise CADiffError(f"{name}: stored turned (EXIF orientation {image.getexif()[ORIENTATION]}). Save it upright, as its mask is.")
    if image.mode in ("CMYK", "LAB"):
        raise CADiffError(f"{name}: expected grey or RGB, found {image.mode}, whose colours depend on the printer. Save it as RGB.")


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    return image.mode[0] in "IF" or bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)


def _is_deep(image: Image.Image, start: bytes) -> bool:
    """More than 8 bits a channel as stored: Pillow gives 16-bit colour the mode of 8. ``start``: the file's first bytes."""
    if image.mode[0] in "IF":
        return True
    if image.format == "PNG":
        return start[24] > 8  # of the header chunk, which comes first
    return image.format == "TIFF" and bool(np.max(image.getexif().get(BITS_PER_SAMPLE, 8)) > 8)


def _stored(image: Image.Image, data: bytes, name: str) -> Num[np.ndarray, "h w *c"]:
    """All bits of the values of an image of more than 8."""
    tags = image.getexif()
    if tags.get(PHOTOMETRIC) == 0:
        raise CADiffError(f"{name}: a TIFF in which 0 is white and values have more than 8 bits. Save it with 0 as black.")
    if image.mode[0] not in "IF":
        return _colour(image, data, name)
    values = np.asarray(image)
    values = values.astype(values.dtype.newbyteorder("="))
    if not np.isfinite(values).all():
        raise CADiffError(f"{name}: expected a number in each pixel, found values that are none (NaN or infinite). Save it without them.")
    if image.mode == "I" and tags.get(SAMPLE_FORMAT, 1) == 1 and values.min() < 0:  # Pillow has no unsigned mode of 32 bits
        raise CADiffError(f"{name}: whole numbers above 2147483647, which Pillow does not hold. Save them with 16 bits, or as real ones.")
    return values


def _colour(image: Image.Image, data: bytes, name: str) -> Num[np.ndarray, "h w 3"]:
    """Colours of 16 bits: Pillow decodes the upper byte of each, and, asked for the other byte order, the lower one."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as again:
        again.seek(image.tell())
        again.tile = [tile._replace(args=_other_end(tile.args, name)) for tile in again.tile]
        upper, lower = (np.asarray(each).astype(np.uint16) for each in (image, again))
    return (upper * np.uint16(256) + lower)[..., :3]


def _other_end(arguments: Any, name: str) -> Any:
    """A decoder's arguments with the other byte order in its raw mode (``RGB;16B``)."""
    raw, rest = (arguments, None) if isinstance(arguments, str) else (arguments[0], arguments[1:])
    channels, _, order = raw.partition(";")
    if channels not in ("RGB", "RGBA", "RGBX") or order not in OTHER_END:
        raise CADiffError(f"{name}: more than 8 bits a channel, stored in a way that Pillow shortens ({raw}). Save it as RGB or grey.")
    changed = f"{channels};{OTHER_END[order]}"
    return changed if rest is None else (changed, *rest)
