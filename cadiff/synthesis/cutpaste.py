"""CutPaste: a patch of a normal image, pasted elsewhere (Li et al., CVPR 2021, Sec. 2.2 and appendix A)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, UInt8
from skimage.draw import polygon2mask

from cadiff.errors import CADiffError
from cadiff.seeds import numpy_generator
from cadiff.synthesis.photometric import TRIES, is_visible, relight

PAPER_SIDE = 256
AREA = (0.02, 0.15)  # of the image
ASPECT = 3.3  # at most, either way
SCAR_WIDTH, SCAR_LENGTH, SCAR_ANGLE = (2, 16), (10, 25), 45  # pixels at 256 px, degrees
CONTRAST, BRIGHTNESS, TINT = 0.1, 15.0, 10.0


def cutpaste(
    normals: UInt8[np.ndarray, "n h w 3"], seed: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """A normal image with a rectangle or, as often, a thin rotated scar from another place of a normal image.

    Outside the mask the image is the normal image, bit for bit. A patch that does not show is drawn again.

    Raises:
        CADiffError: if no patch shows after 50 draws.
    """
    rng = numpy_generator(seed, "cutpaste")
    base = normals[rng.integers(len(normals))]
    for _ in range(TRIES):
        shape = _scar(base.shape[0], rng) if rng.random() < 0.5 else _rectangle(base.shape[0], rng)
        pasted, mask = _paste(base, normals[rng.integers(len(normals))], shape, rng)
        if is_visible(base, pasted, mask):
            return pasted, mask
    raise CADiffError(
        f"cutpaste: no patch of {TRIES} shows; expected normal images that are not of one colour."
    )


def _rectangle(side: int, rng: np.random.Generator) -> Bool[np.ndarray, "a b"]:
    area = side * side * rng.uniform(*AREA)
    aspect = math.exp(rng.uniform(-math.log(ASPECT), math.log(ASPECT)))
    height, width = (
        int(np.clip(round(x), 1, side)) for x in (math.sqrt(area * aspect), math.sqrt(area / aspect))
    )
    return np.ones((height, width), dtype=bool)


def _scar(side: int, rng: np.random.Generator) -> Bool[np.ndarray, "a b"]:
    """A thin rectangle, long side up, turned by up to 45 degrees; never thinner than two pixels."""
    scale = side / PAPER_SIDE
    width, length = max(2.0, scale * rng.uniform(*SCAR_WIDTH)), max(4.0, scale * rng.uniform(*SCAR_LENGTH))
    angle = math.radians(rng.uniform(-SCAR_ANGLE, SCAR_ANGLE))
    corners = np.array([(-length, -width), (-length, width), (length, width), (length, -width)]) / 2
    turn = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    turned = corners @ turn.T
    turned -= turned.min(axis=0)
    height, across = (min(side, math.ceil(x) + 1) for x in turned.max(axis=0))
    return polygon2mask((height, across), turned)


def _paste(
    base: UInt8[np.ndarray, "h w 3"],
    source: UInt8[np.ndarray, "h w 3"],
    shape: Bool[np.ndarray, "a b"],
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """The shape's pixels from a random place of ``source``, relit, at a random place of ``base``."""
    free = np.array(base.shape[:2]) - shape.shape + 1
    (y, x), (v, u) = rng.integers(free), rng.integers(free)
    height, width = shape.shape
    patch = relight(source[v : v + height, u : u + width], rng, CONTRAST, BRIGHTNESS, TINT)
    pasted, mask = base.copy(), np.zeros(base.shape[:2], dtype=bool)
    mask[y : y + height, x : x + width] = shape
    pasted[mask] = np.round(patch[shape]).astype(np.uint8)
    return pasted, mask
