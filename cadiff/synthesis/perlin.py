"""DRAEM's simulated anomalies: a texture blended in where Perlin noise is high.

Zavrtanik, Kristan, Skočaj, "DRAEM" (ICCV 2021), Sec. 3.3. The paper takes textures from the Describable
Textures Dataset; here they are scikit-image's CC0 textures (brick, grass, gravel), tinted, and as often a
relit, turned normal image of the product itself.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps
from scipy import ndimage
from skimage import data

from cadiff.errors import CADiffError
from cadiff.masks.random import gradient_noise
from cadiff.pictures import is_grey
from cadiff.seeds import numpy_generator
from cadiff.synthesis.photometric import TRIES, Drawn, Images, is_visible, relight, without_colour

THRESHOLD = 0.5
OPACITY = (0.1, 1.0)  # beta
MAX_OCTAVE = 5  # at most 2^5 noise cells along a side
MIN_CELL = 4  # pixels; smaller cells are no more than speckle
MIN_AREA = 0.0005  # of the image
CONTRAST, BRIGHTNESS, TINT = 0.4, 40.0, 60.0


def perlin(normals: Images, seed: int) -> Drawn:
    """A normal image I with a texture A in the mask M: ``(1 - M) I + M ((1 - beta) I + beta A)`` (Eq. 1-2).

    Outside the mask the image is the normal image, bit for bit; into a grey one a grey texture is set. A mask that is too small
    and a texture that does not show are drawn again.

    Raises:
        CADiffError: if nothing shows after 50 draws.
    """
    rng = numpy_generator(seed, "perlin")
    which = int(rng.integers(len(normals)))
    base = normals[which]
    grey = is_grey(base)
    for _ in range(TRIES):
        mask = perlin_mask(base.shape[:2], rng)
        blended = base.astype(float)
        beta = rng.uniform(*OPACITY)
        texture = _texture(normals, base.shape[:2], rng)
        blended[mask] = (1 - beta) * blended[mask] + beta * (without_colour(texture) if grey else texture)[mask]
        image = np.round(blended).astype(np.uint8)
        if mask.mean() >= MIN_AREA and is_visible(base, image, mask):
            return Drawn(image, mask, which)
    raise CADiffError(f"perlin: no texture of {TRIES} shows on the normal image; is dataset.size below 8?")


def perlin_mask(shape: tuple[int, ...], rng: np.random.Generator) -> Bool[np.ndarray, "h w"]:
    """Where noise of 1 to 32 cells along each axis of a square, turned by up to 90 degrees, exceeds 0.5.

    The square has the longer side, and what is not in the picture is cut off: a long picture's noise has its ends too, and is
    not drawn out.
    """
    side = max(shape)
    octaves = min(MAX_OCTAVE, int(np.log2(max(1, side // MIN_CELL))))
    cells = 2 ** rng.integers(octaves + 1, size=2)
    noise = perlin_noise((side, side), (int(cells[0]), int(cells[1])), rng)
    turned = ndimage.rotate(noise, rng.uniform(-90, 90), reshape=False, order=1) > THRESHOLD
    y, x = ((side - length) // 2 for length in shape)
    cut: np.ndarray = turned[y : y + shape[0], x : x + shape[1]]
    return cut


def perlin_noise(
    shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator
) -> Float[np.ndarray, "h w"]:
    """Gradient noise with unit gradients, scaled to [-1, 1].

    ``cells`` is the number of lattice cells along rows and columns; the noise is 0 at lattice points.
    """
    angle = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    gradient = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    rows, columns = (np.arange(length) * count / length for length, count in zip(shape, cells, strict=True))
    noise: np.ndarray = gradient_noise(rows, columns, gradient) * np.sqrt(2)
    return noise


def _texture(normals: Images, shape: tuple[int, ...], rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """A texture of a height and a width; of a normal image of another shape as much as covers it, not stretched."""
    if rng.random() < 0.5:
        grey = _textures()[rng.integers(len(_textures()))]
        window = int(rng.integers(min(*shape, len(grey)), len(grey) + 1))
        y, x = rng.integers(len(grey) - window + 1, size=2)
        cut = Image.fromarray(grey[y : y + window, x : x + window])
        source = np.repeat(np.asarray(_covering(cut, shape))[..., None], 3, axis=2)
    else:
        normal = normals[int(rng.integers(len(normals)))]
        turned = ndimage.rotate(normal, rng.uniform(-180, 180), reshape=False, order=1, mode="reflect")
        source = np.asarray(_covering(Image.fromarray(turned), shape))
    return relight(source, rng, CONTRAST, BRIGHTNESS, TINT)


def _covering(image: Image.Image, shape: tuple[int, ...]) -> Image.Image:
    """The middle of a picture at a height and a width, its aspect ratio kept; as it is where it has that shape."""
    size = (shape[1], shape[0])
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.LANCZOS)


@cache
def _textures() -> tuple[UInt8[np.ndarray, "512 512"], ...]:
    return data.brick(), data.grass(), data.gravel()
