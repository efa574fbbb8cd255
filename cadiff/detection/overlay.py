"""A heat map over its picture, for people."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from cadiff.detection.measuring import resized

MOST_SIDE = 2048  # px: a larger picture is shown shrunk to this
STRENGTH = 0.7  # how much of a picture the strongest heat covers
HOT, LINE = np.array([255.0, 40.0, 0.0]), np.array([255, 255, 0], np.uint8)  # colours of the heat, and around what is marked


def overlay(
    image: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], threshold: float | None
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture in grey with its heat in red, what is marked outlined in yellow; at its own size, its longer side at most ``MOST_SIDE``.

    Half of the red's strength is a heat at ``threshold`` (None: 0.5), so that what lies above stands out however low that is.
    """
    shape = shown_shape(heat.shape[0], heat.shape[1])
    small = Image.fromarray(np.ascontiguousarray(image))
    if shape != heat.shape:
        small = small.resize(shape[::-1], Image.Resampling.BOX)
        heat, mask = resized(heat, shape), resized(mask.astype(np.float32), shape) > 0
    grey = np.asarray(small.convert("L"), np.float32)[..., None]
    half = 0.5 if threshold is None else min(max(threshold, 1e-6), 1 - 1e-6)
    strength = STRENGTH * np.interp(heat, [0, half, 1], [0, 0.5, 1])[..., None].astype(np.float32)
    shown: np.ndarray = np.round(grey + strength * (HOT - grey)).astype(np.uint8)
    width = 1 + max(shape) // 512
    shown[ndimage.binary_dilation(mask, iterations=width) & ~mask] = LINE
    return shown


def shown_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width as shown."""
    scale = min(1.0, MOST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
