"""How a part lies in one picture against another: a turn and a shift, found from the pictures alone.

Rigid registration (Brown, A Survey of Image Registration Techniques, 1992), coarse to fine. At half the side, cross-correlation finds
the shift at each of a ring of turns; from the best of them a search (Nelder and Mead) goes on to the largest correlation coefficient,
and once more at the whole side from the one that is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import fft, ndimage
from scipy.optimize import minimize
from skimage.transform import resize

from cadiff.masks.shapes import Transform, turned

WORKING_SIDE = 64  # px that pictures are best brought to: a part's pose is as plain there, and a search at 512 px takes a minute
TURNS = np.radians(np.arange(-180, 180, 6))  # 0 is one of them
STARTS = 4  # that turn least, of those nearly as like as the best, and as many of the best
NEARLY = 0.15  # of likeness, before the search
AS_GOOD = 0.02  # of two poses nearly as like, of a part that is nearly symmetric, the one that turns it less
STEPS = (math.radians(3), 0.02, 0.02)  # the search's first, of the turn and the shift
COMMON = 0.75  # of the picture, which two pictures must have in common: a part that is pushed out of it fits anything


@dataclass(frozen=True)
class Registration:
    """A turn in radians about the picture's middle (as ``Transform.turn``), then a shift in rows and columns as shares of the side.

    ``likeness``: the correlation coefficient of the two pictures after it, without what was left out; 1 where they are the same,
    -1 where no pose leaves them enough in common.
    """

    turn: float
    shift: tuple[float, float]
    likeness: float

    def move(self, transform: Transform, side: int) -> Transform:
        """``transform``, then this: where a moved mask lies on the other picture's part."""
        middle = (side - 1) / 2
        row, column = turned(self.turn) @ (np.array(transform.centre) - middle) + middle + np.array(self.shift) * side
        return replace(transform, turn=transform.turn + self.turn, centre=(float(row), float(column)))


class _Pair:
    """Two pictures at one size, the first with what counts of it; what is left out has the rest's mean colour, so that it pulls nothing."""

    def __init__(self, moving: np.ndarray, counted: np.ndarray, fixed: np.ndarray) -> None:
        self.side, self.counted = len(fixed), counted
        rest = np.average(moving, axis=(0, 1), weights=counted)
        self.moving = counted[..., None] * moving + (1 - counted[..., None]) * rest
        self.fixed = fixed
        self.spectrum = fft.rfft2(fixed - fixed.mean(axis=(0, 1)), axes=(0, 1))

    def halved(self) -> _Pair:
        half = (self.side // 2, self.side // 2)
        return _Pair(*(resize(values, half, order=1, anti_aliasing=True) for values in (self.moving, self.counted, self.fixed)))

    def shift_at(self, turn: float) -> Registration:
        """The shift of largest cross-correlation, over all channels, of the picture after a turn."""
        moved = _moved(self.moving, turn, (0.0, 0.0))
        product = self.spectrum * fft.rfft2(moved - moved.mean(axis=(0, 1)), axes=(0, 1)).conj()
        found = fft.irfft2(product, (self.side, self.side), axes=(0, 1)).sum(axis=2)
        peak = np.array(np.unravel_index(found.argmax(), found.shape))
        rows, columns = np.where(peak > self.side // 2, peak - self.side, peak) / self.side
        return self.at(turn, (float(rows), float(columns)))

    def at(self, turn: float, shift: tuple[float, float]) -> Registration:
        """With the weighted correlation coefficient of all channels, each about its mean, over the pixels that both pictures have."""
        moved, weight = _moved(self.moving, turn, shift), _moved(self.counted, turn, shift, outside=0.0)
        if weight.sum() < COMMON * self.counted.sum():
            return Registration(turn, shift, -1.0)
        own, other = (values - np.average(values, axis=(0, 1), weights=weight) for values in (moved, self.fixed))
        shares = weight[..., None]
        spread = math.sqrt(float((shares * own**2).sum() * (shares * other**2).sum()))
        return Registration(turn, shift, float((shares * own * other).sum()) / spread if spread else 0.0)

    def best_near(self, start: Registration, steps: Sequence[float] = STEPS) -> Registration:
        simplex = np.array([start.turn, *start.shift]) + np.vstack([np.zeros(3), np.diag(steps)])
        options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-4}
        found = minimize(lambda v: -self.at(v[0], (v[1], v[2])).likeness, simplex[0], method="Nelder-Mead", options=options).x
        return self.at(float(found[0]), (float(found[1]), float(found[2])))


def register(
    picture: UInt8[np.ndarray, "side side 3"], left_out: Bool[np.ndarray, "side side"], onto: UInt8[np.ndarray, "side side 3"]
) -> Registration:
    """What brings ``picture`` onto ``onto``; the pixels in ``left_out``, its defect's, do not count."""
    if left_out.all():
        return Registration(0.0, (0.0, 0.0), -1.0)
    fine = _Pair(_prepared(picture), (~left_out).astype(np.float32), _prepared(onto))
    coarse = fine.halved()
    ring = [coarse.shift_at(float(turn)) for turn in TURNS]
    found = [coarse.best_near(start) for start in _starts(ring)]
    best = max(map(_by_likeness, found))
    chosen = min((one for one in found if one.likeness >= best - AS_GOOD), key=_by_turn)
    result = fine.best_near(chosen, [step / 3 for step in STEPS])
    return replace(result, turn=math.remainder(result.turn, 2 * math.pi))


def _starts(ring: list[Registration]) -> list[Registration]:
    """Of those that are no less like than both neighbours the best, and of the ones nearly as like those that turn it least: a
    hexagon has six that are the same, a disc no other than these."""
    around = zip([ring[-1], *ring], ring, [*ring[1:], ring[0]], strict=False)
    peaks = [own for before, own, after in around if own.likeness >= max(before.likeness, after.likeness)]
    ranked = sorted(peaks, key=_by_likeness, reverse=True)
    nearly = sorted((one for one in ranked if one.likeness >= ranked[0].likeness - NEARLY), key=_by_turn)
    return list(dict.fromkeys([*ranked[:STARTS], *nearly[:STARTS]]))


def _by_likeness(found: Registration) -> float:
    return found.likeness


def _by_turn(found: Registration) -> float:
    return abs(math.remainder(found.turn, 2 * math.pi))


def _prepared(picture: UInt8[np.ndarray, "side side 3"]) -> Float[np.ndarray, "side side 3"]:
    return ndimage.gaussian_filter(picture.astype(np.float32), (1.0, 1.0, 0.0))


def _moved(values: np.ndarray, turn: float, shift: tuple[float, float], outside: float | None = None) -> np.ndarray:
    """Values turned about their middle and shifted; beyond the border they go on as at it, or are ``outside``."""
    middle, inverse = (len(values) - 1) / 2, turned(-turn)
    offset = middle - inverse @ (middle + np.array(shift) * len(values))
    mode, fill = ("nearest", 0.0) if outside is None else ("constant", outside)
    channels = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    moved = [ndimage.affine_transform(one, inverse, offset, order=1, mode=mode, cval=fill) for one in channels]
    return moved[0] if values.ndim == 2 else np.stack(moved, -1)
