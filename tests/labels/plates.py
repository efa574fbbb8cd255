"""What is drawn on the pictures, and the one shape that every format's labels of them speak of."""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT = 40, 30
LEFT, TOP, RIGHT, BOTTOM = 8, 5, 20, 12  # edges of the rectangle that is marked
CORNERS = [(LEFT, TOP), (RIGHT, TOP), (RIGHT, BOTTOM), (LEFT, BOTTOM)]


def marked() -> np.ndarray:
    """The rectangle's pixels."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[TOP:BOTTOM, LEFT:RIGHT] = True
    return mask


def picture(seed: int, spot: bool = False) -> np.ndarray:
    """A grey plate with grain; with a dark round spot that just fits the rectangle."""
    pixels = np.random.default_rng(seed).normal(150, 4, (HEIGHT, WIDTH, 3))
    if spot:
        y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        pixels[((x - (LEFT + RIGHT) / 2) / 6) ** 2 + ((y - (TOP + BOTTOM) / 2) / 3.5) ** 2 < 1] = 30
    return pixels.clip(0, 255).astype(np.uint8)
