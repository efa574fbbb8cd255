"""A part drawn at known poses."""

from __future__ import annotations

import math

import numpy as np

# Of an L with a knob, in shares of the side from its middle (across, down): a centre and half an extent.
BARS = [((-0.1, 0.0), (0.06, 0.26)), ((0.05, 0.2), (0.2, 0.06)), ((0.15, -0.1), (0.05, 0.05))]


def drawn(side: int, turn: float, shift: tuple[float, float], bars=BARS, seed: int = 0) -> np.ndarray:
    """The part turned and then shifted (rows, columns), each pixel the mean of 16 points of it, on a noisy ground."""
    axis = (np.arange(4 * side) + 0.5) / (4 * side) - 0.5
    down, across = np.meshgrid(axis - shift[0], axis - shift[1], indexing="ij")
    own_down = math.cos(turn) * down + math.sin(turn) * across
    own_across = -math.sin(turn) * down + math.cos(turn) * across
    solid = np.zeros(down.shape)
    for k, ((x, y), (half_x, half_y)) in enumerate(bars):
        inside = (np.abs(own_across - x) < half_x) & (np.abs(own_down - y) < half_y)
        solid[inside] = 200 - 40 * k
    picture = solid.reshape(side, 4, side, 4).mean(axis=(1, 3)) + np.random.default_rng(seed).normal(30, 6, (side, side))
    return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def place_of(at: tuple[float, float], side: int, turn: float, shift: tuple[float, float]) -> tuple[float, float]:
    """Row and column (px) of what lies at ``at`` (across, down; as in BARS) on the part, in a picture of it."""
    (across, down), cos, sin = at, math.cos(turn), math.sin(turn)
    return (cos * down - sin * across + shift[0] + 0.5) * side - 0.5, (sin * down + cos * across + shift[1] + 0.5) * side - 0.5
