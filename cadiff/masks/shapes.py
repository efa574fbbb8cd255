"""An anomaly type's shapes: position, size and orientation of its exemplars' masks, and new ones like them.

New shapes are a smoothed bootstrap (Silverman, Density Estimation, 1986, section 6.4): an exemplar, moved,
scaled and turned by noise whose width is the type's own spread times Scott's factor n^(-1/(d+4)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from skimage.measure import regionprops

# Spreads of one exemplar are zero and those of a few are uncertain; these keep new masks from being copies.
LEAST_SHIFT = 0.03  # of the side
LEAST_SCALE = 0.1  # of the logarithm of length
LEAST_TURN = math.radians(5)
ELONGATED = 0.8  # eccentricity from which an orientation means something
# Share of a pixel from which it counts: a half keeps the area, thin shapes need less to stay in one piece,
# the less the more they shrink. (A single pixel keeps a quarter, half a pixel off along both axes.)
COVERAGES = (0.5, 0.35, 0.24, 0.12)
DIRECTED = 0.5  # mean resultant length from which orientations count as alike


@dataclass(frozen=True)
class Spread:
    """How far one draw may be from its exemplar, as standard deviations.

    ``shift``: rows and columns, shares of the side; ``scale``: of the logarithm of length; ``turn``: radians,
    None where the exemplars lie in all directions, so that any rotation and flip is as good.
    """

    shift: tuple[float, float]
    scale: float
    turn: float | None


@dataclass(frozen=True)
class Transform:
    """What happens to an exemplar's mask: ``scale`` of length, ``turn`` in radians, mirrored or not, then
    moved so that its centroid is at ``centre`` (row, column; pixels)."""

    scale: float
    turn: float
    mirror: bool
    centre: tuple[float, float]

    def numbers(self) -> list[float]:
        """As a mask's row keeps it (``MaskRow.transform``)."""
        return [self.scale, self.turn, float(self.mirror), *self.centre]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Transform:
        scale, turn, mirror, row, column = numbers
        return cls(scale, turn, bool(mirror), (row, column))


def fit_spread(masks: Sequence[Bool[np.ndarray, "side side"]], factor: float = 1.0) -> Spread:
    """The bootstrap's noise from a type's exemplar masks (each with at least one pixel), times ``factor``."""
    shapes = [regionprops(mask.astype(np.uint8))[0] for mask in masks]
    n, side = len(shapes), masks[0].shape[0]
    centroids = np.array([shape.centroid for shape in shapes]) / side
    shift = np.maximum(centroids.std(axis=0) * n ** (-1 / 6), LEAST_SHIFT)
    # Length goes with the square root of area.
    scale = max(0.5 * float(np.log([shape.area for shape in shapes]).std()) * n ** (-1 / 5), LEAST_SCALE)
    angles = [shape.orientation for shape in shapes if shape.eccentricity >= ELONGATED]
    turn = _fit_turn(angles, n)
    if turn is None and factor < 1:  # less than any direction is some direction
        turn = math.pi / 2
    return Spread((factor * float(shift[0]), factor * float(shift[1])), factor * scale, turn if turn is None else factor * turn)


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
    return max(circular_std * len(angles) ** (-1 / 5), LEAST_TURN)


def draw_transform(
    mask: Bool[np.ndarray, "side side"], spread: Spread, rng: np.random.Generator, turn_to_spread: float = 0.0
) -> Transform:
    """A transform of this exemplar's mask, drawn around its own position, size and orientation.

    ``turn_to_spread`` (radians): by which the mask's picture is turned where ``spread.shift`` was fitted.

    A mask that touches a border was cut there, and nobody knows the rest of its shape: it stays at that
    border, and is turned a little at most.
    """
    touches = _touches(mask)
    shift = turned(-turn_to_spread) @ (rng.normal(size=2) * np.array(spread.shift)) * mask.shape[0]
    row, column = ndimage.center_of_mass(mask) + np.where(touches, 0.0, shift)
    # Two standard deviations: a lognormal's tail would draw anomalies larger than any product has.
    scale = math.exp(float(np.clip(rng.normal(), -2, 2)) * spread.scale)
    if spread.turn is None and not touches.any():
        turn, mirror = rng.uniform(-math.pi, math.pi), bool(rng.random() < 0.5)
    else:
        most = LEAST_TURN if touches.any() or spread.turn is None else spread.turn
        turn, mirror = rng.normal() * most, False
    return Transform(scale, float(turn), mirror, (float(row), float(column)))


def unmoved(mask: Bool[np.ndarray, "side side"]) -> Transform:
    row, column = ndimage.center_of_mass(mask)
    return Transform(1.0, 0.0, False, (float(row), float(column)))


def turned(turn: float) -> Float[np.ndarray, "2 2"]:
    """Rows and columns before a turn to those after it (the inverse is a turn back)."""
    cos, sin = math.cos(turn), math.sin(turn)
    return np.array([[cos, -sin], [sin, cos]])


def apply_transform(
    mask: Bool[np.ndarray, "side side"], transform: Transform, goes_on: bool = True
) -> Bool[np.ndarray, "side side"]:
    """The transformed mask, cut by the image's border; one that touched a border goes on beyond it, if it ``goes_on``.

    It is in as many pieces as before, or in more only where a line shrank too much to stay whole.
    """
    inverse, offset = _inverse(mask, transform)
    mode = "nearest" if goes_on else "constant"
    coverage = ndimage.affine_transform(mask.astype(np.float32), inverse, offset, order=1, mode=mode)
    pieces = _pieces(mask)
    for threshold in COVERAGES:
        moved = coverage >= threshold
        if moved.any() and _pieces(moved) <= pieces:
            break
    return moved


def transform_picture(
    picture: UInt8[np.ndarray, "side side 3"], mask: Bool[np.ndarray, "side side"], transform: Transform
) -> Float[np.ndarray, "side side 3"]:
    """The picture that ``mask`` belongs to, moved as ``apply_transform`` moves the mask; mirrored beyond its border."""
    inverse, offset = _inverse(mask, transform)
    channels = np.moveaxis(picture.astype(np.float32), -1, 0)
    return np.stack([ndimage.affine_transform(channel, inverse, offset, order=1, mode="mirror") for channel in channels], -1)


def _inverse(
    mask: Bool[np.ndarray, "side side"], transform: Transform
) -> tuple[Float[np.ndarray, "2 2"], Float[np.ndarray, " 2"]]:
    """From the moved mask's rows and columns to the mask's: a matrix, and what is added."""
    flip = np.diag([1.0, -1.0 if transform.mirror else 1.0])
    inverse = flip @ turned(-transform.turn) / transform.scale
    offset = ndimage.center_of_mass(mask) - inverse @ np.array(transform.centre)
    return inverse, offset


def _pieces(mask: Bool[np.ndarray, "side side"]) -> int:
    return int(ndimage.label(mask, np.ones((3, 3)))[1])


def _touches(mask: Bool[np.ndarray, "side side"]) -> Bool[np.ndarray, " 2"]:
    """Whether a mask reaches the first or last row, and the first or last column."""
    return np.array([mask[[0, -1]].any(), mask[:, [0, -1]].any()])
