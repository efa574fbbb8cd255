"""An anomaly type's shapes: position, size and orientation of its exemplars' masks, and new ones like them.

New shapes are a smoothed bootstrap (Silverman, Density Estimation, 1986, section 6.4): an exemplar, moved,
scaled and turned by noise whose width is the type's own spread times Scott's factor n^(-1/(d+4)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from skimage.measure import regionprops

from cadiff.pictures import fitted, resize_mask
from cadiff.scene import Movement, Outline, rotation

# Spreads of one exemplar are zero and those of a few are uncertain; these keep new masks from being copies.
LEAST_SHIFT = 0.03  # of the shorter side
LEAST_SCALE = 0.1  # of the logarithm of length
LEAST_TURN = math.radians(5)
ELONGATED = 0.8  # eccentricity from which an orientation means something
MEASURED = 128  # px of a shape's shorter side at which its orientation is measured, at most
# Share of a pixel from which it counts: a half keeps the area, thin shapes need less to stay in one piece,
# the less the more they shrink. (A single pixel keeps a quarter, half a pixel off along both axes.)
COVERAGES = (0.5, 0.35, 0.24, 0.12)
DIRECTED = 0.5  # mean resultant length from which orientations count as alike

Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are beyond it


def move_outline(outline: Outline, movement: Movement, canvas: tuple[int, int], goes_on: bool = False) -> Outline:
    """The moved mask on another canvas, cut by its border; empty where it lies beyond it. Costs what the mask covers.

    It is in as many pieces as before, or in more only where a line shrank too much to stay whole. With ``goes_on`` one that
    touches its own canvas's border goes on beyond that.
    """
    continues = outline.touches if goes_on else np.zeros((2, 2), bool)
    matrix, offset = movement.inverse(outline.centroid, canvas)
    top, left, bottom, right = _reach(outline, matrix, offset, canvas, continues)
    if bottom <= top or right <= left:
        return Outline.of(np.zeros((0, 0), bool), canvas=canvas)
    border = (~continues).astype(int)  # empty beyond it, which is what "nearest" then repeats
    padded = np.pad(outline.crop, border).astype(np.float32)
    offset = offset + matrix @ np.array([top, left]) - np.array([outline.top, outline.left]) + border[:, 0]
    coverage = ndimage.affine_transform(padded, matrix, offset, (bottom - top, right - left), order=1, mode="nearest")
    pieces = _pieces(outline.crop)
    for threshold in COVERAGES:
        there = coverage >= threshold
        if there.any() and _pieces(there) <= pieces:
            break
    return Outline.of(there, (top, left), canvas)


def _reach(
    outline: Outline, matrix: np.ndarray, offset: np.ndarray, canvas: tuple[int, int], continues: Bool[np.ndarray, "2 2"]
) -> Box:
    """The box on the other canvas outside of which no pixel of the moved mask can lie."""
    far = 2.0 * sum(canvas) * np.abs(matrix).sum() + sum(outline.canvas)  # beyond whatever the other canvas shows
    first = np.array([outline.top, outline.left])
    start, end = first - 1.0, first + outline.crop.shape
    start, end = np.where(continues[:, 0], -far, start), np.where(continues[:, 1], far, end)
    corners = np.array([[row, column] for row in (start[0], end[0]) for column in (start[1], end[1])])
    there = (corners - offset) @ np.linalg.inv(matrix).T
    top, left = np.floor(there.min(axis=0)).clip(0, canvas).astype(int)
    bottom, right = (np.ceil(there.max(axis=0)) + 1).clip(0, canvas).astype(int)
    return int(top), int(left), int(bottom), int(right)


def move_mask(
    mask: Bool[np.ndarray, "h w"], movement: Movement, canvas_shape: tuple[int, int], goes_on: bool = False
) -> Bool[np.ndarray, "h2 w2"]:
    """The moved mask on a canvas of that height and width, cut by its border (``move_outline``)."""
    return move_outline(Outline.of(mask), movement, canvas_shape, goes_on).whole


def move_picture(
    picture: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], movement: Movement, canvas_shape: tuple[int, int],
    box: Box | None = None, seen_as: Callable[[UInt8[np.ndarray, "a b 3"]], UInt8[np.ndarray, "a b 3"]] = lambda pixels: pixels,
) -> Float[np.ndarray, "h2 w2 3"]:  # fmt: skip
    """The picture that ``mask`` belongs to, moved as ``move_mask`` moves the mask; mirrored beyond its border.

    Args:
        box: rows and columns of the canvas (top, left, bottom, right) that are wanted; only these are computed and returned.
        seen_as: what is done to the picture's pixels first, each by itself; no more of them is looked at than is wanted.
    """
    matrix, offset = movement.inverse(Outline.of(mask).centroid, canvas_shape)
    top, left, bottom, right = box or (0, 0, *canvas_shape)
    corners = np.array([[row, column] for row in (top, bottom - 1) for column in (left, right - 1)]) @ matrix.T + offset
    first, last = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    rows, columns = (_mirrored(np.arange(a, b + 1), n) for a, b, n in zip(first, last, mask.shape, strict=True))
    seen = seen_as(picture[np.ix_(rows, columns)]).astype(np.float32)
    start = offset + matrix @ np.array([top, left]) - first
    shape = (bottom - top, right - left)
    return np.stack([ndimage.affine_transform(seen[..., c], matrix, start, shape, order=1, mode="nearest") for c in range(3)], -1)


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond a border as those that mirror them, the border's own pixel once."""
    if length == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * length - 2)
    return np.where(index < length, index, 2 * length - 2 - index)


