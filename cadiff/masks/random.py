"""Masks of no exemplar: smooth random blobs on the product.

Lattice noise over a few lattices, each twice as fine and half as loud, cut at the level that leaves
the area drawn; of that the piece with the most in it.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from cadiff.masks.foreground import scaled
from cadiff.storage import resize_mask

AREAS = (0.001, 0.1)  # shares of the picture: from a pore to what no part would pass with; as often in each decade
OCTAVES = 3
WIDE = 8.0  # lattice cells of the coarsest noise along the shorter side, at most; a blob is about a cell


def blob(product: Bool[np.ndarray, "h w"], canvas: tuple[int, int], rng: np.random.Generator) -> Bool[np.ndarray, "h2 w2"]:
    """A mask at a canvas, within ``product``, which shows the same picture small. It has at least one pixel."""
    area = math.exp(rng.uniform(*np.log(AREAS))) * product.size
    cells = float(np.clip(0.7 * math.sqrt(product.size / area), 2.0, WIDE))
    noise = sum(lattice_noise(product.shape, cells * 2**k, rng) / 2**k for k in range(OCTAVES))
    inside = np.argwhere(product)
    at = inside[int(rng.integers(len(inside)))]
    distance = np.linalg.norm(np.indices(product.shape) - at[:, None, None], axis=0)
    heights = np.where(product, noise - 1.5 * distance / math.sqrt(area), -np.inf)  # so that there is one blob, and it is here
    level = np.sort(heights[product])[-min(max(1, round(area)), len(inside))]
    labels, _ = ndimage.label(heights >= level)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    mask = resize_mask(largest, canvas, "half") if min(canvas) < min(product.shape) else scaled(largest, canvas)
    if not mask.any():
        row, column = (int((p + 0.5) * side / own) for p, side, own in zip(np.argwhere(largest)[0], canvas, product.shape, strict=True))
        mask[row, column] = True
    return mask


def lattice_noise(shape: tuple[int, int], cells: float, rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """Gradients at the corners of a lattice with ``cells`` along the shorter side, smoothly blended; its standard deviation is 1."""
    step = min(shape) / cells
    counts = [math.ceil(side / step) + 2 for side in shape]
    angles = rng.uniform(0, 2 * math.pi, counts)
    offset = rng.uniform(0, 1, 2)
    rows, columns = (np.arange(side) / step + o for side, o in zip(shape, offset, strict=True))
    noise = gradient_noise(rows, columns, np.stack([np.sin(angles), np.cos(angles)], -1))
    return noise / max(float(noise.std()), 1e-9)


def gradient_noise(
    rows: Float[np.ndarray, " h"], columns: Float[np.ndarray, " w"], gradients: Float[np.ndarray, "n m 2"]
) -> Float[np.ndarray, "h w"]:
    """Noise that is 0 at the corners of a lattice and has these gradients there (along rows, along columns), at places given in its cells
    (Perlin, "Improving Noise", SIGGRAPH 2002)."""
    row, column = rows.astype(int)[:, None], columns.astype(int)[None]
    y, x = rows[:, None] - row, columns[None] - column
    ease_y, ease_x = (t**3 * (t * (6 * t - 15) + 10) for t in (y, x))
    noise = np.zeros((len(rows), len(columns)))
    for down in (0, 1):
        for across in (0, 1):
            corner = gradients[row + down, column + across]
            weight = (ease_y if down else 1 - ease_y) * (ease_x if across else 1 - ease_x)
            noise += weight * (corner[..., 0] * (y - down) + corner[..., 1] * (x - across))
    return noise
