"""What every format's labels become, one picture at a time, and how its objects become masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from skimage.draw import line, polygon

from cadiff.labels.pictures import PictureFolder
from cadiff.labels.rle import Runs

FARTHEST = 1e6  # px from a picture's corner at which labels may lie


class Box(NamedTuple):
    """Edges in px: pixel (row y, column x) covers x..x+1 and y..y+1."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False)
class LabelObject:
    """One instance: its class's name and its shape, in exactly one of three ways.

    ``polygons``: rings of corners (``n 2``: x, y in px, as ``Box`` counts them), whose union is the object. ``mask``: True where the
    object is, at the picture's own size, or its runs. ``box``: all that is known is what it lies in; its mask can only be approximate
    (``cadiff.labels.boxes``). ``approximate``: a mask or polygon that stems from a box.
    """

    name: str
    polygons: tuple[Float[np.ndarray, "n 2"], ...] = ()
    mask: Bool[np.ndarray, "h w"] | Runs | None = None
    box: Box | None = None
    approximate: bool = False

    def __post_init__(self) -> None:
        if sum((bool(self.polygons), self.mask is not None, self.box is not None)) != 1:
            raise ValueError(f"{self.name}: expected polygons, a mask or a box, exactly one of them")
        if not all(ring.ndim == 2 and ring.shape[1] == 2 and len(ring) >= 3 for ring in self.polygons):
            raise ValueError(f"{self.name}: expected polygons of at least three corners, each of two numbers")
        numbers = [*self.polygons, np.array(self.box or (0.0,))]
        if not all((np.abs(one) <= FARTHEST).all() for one in numbers):  # nor NaN
            raise ValueError(f"{self.name}: expected numbers of at most {FARTHEST:.0f} px")
        if self.box is not None and not (self.box.left < self.box.right and self.box.top < self.box.bottom):
            raise ValueError(f"{self.name}: expected a box whose left and top lie before its right and bottom, found {tuple(self.box)}")


@dataclass(frozen=True, eq=False)
class Labelled:
    """One picture with its objects. ``image`` is its path as the labels give it, with ``/``.

    ``width`` and ``height`` are what the labels say (None: the format or file does not say); the picture's own decide.
    ``objects`` empty: the labels list the picture and mark nothing in it. ``classes``: names given to the whole picture.
    ``origin``: the file that says so, for errors, and for what paths in it are relative to.
    """

    image: str
    width: int | None = None
    height: int | None = None
    objects: Sequence[LabelObject] = ()
    classes: tuple[str, ...] = ()
    origin: Path = Path()


class Format(NamedTuple):
    """How one tool keeps labels. ``holds`` looks at a file or a folder without reading it whole. ``read`` gives its pictures one
    after the other, so that labels of any length fit in memory; the folder of pictures tells sizes where labels are shares of them."""

    title: str
    holds: Callable[[Path], bool]
    read: Callable[[Path, PictureFolder], Iterator[Labelled]]


def object_mask(shape: LabelObject, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """A polygon's or a mask's pixels at the picture's size: those whose centre lies in one of the rings; where a ring is so thin that it
    holds no centre, those that its line passes.

    Raises:
        ValueError: if a mask is of another size, or the object is a box.
    """
    if isinstance(shape.mask, Runs):
        return shape.mask.placed(height, width)
    if shape.mask is not None:
        if shape.mask.shape != (height, width):
            raise ValueError(f"a mask of {shape.mask.shape[1]}x{shape.mask.shape[0]} on a picture of {width}x{height}")
        return shape.mask
    if shape.box is not None:
        raise ValueError("a box has no mask of its own")
    found = np.zeros((height, width), bool)
    for ring in shape.polygons:
        columns, rows = ring.T - 0.5
        inside = polygon(rows, columns, (height, width))
        found[inside] = True
        if not len(inside[0]):
            found |= _outline(ring, height, width)
    return found


def _outline(ring: Float[np.ndarray, "n 2"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels that a ring's line passes."""
    found = np.zeros((height, width), bool)
    corners = np.floor(ring).astype(int)
    for (x, y), (next_x, next_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows, columns = line(y, x, next_y, next_x)
        there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found[rows[there], columns[there]] = True
    return found


def union_mask(objects: Sequence[LabelObject], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """What any of the objects covers (all of them polygons or masks)."""
    found = np.zeros((height, width), bool)
    for one in objects:
        found |= object_mask(one, height, width)
    return found


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> Float[np.ndarray, "n 2"]:
    """A ring around ``centre`` (x, y) with these radii along its own axes, turned clockwise as seen (y points down)."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    turn = math.radians(degrees)
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    return np.stack([centre[0] + x * math.cos(turn) - y * math.sin(turn), centre[1] + x * math.sin(turn) + y * math.cos(turn)], axis=1)


def rectangle(name: str, left: float, top: float, width: float, height: float, degrees: float = 0.0) -> LabelObject:
    """A rectangle that is drawn around an object. One that is turned (``degrees`` clockwise around its own top left corner, as Label Studio
    does) is at once the ellipse within it, marked as approximate: no box of the picture's own axes says as much."""
    if not degrees:
        return LabelObject(name, box=Box(left, top, left + width, top + height))
    turn = math.radians(degrees)
    x, y = width / 2, height / 2
    centre = (left + x * math.cos(turn) - y * math.sin(turn), top + x * math.sin(turn) + y * math.cos(turn))
    return LabelObject(name, polygons=(ellipse(centre, (x, y), degrees),), approximate=True)
