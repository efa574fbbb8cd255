"""Where in a normal picture it looks as around an exemplar's anomaly.

Template matching by the sum of squared differences (Lewis, Fast Normalized Cross-Correlation, 1995, computes it the same way): the ring
around the exemplar's mask, scaled, turned and mirrored as a mask is to be, is laid over every place of a normal at once by Fourier
transforms. The distance of a place is the root mean square difference in CIELAB over the ring; what lies beyond a picture's border is a
colour of its own, so a mask at the border of its picture finds borders and one inside of it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import fft, ndimage
from skimage.color import rgb2lab

from cadiff.scene import rotation

JUST_NOTICEABLE = 2.3  # CIELAB distance (Mahy et al., Evaluation of uniform color spaces, 1994)
BEYOND = 40.0  # CIELAB distance of what is beyond a border from whatever is in a picture
BLUR = 1.0  # px: what is finer than the grid on which places are sought says nothing about them
GAP = 1  # px between mask and ring: an outline drawn by hand leaves some of the defect outside
WIDTH = 0.35  # of the ring, in shares of the root of the mask's area
WIDTHS = (3, 16)  # px


@dataclass(frozen=True)
class Ground:
    """A picture to look at: CIELAB against its median colour, since two exposures of one part differ in that."""

    lab: Float[np.ndarray, "h w 3"]

    @classmethod
    def of(cls, picture: UInt8[np.ndarray, "h w 3"], left_out: Bool[np.ndarray, "h w"] | None = None, seen: bool = False) -> Ground:
        """Smoothed; what is ``left_out``, a defect, counts not for the median nor, unless it is to be ``seen``, for what lies around it."""
        lab = rgb2lab(picture).astype(np.float32)
        lab[picture.max(axis=2) == picture.min(axis=2), 1:] = 0  # grey, not nearly so: two channels less to compare
        counted = np.ones(lab.shape[:2], bool) if left_out is None or left_out.all() else ~left_out
        lab -= np.median(lab[counted], axis=0)
        if seen:
            counted = np.ones_like(counted)
        weight = ndimage.gaussian_filter(counted.astype(np.float32), BLUR)[..., None]
        smooth = ndimage.gaussian_filter(lab * counted[..., None], (BLUR, BLUR, 0)) / np.maximum(weight, 1e-3)
        return cls(smooth)

    @property
    def shape(self) -> tuple[int, int]:
        return self.lab.shape[0], self.lab.shape[1]

    @cached_property
    def halved(self) -> Ground:
        return Ground(_halved(self.lab))

    def at(self, halvings: int) -> Ground:
        return self.halved.at(halvings - 1) if halvings else self

    def spectra(self, shape: tuple[int, int], used: Sequence[int]) -> np.ndarray:
        """Of what ``Kernel.weights`` are multiplied with, those ``used``: where there is a picture, its colours, their squares' sum."""
        height, width = self.shape
        channels = [np.ones(self.shape, np.float32), *np.moveaxis(self.lab, -1, 0), (self.lab**2).sum(-1)]
        laid = np.zeros((len(used), *shape), np.float32)
        laid[:, :height, :width] = [channels[c] for c in used]
        found: np.ndarray = fft.rfft2(laid)
        return found


