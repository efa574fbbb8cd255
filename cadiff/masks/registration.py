"""How a part lies in one picture against another: a turn and a shift, found from the pictures alone.

Rigid registration by two steps that each are standard: phase correlation (Kuglin and Hines, 1975) finds the shift at each of a
ring of turns, and from the best of these the turn and shift of largest correlation coefficient are searched for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from scipy.optimize import minimize
from skimage.color import rgb2gray
from skimage.registration import phase_cross_correlation
from skimage.transform import resize

from cadiff.masks.shapes import Transform, turned

WORKING_SIDE = 64  # px; a part's pose is as plain there, and a search at 512 px takes a minute
TURNS = np.radians(np.arange(-180, 180, 6))
STARTS = 3
AS_GOOD = 0.02  # of two poses nearly as like, of a part that is nearly symmetric, the one that turns it less
STEPS = (math.radians(3), 0.02, 0.02)  # the search's first, of the turn and the shift


@dataclass(frozen=True)
class Registration:
    """A turn in radians about the picture's middle (as ``Transform.turn``), then a shift in rows and columns as shares of the side.

    ``likeness``: the correlation coefficient of the two pictures after it, without what was left out; 1 where they are the same.
    """

    turn: float
    shift: tuple[float, float]
    likeness: float

    def move(self, transform: Transform, side: int) -> Transform:
        """``transform``, then this: where a moved mask lies on the other picture's part."""
        middle = (side - 1) / 2
        row, column = turned(self.turn) @ (np.array(transform.centre) - middle) + middle + np.array(self.shift) * side
        return replace(transform, turn=transform.turn + self.turn, centre=(float(row), float(column)))


def register(
    picture: UInt8[np.ndarray, "side side 3"], left_out: Bool[np.ndarray, "side side"], onto: UInt8[np.ndarray, "side side 3"]
) -> Registration:
    """What brings ``picture`` onto ``onto``; the pixels in ``left_out``, its defect's, do not count."""
    moving, fixed = _prepare(picture), _prepare(onto)
    counted = resize((~left_out).astype(float), moving.shape, order=1, anti_aliasing=True)

    def unlikeness(given: Sequence[float]) -> float:
        return -_likeness(moving, fixed, counted, given[0], (given[1], given[2]))

    def best_near(start: Registration) -> Registration:
        simplex = np.array([start.turn, *start.shift]) + np.vstack([np.zeros(3), np.diag(STEPS)])
        found = minimize(unlikeness, simplex[0], method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-4})
        return Registration(float(found.x[0]), (float(found.x[1]), float(found.x[2])), -float(found.fun))

    ring = [_shift_at(moving, fixed, counted, turn) for turn in TURNS]
    found = [best_near(start) for start in _peaks(ring)]
    best = max(found, key=_by_likeness).likeness
    return min((one for one in found if one.likeness >= best - AS_GOOD), key=lambda one: abs(one.turn))


def _peaks(ring: list[Registration]) -> list[Registration]:
    """The best of those that are no less like than both neighbours: a part with a half turn's symmetry has two."""
    peaks = [own for before, own, after in zip([ring[-1], *ring], ring, [*ring[1:], ring[0]], strict=False)
             if own.likeness >= max(before.likeness, after.likeness)]  # fmt: skip
    return sorted(peaks, key=_by_likeness)[-STARTS:]


def _by_likeness(found: Registration) -> float:
    return found.likeness


def _prepare(picture: UInt8[np.ndarray, "side side 3"]) -> Float[np.ndarray, "s s"]:
    grey = rgb2gray(picture)
    side = min(WORKING_SIDE, len(grey))
    return ndimage.gaussian_filter(resize(grey, (side, side), order=1, anti_aliasing=True), 1.0)


def _shift_at(moving: np.ndarray, fixed: np.ndarray, counted: np.ndarray, turn: float) -> Registration:
    turned = _moved(moving, turn, (0.0, 0.0))
    shift = phase_cross_correlation(fixed, turned, normalization=None)[0] / len(fixed)
    away = (float(shift[0]), float(shift[1]))
    return Registration(float(turn), away, _likeness(moving, fixed, counted, float(turn), away))


def _likeness(moving: np.ndarray, fixed: np.ndarray, counted: np.ndarray, turn: float, shift: tuple[float, float]) -> float:
    """The weighted correlation coefficient over the pixels that both pictures have; -1 if these are fewer than half."""
    moved, weight = _moved(moving, turn, shift), _moved(counted, turn, shift, outside=0.0)
    if weight.sum() < 0.5 * weight.size:
        return -1.0
    centred = [values - np.average(values, weights=weight) for values in (moved, fixed)]
    spread = math.sqrt(float((weight * centred[0] ** 2).sum() * (weight * centred[1] ** 2).sum()))
    return float((weight * centred[0] * centred[1]).sum()) / spread if spread else 0.0


def _moved(values: np.ndarray, turn: float, shift: tuple[float, float], outside: float | None = None) -> np.ndarray:
    """Values turned about their middle and shifted; beyond the border they go on as at it, or are ``outside``."""
    middle, inverse = (len(values) - 1) / 2, turned(-turn)
    offset = middle - inverse @ (middle + np.array(shift) * len(values))
    mode, fill = ("nearest", 0.0) if outside is None else ("constant", outside)
    return ndimage.affine_transform(values, inverse, offset, order=1, mode=mode, cval=fill)

