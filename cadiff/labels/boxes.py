"""From a box to an approximate mask: what differs in it from what surrounds it, or the ellipse within it.

On 140 boxes around masks of four real data sets (tiles, cookies, commutators, ball screws) the mean intersection over union with the mask
was 0.55 for the ellipse, 0.60 for what differs, 0.64 for the rule below. GrabCut (OpenCV's) gave 0.24, and 0.59 with the ellipse in its
place where it left most of the box empty.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import binary_fill_holes, gaussian_filter, label
from skimage.draw import ellipse
from skimage.filters import threshold_otsu

from cadiff.labels.model import Box

How = Literal["cut", "ellipse"]
AROUND = 0.5  # of the box's longer side: how far its surroundings reach
LEAST = 8  # px that they reach at least
USUAL = 4.0  # robust deviations of the surroundings: what differs less counts hardly at all
FLOOR = 2.0  # grey levels that count as no difference: surroundings may have no grain at all
ONE_PIECE = 0.85  # of what differs: so much must hang together to be taken for the defect


def box_mask(picture: UInt8[np.ndarray, "h w 3"], box: Box) -> tuple[Bool[np.ndarray, "h w"], How]:
    """An approximate mask of what the box was drawn around, and how it was made.

    Each pixel's distance from the surroundings' median colour, in robust deviations of theirs, is parted by Otsu's threshold within the
    box. What lies above it is the mask (``cut``) where it is one defect's: at least ``ONE_PIECE`` of it hangs together. Otherwise the
    ellipse that touches the box's sides is. Where the whole picture is in the box there are no surroundings: the ellipse.

    Raises:
        ValueError: if no pixel of the picture lies in the box.
    """
    height, width = picture.shape[:2]
    left, top = max(0, math.floor(box.left)), max(0, math.floor(box.top))
    right, bottom = min(width, math.ceil(box.right)), min(height, math.ceil(box.bottom))
    if left >= right or top >= bottom:
        raise ValueError(f"a box {tuple(box)} outside of the picture of {width}x{height}")
    found = np.zeros((height, width), bool)
    reach = max(LEAST, round(AROUND * max(right - left, bottom - top)))
    rows, columns = slice(max(0, top - reach), bottom + reach), slice(max(0, left - reach), right + reach)
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    inside = inside[rows, columns]
    cut = None if inside.all() else _cut(picture[rows, columns], inside)
    if cut is not None:
        found[rows, columns] = cut
        return found, "cut"
    drawn = ellipse((top + bottom - 1) / 2, (left + right - 1) / 2, (bottom - top) / 2, (right - left) / 2, (height, width))
    found[drawn] = True
    found[(top + bottom - 1) // 2, (left + right - 1) // 2] = True  # of a box of one pixel the ellipse has none
    return found, "ellipse"


def _cut(picture: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"] | None:
    """What differs within the box; None: nothing does, or not in one piece."""
    distances = differences(picture, ~inside)
    within = distances[inside]
    if np.ptp(within) == 0:
        return None
    above = binary_fill_holes((distances > threshold_otsu(within)) & inside)
    pieces, count = label(above, np.ones((3, 3)))
    if not count or np.bincount(pieces.ravel())[1:].max() < ONE_PIECE * above.sum():
        return None
    return np.asarray(above, bool)


def differences(picture: UInt8[np.ndarray, "h w 3"], surroundings: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """How far each pixel's colour is from the median one of ``surroundings``: of that distance in their robust deviations, over ``USUAL``,
    the logarithm after adding one."""
    smooth = np.stack([gaussian_filter(picture[..., channel].astype(np.float32), 1) for channel in range(3)], axis=-1)
    usual = np.median(smooth[surroundings], axis=0)
    spread = 1.4826 * np.median(np.abs(smooth[surroundings] - usual), axis=0) + FLOOR
    distance: np.ndarray = np.log1p(np.sqrt((((smooth - usual) / spread) ** 2).sum(axis=-1)) / USUAL)
    return distance
