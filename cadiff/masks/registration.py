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

from cadiff.scene import Movement, rotation

POSE_SIDE = 64  # px of the shorter side that pictures are best brought to: a pose is as plain there, and a search at 512 px takes a minute
TURNS = np.radians(np.arange(-180, 180, 6))  # 0 is one of them
STARTS = 4  # that turn least, of those nearly as like as the best, and as many of the best
NEARLY = 0.15  # of likeness, before the search
AS_GOOD = 0.02  # of two poses nearly as like, of a part that is nearly symmetric, the one that turns it less
STEPS = (math.radians(3), 0.02, 0.02)  # the search's first, of the turn and the shift
COMMON = 0.75  # of the picture, which two pictures must have in common: a part that is pushed out of it fits anything


@dataclass(frozen=True)
class Registration:
    """A turn in radians about the picture's middle (as ``Movement.turn``), then a shift of that middle against the other picture's, in
    rows and columns as shares of the shorter side.

    ``likeness``: the correlation coefficient of the two pictures after it, without what was left out; 1 where they are the same,
    -1 where no pose leaves them enough in common.
    """

    turn: float
    shift: tuple[float, float]
    likeness: float

    def move(self, movement: Movement, canvas: tuple[int, int], onto: tuple[int, int]) -> Movement:
        """``movement`` on its exemplar's own canvas, then this: where a moved mask lies on the part in the other picture's canvas."""
        own, other = np.array(canvas), np.array(onto)
        place = rotation(self.turn) @ ((np.array(movement.centre) - 0.5) * own / own.min()) + np.array(self.shift)
        row, column = place * other.min() / other + 0.5
        scale = movement.scale * float(other.min() / own.min())
        return replace(movement, scale=scale, turn=movement.turn + self.turn, centre=(float(row), float(column)))


class _Pair:
    """Two pictures in frames of one shape, each with what counts of it; what is left out of the first has the rest's mean colour, so that
    it pulls nothing."""

    def __init__(self, moving: np.ndarray, counted: np.ndarray, fixed: np.ndarray, there: np.ndarray) -> None:
        self.shape, self.side, self.counted, self.there = fixed.shape[:2], min(fixed.shape[:2]), counted, there
        rest = np.average(moving, axis=(0, 1), weights=counted)
        self.moving = counted[..., None] * moving + (1 - counted[..., None]) * rest
        self.fixed = fixed
        self.spectrum = fft.rfft2(fixed - fixed.mean(axis=(0, 1)), axes=(0, 1))

    def halved(self) -> _Pair:
        half = (self.shape[0] // 2, self.shape[1] // 2)
        return _Pair(*(resize(v, half, order=1, anti_aliasing=True) for v in (self.moving, self.counted, self.fixed, self.there)))

    def shift_at(self, turn: float) -> Registration:
        """The shift of largest cross-correlation, over all channels, of the picture after a turn."""
        moved = _moved(self.moving, turn, np.zeros(2))
        product = self.spectrum * fft.rfft2(moved - moved.mean(axis=(0, 1)), axes=(0, 1)).conj()
        found = fft.irfft2(product, self.shape, axes=(0, 1)).sum(axis=2)
        peak, shape = np.array(np.unravel_index(found.argmax(), found.shape)), np.array(self.shape)
        rows, columns = np.where(peak > shape // 2, peak - shape, peak) / self.side
        return self.at(turn, (float(rows), float(columns)))

    def at(self, turn: float, shift: tuple[float, float]) -> Registration:
        """With the weighted correlation coefficient of all channels, each about its mean, over the pixels that both pictures have."""
        by = np.array(shift) * self.side
        moved, weight = _moved(self.moving, turn, by), _moved(self.counted, turn, by, outside=0.0) * self.there
        if weight.sum() < COMMON * min(self.counted.sum(), self.there.sum()):
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


def register(picture: UInt8[np.ndarray, "h w 3"], left_out: Bool[np.ndarray, "h w"], onto: UInt8[np.ndarray, "h2 w2 3"]) -> Registration:
    """What brings ``picture`` onto ``onto``, both at one scale; the pixels in ``left_out``, its defect's, do not count."""
    if left_out.all():
        return Registration(0.0, (0.0, 0.0), -1.0)
    frame = np.maximum(picture.shape[:2], onto.shape[:2])
    moving, fixed = _Framed(_prepared(picture), ~left_out, frame), _Framed(_prepared(onto), np.ones(onto.shape[:2], bool), frame)
    fine = _Pair(moving.values, moving.counted, fixed.values, fixed.counted)
    coarse = fine.halved()
    ring = [coarse.shift_at(float(turn)) for turn in TURNS]
    found = [coarse.best_near(start) for start in _starts(ring)]
    best = max(map(_by_likeness, found))
    chosen = min((one for one in found if one.likeness >= best - AS_GOOD), key=_by_turn)
    result = fine.best_near(chosen, [step / 3 for step in STEPS])
    between = rotation(result.turn) @ moving.off - fixed.off  # of the pictures' middles, where those of their frames agree
    rows, columns = (np.array(result.shift) * fine.side + between) / min(onto.shape[:2])
    return replace(result, turn=math.remainder(result.turn, 2 * math.pi), shift=(float(rows), float(columns)))


class _Framed:
    """A picture in the middle of a frame, its border repeated and not counted; ``off``: its own middle from the frame's, px."""

    def __init__(self, picture: Float[np.ndarray, "h w 3"], counted: Bool[np.ndarray, "h w"], frame: np.ndarray) -> None:
        shape = np.array(counted.shape)
        before = (frame - shape) // 2
        around = list(zip(before, frame - shape - before, strict=True))
        self.values, self.counted = np.pad(picture, [*around, (0, 0)], mode="edge"), np.pad(counted, around).astype(np.float32)
        self.off = before + (shape - 1) / 2 - (frame - 1) / 2


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


def _prepared(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    smooth: np.ndarray = ndimage.gaussian_filter(picture.astype(np.float32), (1.0, 1.0, 0.0))
    return smooth


def _moved(values: np.ndarray, turn: float, shift: Float[np.ndarray, " 2"], outside: float | None = None) -> np.ndarray:
    """Values turned about their middle and shifted (px); beyond the border they go on as at it, or are ``outside``."""
    middle, inverse = (np.array(values.shape[:2]) - 1) / 2, rotation(-turn)
    offset = middle - inverse @ (middle + shift)
    mode, fill = ("nearest", 0.0) if outside is None else ("constant", outside)
    channels = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    moved = [ndimage.affine_transform(one, inverse, offset, order=1, mode=mode, cval=fill) for one in channels]
    return moved[0] if values.ndim == 2 else np.stack(moved, -1)
