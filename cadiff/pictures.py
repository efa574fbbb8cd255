"""Pictures at the canvas: their own aspect ratio, their shorter side as ``dataset.size`` says."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from cadiff.records import SampleRow
from cadiff.storage import MASK_RULES, MaskRule, read_image, resize_mask

Size = int | Literal["native"]
MEMORY = 2**28  # bytes of decoded pixels that ``Pictures`` keeps in memory; what does not fit lies in a temporary file


class Picture(NamedTuple):
    """An image with its mask (True: anomaly; all False for a normal one), both at one canvas."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]


def fitted(height: int, width: int, size: Size) -> tuple[int, int]:
    """The canvas of a picture: its shorter side is ``size`` px, its aspect ratio stays (to the nearest pixel); ``native``: as it is."""
    if size == "native":
        return height, width
    scale = size / min(height, width)
    return max(size, round(height * scale)), max(size, round(width * scale))


def canvas_of(row: SampleRow, size: Size) -> tuple[int, int]:
    """Height and width of a sample's canvas."""
    return fitted(row.height, row.width, size)


def read_picture(row: SampleRow, size: Size, rule: MaskRule = "quarter") -> Picture:
    """A sample at its canvas; ``rule`` says which pixels of a shrunk mask count (``resize_mask``).

    Raises:
        CADiffError: if a file is absent or does not decode.
    """
    return read_at(row, canvas_of(row, size), rule)


def scaled(picture: Picture, size: Size, rule: MaskRule = "quarter") -> Picture:
    """A picture brought from its canvas to another size of its shorter side."""
    height, width = picture.mask.shape
    shape = fitted(height, width, size)
    return Picture(resize_picture(picture.image, shape), resize_mask(picture.mask, shape, rule))


def read_at(row: SampleRow, shape: tuple[int, int], rule: MaskRule = "quarter") -> Picture:
    """A sample brought to a height and a width, whatever its own."""
    image = read_image(row.image_path, "RGB", shape, levels=row.levels)
    if row.mask_path is None:
        return Picture(image, np.zeros(shape, bool))
    return Picture(image, read_image(row.mask_path, "L", shape, rule) > 0)


def read_mask(path: str | Path, shape: tuple[int, int], rule: MaskRule = "quarter") -> Bool[np.ndarray, "h w"]:
    """A mask file, unchecked, brought to a height and a width."""
    return read_image(path, "L", shape, rule) > 0


def resize_picture(image: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Lanczos; the same array where the shape is the same already."""
    if image.shape[:2] == tuple(shape):
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(shape[::-1], Image.Resampling.LANCZOS))


def is_grey(image: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether all channels are equal, as in a picture of a camera without colours."""
    return bool((image == image[..., :1]).all())


class Pictures(Sequence[Picture]):
    """Samples at their canvas, each decoded once, when it is first asked for.

    The first ``MEMORY`` bytes of pixels stay in memory; what comes after lies in a temporary file and is mapped, so that a window
    of it costs its own pages. Nothing outlives the object. ``seen``: brought from the canvas to this size (``scaled``).
    """

    def __init__(self, rows: Sequence[SampleRow], size: Size, memory: int = MEMORY, seen: Size | None = None) -> None:
        self.rows, self.size, self.seen, self._left = list(rows), size, seen, memory
        self._found: dict[int, Picture] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Picture:  # type: ignore[override]
        index = range(len(self.rows))[index]
        if index not in self._found:
            picture = read_picture(self.rows[index], self.size)
            self._found[index] = self._kept(index, picture if self.seen is None else scaled(picture, self.seen))
        return self._found[index]

    def shape(self, index: int) -> tuple[int, int]:
        """Height and width, without decoding."""
        canvas = canvas_of(self.rows[index], self.size)
        return canvas if self.seen is None else fitted(*canvas, self.seen)

    def _kept(self, index: int, picture: Picture) -> Picture:
        needed = picture.image.nbytes + picture.mask.nbytes
        if needed <= self._left:
            self._left -= needed
            return picture
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="cadiff-pixels-")
        mapped = []
        for name, values in zip(("image", "mask"), picture, strict=True):
            path = Path(self._folder.name) / f"{index}-{name}.npy"
            np.save(path, values)
            mapped.append(np.load(path, mmap_mode="r"))
        return Picture(*mapped)


__all__ = [
    "MASK_RULES", "MaskRule", "Picture", "Pictures", "Size", "canvas_of", "fitted", "is_grey", "read_at", "read_mask", "read_picture",
    "resize_mask", "resize_picture", "scaled",
]  # fmt: skip