@dataclass(frozen=True)
class Ring:
    """What surrounds a mask (``around``) or lies under it (``under``): colours, and how much each pixel counts, within the picture and
    beyond it. ``centroid`` is the mask's."""

    lab: Float[np.ndarray, "h w 3"]
    within: Float[np.ndarray, "h w"]
    beyond: Float[np.ndarray, "h w"]
    centroid: tuple[float, float]

    @classmethod
    def around(cls, ground: Ground, mask: Bool[np.ndarray, "h w"], centroid: tuple[float, float]) -> Ring:
        width = round(float(np.clip(WIDTH * math.sqrt(mask.sum()), *WIDTHS)))
        reach = GAP + width
        around = np.pad(mask, reach)
        distance = ndimage.distance_transform_edt(~around)
        ring = np.where((distance > GAP) & (distance <= reach), 1 / np.maximum(distance - GAP, 1), 0)  # what meets the mask counts most
        within = np.pad(np.ones(mask.shape, bool), reach)
        rows, columns = (slice(int(at[0]), int(at[-1]) + 1) for at in (np.flatnonzero(ring.any(axis=axis)) for axis in (1, 0)))
        lab = np.pad(ground.lab, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        parts = (lab, ring * within, ring * ~within)
        lab, inside, outside = (part[rows, columns].astype(np.float32) for part in parts)
        return cls(lab, inside, outside, (centroid[0] + reach - rows.start, centroid[1] + reach - columns.start))

    @classmethod
    def under(cls, ground: Ground, mask: Bool[np.ndarray, "h w"], centroid: tuple[float, float]) -> Ring:
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        within = mask[box].astype(np.float32)
        return cls(ground.lab[box].astype(np.float32), within, np.zeros_like(within), (centroid[0] - rows[0], centroid[1] - columns[0]))

    @cached_property
    def halved(self) -> Ring:
        """At half the scale; colours are means of what counts."""
        within, beyond = (_halved(values[..., None])[..., 0] for values in (self.within, self.beyond))
        lab = _halved(self.lab * self.within[..., None]) / np.maximum(within, 1e-6)[..., None]
        lab = np.where(within[..., None] > 0, lab, _halved(self.lab))
        return Ring(lab, within, beyond, ((self.centroid[0] - 0.5) / 2, (self.centroid[1] - 0.5) / 2))

    def at(self, halvings: int) -> Ring:
        return self.halved.at(halvings - 1) if halvings else self

    def moved(self, scale: float, turn: float, mirror: bool) -> Kernel:
        """As ``cadiff.scene.Movement`` moves a mask."""
        matrix = np.diag([1.0, -1.0 if mirror else 1.0]) @ rotation(-turn) / scale
        corners = np.array([[r, c] for r in (-1, self.within.shape[0]) for c in (-1, self.within.shape[1])]) - np.array(self.centroid)
        reach = corners @ np.linalg.inv(matrix).T
        start, shape = reach.min(axis=0), tuple(np.ceil(np.ptp(reach, axis=0) - 1e-6).astype(int) + 1)
        offset = np.array(self.centroid) + matrix @ start
        values = np.stack([*np.moveaxis(self.lab, -1, 0), self.within, self.beyond])
        there = np.zeros((len(values), *shape), np.float32)
        for k, channel in enumerate(values):
            if channel.any():
                ndimage.affine_transform(channel, matrix, offset, output=there[k], order=1, mode="nearest" if k < 3 else "constant")
        lab, within, beyond = there[:3], there[3], there[4]
        total = float(within.sum() + beyond.sum())
        first = within * (lab**2).sum(0) + BEYOND**2 * (beyond - within)
        weights = np.concatenate([first[None], -2 * within * lab, within[None]]) / max(total, 1e-6)
        return Kernel(weights, (-float(start[0]), -float(start[1])), BEYOND**2 * float(within.sum()) / max(total, 1e-6))


@dataclass(frozen=True)
class Kernel:
    """A moved ring, ready to be laid over a ground.

    Its first pixel lies at the ring's corner, so that quarter turns resample nothing, and a border that it holds is as sharp as the
    ground's. The mask's centroid is at ``anchor``, between pixels therefore.
    """

    weights: Float[np.ndarray, "5 h w"]
    anchor: tuple[float, float]
    constant: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.weights.shape[1], self.weights.shape[2]

    @property
    def pixel(self) -> tuple[int, int]:
        """The one that a place's distance is told of: the centroid is less than a px below and to the right of its middle."""
        row, column = (math.floor(at + 1e-6) for at in self.anchor)
        return row, column

    def flipped(self, *axes: int) -> Kernel:
        """Upside down (0), left to right (1) or both."""
        row, column = (side - 1 - at if axis in axes else at for axis, (side, at) in enumerate(zip(self.shape, self.anchor, strict=True)))
        return Kernel(np.flip(self.weights, tuple(axis + 1 for axis in axes)), (row, column), self.constant)


def _halved(values: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h2 w2 c"]:
    odd = [(0, side % 2) for side in values.shape[:2]]
    even = np.pad(values, [*odd, (0, 0)], mode="edge")
    height, width, channels = even.shape
    means: np.ndarray = even.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))
    return means


def distances(ground: Ground, kernels: Sequence[Kernel]) -> Float[np.ndarray, "k h w"]:
    """How far, in CIELAB, each ring is from what is around each place of a ground (where its ``Kernel.pixel`` lies)."""
    height, width = ground.shape
    sides = [[max(side + max(k.pixel[n], k.shape[n] - k.pixel[n]), k.shape[n]) for k in kernels] for n, side in enumerate(ground.shape)]
    shape = tuple(fft.next_fast_len(max(found), real=True) for found in sides)  # so that nothing comes round to the other side
    coloured = [c for c in range(3) if ground.lab[..., c].any() and any(k.weights[1 + c].any() for k in kernels)]
    used = [0, *(1 + c for c in coloured), 4]
    laid = np.zeros((len(kernels), len(used), *shape), np.float32)
    for into, kernel in zip(laid, kernels, strict=True):
        rows, columns = ((np.arange(n) - at) % side for n, at, side in zip(kernel.shape, kernel.pixel, shape, strict=True))
        into[:, rows[:, None], columns] = kernel.weights[used]
    summed = np.einsum("kcij,cij->kij", fft.rfft2(laid).conj(), ground.spectra(shape, used))
    squares = fft.irfft2(summed, shape)[:, :height, :width] + np.array([k.constant for k in kernels], np.float32)[:, None, None]
    distances: np.ndarray = np.sqrt(np.maximum(squares, 0))
    return distances
