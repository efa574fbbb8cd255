"""Changes of light that several methods share, and what they draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

MIN_DIFFERENCE = 2.0  # grey levels
TRIES = 50

Images = Sequence[UInt8[np.ndarray, "_ _ 3"]]  # of one product, each of its own shape


class Drawn(NamedTuple):
    """An image and its mask at the canvas of what it was made from: ``base`` is that one's place among the pictures given."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    base: int


def relight(
    pixels: Num[np.ndarray, "h w 3"],
    rng: np.random.Generator,
    contrast: float,
    brightness: float,
    tint: float = 0.0,
) -> Float[np.ndarray, "h w 3"]:
    """Contrast times 1 +- ``contrast`` about the mean, plus up to +- ``brightness`` grey levels for all
    channels and +- ``tint`` for each; clipped to [0, 255]."""
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    gain = 1 + contrast * rng.uniform(-1, 1)
    shift = brightness * rng.uniform(-1, 1) + tint * rng.uniform(-1, 1, 3)
    shown: np.ndarray = np.clip((pixels - mean) * gain + mean + shift, 0, 255)
    return shown


def without_colour(pixels: Num[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Every channel the mean of the three: what is set into a grey picture must not make it one with colours."""
    return np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)


def is_visible(before: Num[np.ndarray, "h w 3"], after: Num[np.ndarray, "h w 3"], mask: np.ndarray) -> bool:
    """Whether the mask is there and what it covers changed by at least ``MIN_DIFFERENCE`` grey levels on
    average.

    Black pasted on black is no anomaly, and a label that says so teaches a detector nothing true.
    """
    if not mask.any():
        return False
    return float(np.abs(after[mask].astype(float) - before[mask]).mean()) >= MIN_DIFFERENCE