@dataclass(frozen=True)
class Spread:
    """How far one draw may be from its exemplar, as standard deviations.

    ``shift``: rows and columns, shares of the shorter side; ``scale``: of the logarithm of length; ``turn``: radians,
    None where the exemplars lie in all directions, so that any rotation and flip is as good.
    """

    shift: tuple[float, float]
    scale: float
    turn: float | None


def fit_spread(masks: Sequence[Outline]) -> Spread:
    """The bootstrap's noise from a type's exemplar masks; a place counts from its picture's middle, in shares of the shorter side."""
    n = len(masks)
    centroids = np.array([(np.array(m.centroid) - (np.array(m.canvas) - 1) / 2) / min(m.canvas) for m in masks])
    shift = np.maximum(centroids.std(axis=0) * n ** (-1 / 6), LEAST_SHIFT)
    # Length goes with the square root of area.
    scale = max(0.5 * float(np.log([mask.area for mask in masks]).std()) * n ** (-1 / 5), LEAST_SCALE)
    shapes = [regionprops(_measurable(mask.crop))[0] for mask in masks]
    turn = _fit_turn([shape.orientation for shape in shapes if shape.eccentricity >= ELONGATED], n)
    return Spread((float(shift[0]), float(shift[1])), scale, turn)


def _measurable(crop: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h2 w2"]:
    small = resize_mask(crop, fitted(crop.shape[0], crop.shape[1], MEASURED), "half") if min(crop.shape) > MEASURED else crop
    return small.astype(np.uint8)


def _fit_turn(angles: Sequence[float], n: int) -> float | None:
    """Orientations are axes (a half turn changes nothing), so their angles are doubled before averaging.

    A type has an axis if at least half of its exemplars are elongated, and those alike.
    """
    if 2 * len(angles) < n:
        return None
    length = min(float(np.abs(np.exp(2j * np.array(angles)).mean())), 1.0)
    if length < DIRECTED:
        return None
    circular_std = 0.5 * math.sqrt(-2 * math.log(length))
    return max(circular_std * float(len(angles) ** (-1 / 5)), LEAST_TURN)


def draw_movement(outline: Outline, spread: Spread, rng: np.random.Generator, turn_to_spread: float = 0.0) -> Movement:
    """A movement of this exemplar's mask on its own canvas, drawn around its own position, size and orientation.

    ``turn_to_spread`` (radians): by which the mask's picture is turned where ``spread.shift`` was fitted.

    A mask that touches a border was cut there, and nobody knows the rest of its shape: it stays at that
    border, and is turned a little at most.
    """
    touches = outline.touches.any(axis=1)
    shift = rotation(-turn_to_spread) @ (rng.normal(size=2) * np.array(spread.shift)) * min(outline.canvas)
    centre = np.array(outline.centroid) + np.where(touches, 0.0, shift)
    scale = draw_scale(spread, rng)
    if spread.turn is None and not touches.any():
        turn, mirror = rng.uniform(-math.pi, math.pi), bool(rng.random() < 0.5)
    else:
        most = LEAST_TURN if touches.any() or spread.turn is None else spread.turn
        turn, mirror = rng.normal() * most, False
    return Movement(scale, float(turn), mirror, shares(centre, outline.canvas))


def draw_scale(spread: Spread, rng: np.random.Generator) -> float:
    """Two standard deviations at most: a lognormal's tail would draw anomalies larger than any product has."""
    return math.exp(float(np.clip(rng.normal(), -2, 2)) * spread.scale)


def shares(centre: Sequence[float] | np.ndarray, canvas: tuple[int, int]) -> tuple[float, float]:
    """A place in px (0 is the middle of the first pixel) as shares of a canvas's height and width (``Movement.centre``)."""
    row, column = ((float(at) + 0.5) / side for at, side in zip(centre, canvas, strict=True))
    return row, column


def unmoved(outline: Outline) -> Movement:
    return Movement(1.0, 0.0, False, shares(outline.centroid, outline.canvas))


def _pieces(mask: Bool[np.ndarray, "h w"]) -> int:
    return int(ndimage.label(mask, np.ones((3, 3)))[1])
