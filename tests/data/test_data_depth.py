"""Pictures as cameras give them: every value is read as it is stored, or the file is refused by its name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cadiff.decoding import decode_values, shown
from cadiff.errors import CADiffError
from cadiff.records import Levels
from cadiff.storage import read_image, read_values

HEIGHT, WIDTH = 20, 26
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
COLOUR = RNG.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
REAL = (RNG.random((HEIGHT, WIDTH)) * 40 - 7).astype(np.float32)
EIGHT = (COLOUR >> 8).astype(np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 3


def png(values: np.ndarray, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits as its specification has it: Pillow writes none in colour. ``kind``: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opaque(values: np.ndarray) -> np.ndarray:
    return np.dstack([values, np.full(values.shape[:2], 65535, np.uint16)])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(GREY, 0), GREY),
        (png(COLOUR, 2), COLOUR),
        (png(opaque(COLOUR), 6), COLOUR),
        (tiff(GREY), GREY),
        (tiff(GREY, byteorder=">"), GREY),
        (tiff(GREY, compression="zlib", predictor=True), GREY),
        (tiff(GREY, byteorder=">", compression="zlib"), GREY),
        (tiff(COLOUR, photometric="rgb"), COLOUR),
        (tiff(COLOUR, photometric="rgb", byteorder=">"), COLOUR),
        (tiff(COLOUR, photometric="rgb", compression="zlib"), COLOUR),
        (tiff(COLOUR, photometric="rgb", compression="zlib", byteorder=">"), COLOUR),
        (tiff(np.tile(COLOUR, (3, 3, 1)), photometric="rgb", tile=(16, 16)), np.tile(COLOUR, (3, 3, 1))),
        (tiff(opaque(COLOUR), photometric="rgb", extrasamples=["unassalpha"]), COLOUR),
        (tiff(REAL), REAL),
        (tiff(REAL, compression="zlib", predictor=True), REAL),
        (tiff(GREY.astype(np.int32) * 9 - 80000), GREY.astype(np.int32) * 9 - 80000),
        (tiff((GREY // 2).astype(np.int16) - 16000), (GREY // 2).astype(np.int32) - 16000),
        (tiff(GREY.astype(np.uint32) * 7), GREY.astype(np.int64) * 7),
        (tiff(EIGHT, photometric="rgb"), EIGHT),
        (saved(Image.fromarray(EIGHT), "BMP"), EIGHT),
    ],
    ids=["png", "png-rgb", "png-rgba", "tiff", "tiff-big-end", "tiff-zip", "tiff-big-end-zip", "tiff-rgb", "tiff-rgb-big-end",
         "tiff-rgb-zip", "tiff-rgb-big-end-zip", "tiff-tiles", "tiff-rgba", "tiff-real", "tiff-real-zip", "tiff-i32", "tiff-i16",
         "tiff-u32", "tiff-8", "bmp-8"],
)  # fmt: skip
def test_every_value_is_as_it_was_stored(data: bytes, expected: np.ndarray) -> None:
    found = decode_values(data)
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)
    assert (found.dtype == np.uint8) == (expected.dtype == np.uint8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (png(np.dstack([GREY, GREY]), 4), "transparent|shortens"),
        (png(np.dstack([GREY, np.full_like(GREY, 65535)]), 4), r"shortens \(LA;16B\)"),
        (png(np.dstack([COLOUR, GREY]), 6), "transparent"),
        (png(GREY, 0, (b"tRNS", struct.pack(">H", 7))), "transparent"),
        (tiff(np.where(REAL > 20, np.nan, REAL).astype(np.float32)), "NaN"),
        (tiff(REAL.astype(np.float64)), "TIFF of this kind"),
        (tiff(REAL.astype(np.float16)), "TIFF of this kind"),
        (tiff(np.dstack([REAL] * 3), photometric="rgb"), "TIFF of this kind"),
        (tiff(COLOUR, photometric="rgb", planarconfig="separate"), "TIFF of this kind"),
        (tiff(GREY, photometric="miniswhite"), "0 is white"),
        (tiff(GREY.astype(np.uint32) * 60000), "2147483647"),
        (tiff(np.stack([GREY, GREY]), photometric="minisblack"), "2 pages"),
        (saved(Image.fromarray(EIGHT), "GIF", save_all=True, append_images=[Image.fromarray(EIGHT[::-1])]), "2 pages"),
        (saved(Image.fromarray(EIGHT), "PNG", save_all=True, append_images=[Image.fromarray(EIGHT[::-1])]), "2 pages"),
        (saved(Image.fromarray(EIGHT), "WEBP", save_all=True, append_images=[Image.fromarray(EIGHT[::-1])], lossless=True), "2 pages"),
        (saved(Image.fromarray(EIGHT).convert("CMYK"), "JPEG"), "found CMYK"),
        (saved(Image.fromarray(EIGHT), "EPS"), "none that Pillow knows"),
        (saved(Image.fromarray(EIGHT), "JPEG", exif=TURNED), "orientation 3"),
    ],
    ids=["png-la", "png-opaque-la", "png-rgba", "png-clear-value", "nan", "f64", "f16", "real-colour", "planes", "white-is-0",
         "u32-overflow", "tiff-pages", "gif", "apng", "webp", "cmyk", "eps", "turned"],
)  # fmt: skip
def test_what_cannot_be_read_whole_is_refused_by_name(data: bytes, said: str) -> None:
    with pytest.raises(CADiffError, match=rf"^the picture: .*({said})"):
        decode_values(data, "the picture")


def test_a_cameras_jpeg_with_a_preview_is_its_picture(tmp_path: Path) -> None:
    """MPO, as phones and stereo cameras save it: the picture first."""
    first = Image.fromarray(np.full((40, 40, 3), 90, np.uint8))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.fromarray(np.zeros((8, 8, 3), np.uint8))])
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2), "the case is drawn as meant"
    assert (read_image(tmp_path / "a.jpg") == 90).all()


@pytest.mark.parametrize("mode", ["1", "P", "L", "LA"])
def test_other_modes_of_8_bits_are_read_as_ever(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(EIGHT).convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("values", [GREY, COLOUR, REAL], ids=["grey", "colour", "real"])
def test_levels_are_black_and_white(values: np.ndarray) -> None:
    levels = Levels(float(np.quantile(values, 0.1)), float(np.quantile(values, 0.8)))
    pixels = shown(values, levels, "the picture")
    share = (values.astype(np.float64) - levels.low) / (levels.high - levels.low)
    expected = 255 * np.minimum(np.maximum(share, 0), 1)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(pixels - (expected if values.ndim == 3 else expected[..., None])).max() < 0.51
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_twelve_bits_in_sixteen_use_the_whole_range(tmp_path: Path) -> None:
    """A camera of 12 bits: read as 16 bits nearly all would be black."""
    (tmp_path / "a.png").write_bytes(png(GREY >> 4, 0))
    assert np.abs(read_image(tmp_path / "a.png", levels=Levels(0, 4095))[..., 0] - (GREY >> 4) / 4095 * 255).max() < 0.51


def test_8_bits_need_no_levels_and_more_need_them(tmp_path: Path) -> None:
    (tmp_path / "8.png").write_bytes(saved(Image.fromarray(EIGHT), "PNG"))
    (tmp_path / "16.png").write_bytes(png(COLOUR, 2))
    assert np.array_equal(read_image(tmp_path / "8.png", levels=Levels(5, 9)), EIGHT)
    with pytest.raises(CADiffError, match=rf"^{tmp_path / '16.png'}: expected 8 bits a channel, found more.*dataset.range"):
        read_image(tmp_path / "16.png")


@pytest.mark.parametrize("remedy", [
    lambda values: png(values, 2),
    lambda values: tiff(values, photometric="rgb"),
], ids=["png", "tiff"])  # fmt: skip
def test_what_is_saved_anew_as_advised_is_read(remedy: Callable[[np.ndarray], bytes], tmp_path: Path) -> None:
    """The advice of the refusals: one plane of RGB with 16 bits."""
    (tmp_path / "a.tif").write_bytes(tiff(COLOUR, photometric="rgb", planarconfig="separate"))
    with pytest.raises(CADiffError, match="Save it anew: grey or colour in one plane"):
        read_values(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(remedy(tifffile.imread(tmp_path / "a.tif")))
    assert np.array_equal(read_values(tmp_path / "a.tif"), COLOUR)
