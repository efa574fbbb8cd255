"""DRAEM's simulated anomalies: a texture blended in where Perlin noise is high.

Zavrtanik, Kristan, Skočaj, "DRAEM" (ICCV 2021), Sec. 3.3. The paper takes textures from the Describable
Textures Dataset; here they are scikit-image's CC0 textures (brick, grass, gravel), tinted, and as often a
relit, turned normal image of the product itself.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage
from skimage import data

from cadiff.errors import CADiffError
from cadiff.seeds import numpy_generator
from cadiff.synthesis.photometric import TRIES, is_visible, relight

THRESHOLD = 0.5
OPACITY = (0.1, 1.0)  # beta
MAX_OCTAVE = 5  # at most 2^5 noise cells along a side
MIN_CELL = 4  # pixels; smaller cells are no more than speckle
MIN_AREA = 0.0005  # of the image
CONTRAST, BRIGHTNESS, TINT = 0.4, 40.0, 60.0


def perlin(
    normals: UInt8[np.ndarray, "n h w 3"], seed: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """A normal image I with a texture A in the mask M: ``(1 - M) I + M ((1 - beta) I + beta A)`` (Eq. 1-2).

    Outside the mask the image is the normal image, bit for bit. A mask that is too small and a texture that
    does not show are drawn again.

    Raises:
        CADiffError: if nothing shows after 50 draws.
    """
    rng = numpy_generator(seed, "perlin")
    base = normals[rng.integers(len(normals))]
    for _ in range(TRIES):
        mask = perlin_mask(base.shape[0], rng)
        blended = base.astype(float)
        beta = rng.uniform(*OPACITY)
        blended[mask] = (1 - beta) * blended[mask] + beta * _texture(normals, rng)[mask]
        image = np.round(blended).astype(np.uint8)
        if mask.mean() >= MIN_AREA and is_visible(base, image, mask):
            return image, mask
    raise CADiffError(f"perlin: no texture of {TRIES} shows on the normal image; is base.size below 8?")


def perlin_mask(side: int, rng: np.random.Generator) -> Bool[np.ndarray, "side side"]:
    """Where noise of 1 to 32 cells along each axis, turned by up to 90 degrees, exceeds 0.5."""
    octaves = min(MAX_OCTAVE, int(np.log2(max(1, side // MIN_CELL))))
    cells = 2 ** rng.integers(octaves + 1, size=2)
    noise = perlin_noise(side, (int(cells[0]), int(cells[1])), rng)
    return ndimage.rotate(noise, rng.uniform(-90, 90), reshape=False, order=1) > THRESHOLD


def perlin_noise(
    side: int, cells: tuple[int, int], rng: np.random.Generator
) -> Float[np.ndarray, "side side"]:
    """Gradient noise (Perlin, "Improving Noise", SIGGRAPH 2002) with unit gradients, scaled to [-1, 1].

    ``cells`` is the number of lattice cells along rows and columns; the noise is 0 at lattice points.
    """
    angle = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    gradient = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    y, x = (np.arange(side) * count / side for count in cells)
    row, column = y.astype(int)[:, None], x.astype(int)[None, :]
    v, u = y[:, None] - row, x[None, :] - column
    noise = np.zeros((side, side))
    for i in (0, 1):
        for j in (0, 1):
            corner = gradient[row + i, column + j]
            weight = (_fade(v) if i else 1 - _fade(v)) * (_fade(u) if j else 1 - _fade(u))
            noise += weight * (corner[..., 0] * (v - i) + corner[..., 1] * (u - j))
    return noise * np.sqrt(2)


def _fade(t: np.ndarray) -> np.ndarray:
    return t**3 * (t * (6 * t - 15) + 10)


def _texture(normals: UInt8[np.ndarray, "n h w 3"], rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    side = normals.shape[1]
    if rng.random() < 0.5:
        grey = _textures()[rng.integers(len(_textures()))]
        window = int(rng.integers(min(side, len(grey)), len(grey) + 1))
        y, x = rng.integers(len(grey) - window + 1, size=2)
        cut = Image.fromarray(grey[y : y + window, x : x + window]).resize(
            (side, side), Image.Resampling.LANCZOS
        )
        source = np.repeat(np.asarray(cut)[..., None], 3, axis=2)
    else:
        normal = normals[rng.integers(len(normals))]
        source = ndimage.rotate(normal, rng.uniform(-180, 180), reshape=False, order=1, mode="reflect")
    return relight(source, rng, CONTRAST, BRIGHTNESS, TINT)


@cache
def _textures() -> tuple[UInt8[np.ndarray, "512 512"], ...]:
    return data.brick(), data.grass(), data.gravel()
