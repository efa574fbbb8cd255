"""At what scale a detector sees pictures, and the square tiles that it sees them in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, UInt8

from cadiff.detection.unet import STRIDE
from cadiff.errors import UsageError
from cadiff.params import Params
from cadiff.pictures import Picture, Size, canvas_of, fitted, read_picture, scaled
from cadiff.records import SampleRow

OVERLAP = 1 / 4  # of a tile's side: neighbours share at least this
Place = tuple[int, int]


@dataclass(frozen=True)
class View:
    """How a detector sees pictures: each at its canvas, brought to ``seen`` px of its shorter side (in training and in prediction
    alike, so that no trace of a resampling tells one from the other), in square tiles of at most ``tile`` px."""

    canvas: Size
    seen: Size
    tile: int

    @classmethod
    def of(cls, params: Params) -> View:
        return cls(params.dataset.size, params.detector.size or params.dataset.size, params.detector.tile)

    def shape(self, row: SampleRow) -> tuple[int, int]:
        """Height and width at the detector's scale, without decoding."""
        return fitted(*canvas_of(row, self.canvas), self.seen)

    def read(self, row: SampleRow) -> Picture:
        """A sample at the detector's scale.

        Raises:
            CADiffError: if a file is absent or does not decode.
        """
        return scaled(read_picture(row, self.canvas), self.seen)

    def side(self, shorter: int) -> int:
        """The side of the tiles of a picture with this shorter side: that or ``detector.tile``, rounded down to a multiple of 32.

        Raises:
            UsageError: if nothing is left.
        """
        side = min(self.tile, shorter) // STRIDE * STRIDE
        if side == 0:
            raise UsageError(
                f"detector.size: expected pictures of at least {STRIDE} px of their shorter side, since a network halves its input five "
                f"times, found {shorter} px; set detector.size: {STRIDE} or more"
            )
        return side

    def square(self) -> int:
        """The side of the square that a peer sees the whole of a picture stretched to: ``detector.size`` (where pictures stay as they
        are: ``detector.tile``), rounded down to a multiple of 32.

        Raises:
            UsageError: if nothing is left.
        """
        found = self.seen if isinstance(self.seen, int) else self.tile
        return View(found, found, found).side(found)


def tile_places(shape: tuple[int, int], side: int, overlap: float = OVERLAP) -> list[Place]:
    """The top left corners of square tiles that cover a picture: evenly spread, the last ones at the border, neighbours sharing at
    least ``overlap`` of their side (to the rounding of a pixel)."""

    def along(length: int) -> list[int]:
        count = 1 + math.ceil((length - side) / (side * (1 - overlap)))
        return [int(place) for place in np.round(np.linspace(0, length - side, count))]

    return list(product(along(shape[0]), along(shape[1])))


def cut(image: UInt8[np.ndarray, "h w 3"], place: Place, side: int) -> UInt8[np.ndarray, "s s 3"]:
    row, column = place
    return image[row : row + side, column : column + side]


def stitched(
    image: UInt8[np.ndarray, "h w 3"], side: int, predict: Callable[[UInt8[np.ndarray, "n s s 3"]], Float[np.ndarray, "n s s"]],
    batch: int,
) -> Float[np.ndarray, "h w"]:  # fmt: skip
    """A map of the whole picture from those of its tiles, ``batch`` of them at a time; where tiles overlap, the mean weighted by how
    far a pixel lies inside each, so that no seam shows."""
    places = tile_places(image.shape[:2], side)
    if len(places) == 1:
        whole: np.ndarray = predict(image[None])[0]
        return whole
    weight = _weight(side)
    total, weights = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    for start in range(0, len(places), batch):
        chosen = places[start : start + batch]
        found = predict(np.stack([cut(image, place, side) for place in chosen]))
        for (row, column), values in zip(chosen, found, strict=True):
            total[row : row + side, column : column + side] += weight * values
            weights[row : row + side, column : column + side] += weight
    return (total / weights).astype(np.float32)


def _weight(side: int) -> Float[np.ndarray, "s s"]:
    """1 in the middle, falling over ``OVERLAP`` of the side towards each border along half a cosine, and nowhere 0."""
    inside = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / (OVERLAP * side)
    ramp = (1 - np.cos(np.pi * np.minimum(inside, 1))) / 2
    return np.outer(ramp, ramp)


def random_tile(picture: Picture, side: int, generator: torch.Generator) -> Picture:
    """A tile of the picture: one that contains a random pixel of its mask, any where nothing is marked; a picture that is one tile is
    taken as it is, and nothing is drawn."""
    height, width = picture.mask.shape
    if (height, width) == (side, side):
        return picture

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    marked = np.flatnonzero(picture.mask)
    if len(marked):
        row, column = divmod(int(marked[draw(0, len(marked) - 1)]), width)
        top = draw(max(0, row - side + 1), min(row, height - side))
        left = draw(max(0, column - side + 1), min(column, width - side))
    else:
        top, left = draw(0, height - side), draw(0, width - side)
    window = np.s_[top : top + side, left : left + side]
    return Picture(np.asarray(picture.image[window]), np.asarray(picture.mask[window]))


def smallest_side(view: View, shapes: Sequence[tuple[int, int]]) -> int:
    """The side of the tiles that all of these pictures have: those of a batch are alike."""
    return min(view.side(min(shape)) for shape in shapes)
