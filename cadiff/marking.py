"""What is marked in a mask: decided at the file's own depth and size, on all of its values, before anything is resized."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Num
from PIL import Image
from scipy import ndimage

from cadiff.errors import CADiffError

MaskRule = Literal["any", "quarter", "half", "nearest", "cut"]
SLOPE = 1 / 32  # of half of white: by so much, or by 1, a smoothed mask rises from one pixel to the next where it is flat
MASK_RULES: dict[str, float] = {"any": 0.0, "quarter": 63.5, "half": 127.5}  # of 255: how much of a shrunk pixel is anomaly (less rounding)


def marked(values: Num[np.ndarray, "h w"], name: str) -> Bool[np.ndarray, "h w"]:
    """Which pixels a mask marks. ``values`` are the file's own, of any depth.

    Marked is what is more than half of full white; in a mask that has no such value, whatever is above 0 (VisA numbers its regions
    1, 2, ...). White is 255, of deeper masks the largest value of the bits that its values take (4095 of a 12-bit mask), and 1 of
    real numbers that do not exceed it. Both, bright values and areas of a darker one, would be a guess: an error.

    Raises:
        CADiffError: names the mask if it has both, or values that are negative or no numbers.
    """
    least, most = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (np.isfinite(least) and np.isfinite(most) and least >= 0):
        raise CADiffError(f"{name}: expected a mask of numbers from 0 on, found values from {least:g} to {most:g}. Save it with 0 and 255.")
    half = white(most, values.dtype.kind == "f") / 2
    if most <= half:
        return values > 0
    if label := dark_area(values, half):
        raise CADiffError(
            f"{name}: expected 0 and {2 * half:g}, or labels up to {half // 1:g}, found both {most:g} and areas of {label:g}. Save it with "
            "two values."
        )
    return values > half


def white(most: float, real: bool) -> float:
    """The value that stands for white in a mask whose largest value is ``most``."""
    if real and most <= 1:
        return 1.0
    return float(2 ** max(8, int(most).bit_length()) - 1)


def dark_area(values: Num[np.ndarray, "h w"], half: float) -> float:
    """A value above 0 and up to ``half`` that is a label (0: none): it fills 3 by 3 pixels somewhere, and the area that it fills ends at a
    jump. In a smoothed mask such an area is a step of a slope, beside which lies the next one."""
    flat = ndimage.minimum_filter(values, 3, mode="nearest") == ndimage.maximum_filter(values, 3, mode="nearest")
    flat &= (values > 0) & (values <= half)
    if not flat.any():
        return 0.0
    from skimage.measure import label  # takes a third of a second to import, and most masks have two values

    areas = label(np.unique(values, return_inverse=True)[1].reshape(values.shape), background=-1, connectivity=2)
    sloping = np.zeros(areas.max() + 1, bool)
    sloping[areas[_next_is_near(values.astype(np.float64), max(1.0, half * SLOPE) if half > 1 else half * SLOPE)]] = True
    return float(np.where(flat & ~sloping[areas], values, 0).max())


def _next_is_near(values: Num[np.ndarray, "h w"], step: float) -> Bool[np.ndarray, "h w"]:
    """Which pixels have a neighbour that is brighter, by no more than ``step``."""
    height, width = values.shape
    padded, found = np.pad(values, 1, mode="edge"), np.zeros(values.shape, bool)
    for down in range(3):
        for right in range(3):
            rise = padded[down : down + height, right : right + width] - values
            found |= (rise > 0) & (rise <= step)
    return found


def union(masks: list[Bool[np.ndarray, "h w"]], folder: object) -> Bool[np.ndarray, "h w"]:
    """What any of the masks in a folder marks.

    Raises:
        CADiffError: names the folder if there is none, or they differ in size.
    """
    if len({mask.shape for mask in masks}) != 1:
        sizes = sorted(f"{mask.shape[1]}x{mask.shape[0]}" for mask in masks)
        raise CADiffError(f"{folder}: expected masks of one size, found {', '.join(sizes) or 'none'}.")
    joined: np.ndarray = np.logical_or.reduce(masks)
    return joined


def resize_mask(mask: np.ndarray, shape: tuple[int, int], rule: MaskRule = "quarter") -> np.ndarray:
    """A mask (bool, ``h w``) at a height and a width.

    A pixel of the result counts where at least a quarter of what it covers was anomaly (``quarter``: thin defects survive), at least
    half (``half``: the area stays), any (``any``), or where the pixel nearest to its centre was (``nearest``: as code that shrinks masks
    without a thought). Where no pixel has that much, those with the most count, so that no defect vanishes; ``nearest`` may lose it, and
    so may ``cut``, the published evaluation's rule: bilinear between the four nearest pixels, in 8 bits, of which only 255 is anomaly.
    """
    if mask.shape == tuple(shape):
        return mask
    if rule == "nearest":
        return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(shape[::-1], Image.Resampling.NEAREST)) > 0
    if rule == "cut":
        places = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(shape, mask.shape, strict=True)]
        between = ndimage.map_coordinates(mask.astype(np.float32), np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
        cut: np.ndarray = between >= 254.5 / 255
        return cut
    shares = Image.fromarray(np.where(mask, 255, 0).astype(np.float32))
    coverage = np.asarray(shares.resize(shape[::-1], Image.Resampling.BOX))
    covered: np.ndarray = (coverage >= min(MASK_RULES[rule], coverage.max())) & (coverage > 0)
    return covered
