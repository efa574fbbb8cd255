"""CutPaste: a patch of a normal image, pasted elsewhere (Li et al., CVPR 2021, Sec. 2.2 and appendix A)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int, UInt8
from skimage.draw import polygon2mask

from cadiff.errors import CADiffError
from cadiff.pictures import is_grey
from cadiff.seeds import numpy_generator
from cadiff.synthesis.photometric import TRIES, Drawn, Images, is_visible, relight, without_colour

PAPER_SIDE = 256
AREA = (0.02, 0.15)  # of the image
ASPECT = 3.3  # at most, either way
SCAR_WIDTH, SCAR_LENGTH, SCAR_ANGLE = (2, 16), (10, 25), 45  # pixels of a picture whose shorter side has 256, degrees
CONTRAST, BRIGHTNESS, TINT = 0.1, 15.0, 10.0


def cutpaste(normals: Images, seed: int) -> Drawn:
    """A normal image with a rectangle or, as often, a thin rotated scar from another place of a normal image.

    Outside the mask the image is the normal image, bit for bit; a grey one stays grey. A patch that does not show is drawn again.

    Raises:
        CADiffError: if no patch shows after 50 draws.
    """
    rng = numpy_generator(seed, "cutpaste")
    which = int(rng.integers(len(normals)))
    base = normals[which]
    for _ in range(TRIES):
        source = normals[int(rng.integers(len(normals)))]
        room = np.minimum(base.shape[:2], source.shape[:2])
        shape = _scar(min(base.shape[:2]), room, rng) if rng.random() < 0.5 else _rectangle(base.shape[:2], room, rng)
        pasted, mask = _paste(base, source, shape, rng)
        if is_visible(base, pasted, mask):
            return Drawn(pasted, mask, which)
    raise CADiffError(f"cutpaste: no patch of {TRIES} shows; expected normal images that are not of one colour.")


def _rectangle(shape: tuple[int, ...], room: Int[np.ndarray, " 2"], rng: np.random.Generator) -> Bool[np.ndarray, "a b"]:
    """``shape`` is the image's, whose area counts; ``room`` the most rows and columns that there are in both images."""
    area = shape[0] * shape[1] * rng.uniform(*AREA)
    aspect = math.exp(rng.uniform(-math.log(ASPECT), math.log(ASPECT)))
    sides = np.array([math.sqrt(area * aspect), math.sqrt(area / aspect)])
    height, width = np.clip(np.round(sides).astype(int), 1, room)
    return np.ones((height, width), dtype=bool)


def _scar(side: int, room: Int[np.ndarray, " 2"], rng: np.random.Generator) -> Bool[np.ndarray, "a b"]:
    """A thin rectangle, long side up, turned by up to 45 degrees; never thinner than two pixels."""
    scale = side / PAPER_SIDE
    width, length = max(2.0, scale * rng.uniform(*SCAR_WIDTH)), max(4.0, scale * rng.uniform(*SCAR_LENGTH))
    angle = math.radians(rng.uniform(-SCAR_ANGLE, SCAR_ANGLE))
    corners = np.array([(-length, -width), (-length, width), (length, width), (length, -width)]) / 2
    turn = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    turned = corners @ turn.T
    turned -= turned.min(axis=0)
    height, across = (min(most, math.ceil(x) + 1) for x, most in zip(turned.max(axis=0), room.tolist(), strict=True))
    scar: np.ndarray = polygon2mask((height, across), turned)
    return scar


def _paste(
    base: UInt8[np.ndarray, "h w 3"],
    source: UInt8[np.ndarray, "v u 3"],
    shape: Bool[np.ndarray, "a b"],
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """The shape's pixels from a random place of ``source``, relit, at a random place of ``base``."""
    (y, x), (v, u) = (rng.integers(np.array(image.shape[:2]) - shape.shape + 1) for image in (base, source))
    height, width = shape.shape
    patch = relight(source[v : v + height, u : u + width], rng, CONTRAST, BRIGHTNESS, TINT)
    if is_grey(base):
        patch = without_colour(patch)
    pasted, mask = np.array(base), np.zeros(base.shape[:2], dtype=bool)
    mask[y : y + height, x : x + width] = shape
    pasted[mask] = np.round(patch[shape]).astype(np.uint8)
    return pasted, mask
