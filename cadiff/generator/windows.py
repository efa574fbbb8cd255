"""Windows: the parts of a picture that the base draws, cut around masks or anywhere, and the whole picture as one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from scipy import ndimage

from cadiff.errors import UsageError
from cadiff.params import WindowParams
from cadiff.pictures import resize_mask, resize_picture
from cadiff.scene import Outline

JOINED = 1.5  # two parts of a scene share a window that is at most this much wider than either's own
FOUND_AT = 256  # px of the longer side at which a mask's parts are told apart: that must not cost more on a larger canvas
REFINED = 2.0  # canvas pixels per pixel of the base from which a window is gone over at the base's own scale
PARTS = 48  # of a scene's masks, at most, that are told apart
STEP = 0.75  # of a window's side from one to the next along a mask that no window holds


@dataclass(frozen=True)
class Window:
    """A rectangle of a canvas, in px: a square, or where a whole picture is drawn the canvas itself."""

    top: int
    left: int
    height: int
    width: int

    def of(self, values: np.ndarray) -> np.ndarray:
        """What of a canvas (``h w ...``) lies in it; a view."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]

    def shown(self, outline: Outline) -> Bool[np.ndarray, "h w"]:
        """What of an outline lies in it."""
        return outline.within(self.top, self.left, self.height, self.width)

    def picture(self, image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The picture in it, as the base sees it."""
        return resize_picture(self.of(image), (size, size))

    def mask(self, mask: Bool[np.ndarray, "h w"], size: int) -> Bool[np.ndarray, "size size"]:
        """The mask in it, as the base sees it: a thin one survives."""
        return resize_mask(self.of(mask), (size, size))

    def scale(self, size: int) -> float:
        """Canvas pixels per pixel of the base."""
        return max(self.height, self.width) / size


@dataclass(frozen=True)
class Piece:
    """A window with what of a scene's masks is drawn in it."""

    window: Window
    part: Bool[np.ndarray, "h w"]  # in the window


def whole(canvas: tuple[int, int]) -> Window:
    return Window(0, 0, *canvas)


def check_canvas(name: str, canvas: tuple[int, int], size: int) -> None:
    """Raises UsageError where a picture has no room for a window."""
    if min(canvas) < size:
        raise UsageError(
            f"{name}: {canvas[1]} x {canvas[0]} px, smaller than what the base draws (base.size: {size}); "
            f"set dataset.size: {size} or more, so that it is enlarged, or leave it out"
        )


def pieces(mask: Bool[np.ndarray, "h w"], params: WindowParams, size: int) -> list[Piece]:
    """The windows that a scene's masks (their union) are drawn in, in order.

    One, if one holds them all well; masks far from each other have one each. A part that is longer than the picture is wide is
    covered by several that overlap; each pixel of the mask belongs to the first window that has it.
    """
    canvas = (mask.shape[0], mask.shape[1])
    if params.cut == "whole":
        return [Piece(whole(canvas), mask)]
    left = mask.copy()
    found = []
    for box, members in _clusters(mask, params.context, size):
        for window in _covering(box, canvas, params.context, size):
            part = window.of(left) & window.shown(members) if members is not None else window.of(left).copy()
            if part.any():
                found.append(Piece(window, part))
                window.of(left)[part] = False
    return found


Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two beyond it


def box_of(mask: Bool[np.ndarray, "h w"]) -> Box:
    """The least rectangle around a mask that has a pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def side_of(extent: int, canvas: tuple[int, int], context: float, size: int) -> int:
    """A window's side: ``context`` times what it holds, at least what the base draws, at most the canvas."""
    return min(max(math.ceil(context * extent), size), *canvas)


def _clusters(mask: np.ndarray, context: float, size: int) -> list[tuple[Box, Outline | None]]:
    """The masks' parts that share a window, as boxes with their pixels (None: all of them)."""
    canvas, box = (mask.shape[0], mask.shape[1]), box_of(mask)
    step = max(1, max(canvas) // FOUND_AT)
    top, left, bottom, right = box
    small = resize_mask(mask[top:bottom, left:right], (-(-(bottom - top) // step), -(-(right - left) // step)), "any")
    labels, count = ndimage.label(small, np.ones((3, 3)))
    while count > PARTS:  # specks: what lies near each other is one
        small = ndimage.binary_dilation(small, np.ones((3, 3)), iterations=2)
        labels, count = ndimage.label(small, np.ones((3, 3)))
    boxes = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in ndimage.find_objects(labels)]
    groups = [([k + 1], own) for k, own in enumerate(boxes)]

    def side(one: Box) -> int:
        return side_of(step * max(one[2] - one[0], one[3] - one[1]), canvas, context, size)

    joined = count > 1
    while joined:
        joined = False
        for i in range(len(groups) - 1, 0, -1):
            for j in range(i):
                both = _around(groups[i][1], groups[j][1])
                fits = step * max(both[2] - both[0], both[3] - both[1]) <= min(canvas)
                if fits and side(both) <= JOINED * max(side(groups[i][1]), side(groups[j][1])):
                    groups[j] = (groups[j][0] + groups[i][0], both)
                    del groups[i]
                    joined = True
                    break
    if len(groups) == 1:
        return [(box, None)]
    parts, missed = [], mask[top:bottom, left:right].copy()
    for names, _ in groups:
        near = resize_mask(np.isin(labels, names), (bottom - top, right - left), "nearest")
        parts.append(Outline.of(near & mask[top:bottom, left:right], (top, left), canvas))
        missed &= ~near
    # pixels that at the small size no group's nearest pixel holds are a last group of their own
    parts.append(Outline.of(missed, (top, left), canvas))
    return [((part.top, part.left, part.where[0].stop, part.where[1].stop), part) for part in parts if part.area]


def _around(one: Box, other: Box) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _covering(box: Box, canvas: tuple[int, int], context: float, size: int) -> list[Window]:
    """One window with the box in its middle, or where none holds it several along it."""
    top, left, bottom, right = box
    side = side_of(max(bottom - top, right - left), canvas, context, size)
    rows = _starts(top, bottom, side, canvas[0])
    columns = _starts(left, right, side, canvas[1])
    return [Window(row, column, side, side) for row in rows for column in columns]


def _starts(low: int, high: int, side: int, length: int) -> list[int]:
    """Where windows begin along one axis so that they cover [low, high)."""
    if high - low <= side:
        return [int(np.clip((low + high - side) // 2, 0, length - side))]
    count = 1 + math.ceil((high - low - side) / (STEP * side))
    return [int(np.clip(round(start), 0, length - side)) for start in np.linspace(low, high - side, count)]


def overlapping(box: Box, side: int, canvas: tuple[int, int]) -> list[Window]:
    """Windows of one side that cover a box and overlap by a quarter."""
    top, left, bottom, right = box
    side = min(side, *canvas)
    rows, columns = _starts(top, bottom, side, canvas[0]), _starts(left, right, side, canvas[1])
    return [Window(row, column, side, side) for row in rows for column in columns]


def drawn_around(box: Box, canvas: tuple[int, int], params: WindowParams, size: int, generator: torch.Generator) -> Window:
    """A training window around a mask's box: its context drawn from ``train_context``, the box anywhere in it.

    Of a box that no window holds, it shows a part.
    """
    if params.cut == "whole":
        return whole(canvas)
    low, high = params.train_context
    draws = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    top, left, bottom, right = box
    side = side_of(max(bottom - top, right - left), canvas, low + (high - low) * draws[0], size)
    return Window(_between(top, bottom, side, canvas[0], draws[1]), _between(left, right, side, canvas[1], draws[2]), side, side)


def _between(low: int, high: int, side: int, length: int, share: float) -> int:
    """A start from which a window holds [low, high), or lies within it where it is the longer one."""
    ends = sorted((high - side, low))
    first, last = (int(np.clip(end, 0, length - side)) for end in ends)
    return first + round(share * (last - first))


def drawn_anywhere(canvas: tuple[int, int], sides: Sequence[int], params: WindowParams, size: int, generator: torch.Generator) -> Window:
    """A window of one of ``sides`` px anywhere in a canvas."""
    if params.cut == "whole":
        return whole(canvas)
    draws = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    side = min(max(sides[int(draws[0] * len(sides))], size), *canvas)
    return Window(round(draws[1] * (canvas[0] - side)), round(draws[2] * (canvas[1] - side)), side, side)


def placed_like(window: Window, canvas: tuple[int, int], other: tuple[int, int]) -> Window:
    """The window at the same relative place of another canvas, as large as there; the whole of one that is no square is the whole of the
    other."""
    if (window.height, window.width) == canvas and (window.height != window.width or other[0] == other[1]):
        return whole(other)
    side = min(window.height, *other)
    spare = [(at / max(1, length - side_was)) for at, length, side_was in
             ((window.top, canvas[0], window.height), (window.left, canvas[1], window.width))]  # fmt: skip
    return Window(round(min(spare[0], 1) * (other[0] - side)), round(min(spare[1], 1) * (other[1] - side)), side, side)
