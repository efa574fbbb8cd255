"""NSA: a patch of another normal image, resized and blended in without a seam.

Schlüter et al., "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization" (ECCV 2022), Sec. 3.
Blending is Pérez et al.'s "Poisson Image Editing" (SIGGRAPH 2003), Eq. 5: inside the patch the image has the source's
Laplacian, on its border the target's pixels. A patch is a rectangle, so the sine transform solves that exactly.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from PIL import Image
from scipy import fft, ndimage

from cadiff.errors import CADiffError
from cadiff.masks.foreground import foreground
from cadiff.pictures import fitted, is_grey, resize_mask, resize_picture
from cadiff.seeds import numpy_generator
from cadiff.synthesis.photometric import MIN_DIFFERENCE, TRIES, Drawn, Images, is_visible, without_colour

SHAPE, SCALE = 2.0, 0.1  # of the gamma distribution that a side is drawn from, as a share of the image's
SIDE = (0.06, 0.4)  # and its limits
RESIZE = (0.7, 1.3)
MOST = 3  # patches
ON_OBJECT = 0.25  # of a patch, at its source and at its place
MIN_AREA = 0.0005  # of the image
SEEN = 256  # pixels of the shorter side at which the product is told from its backdrop


def nsa(normals: Images, seed: int) -> Drawn:
    """A normal image with one to three blended patches of another; the mask is where they changed it visibly.

    Of a single normal image the patches are its own. Outside the mask the image is the normal image, bit for bit; a grey one
    stays grey. Patches that do not show are drawn again.

    Raises:
        CADiffError: if nothing shows after 50 draws.
    """
    rng = numpy_generator(seed, "nsa")
    which, other = (int(index) for index in rng.choice(len(normals), 2, replace=len(normals) < 2))
    base, source = normals[which], normals[other]
    if is_grey(base):
        source = without_colour(source).round().astype(np.uint8)
    objects = on_object(base), on_object(source)
    for _ in range(TRIES):
        image = base.astype(float)
        for _ in range(rng.integers(1, MOST + 1)):
            image = _with_patch(image, source, objects, rng)
        changed = np.abs(image - base).mean(axis=2) > MIN_DIFFERENCE
        mask = ndimage.binary_opening(changed, np.ones((2, 2)))  # rounding leaves lone pixels
        result = np.where(mask[..., None], np.round(image), base).astype(np.uint8)
        if mask.mean() >= MIN_AREA and is_visible(base, result, mask):
            return Drawn(result, mask, which)
    raise CADiffError(f"nsa: no patch of {TRIES} shows; expected normal images that differ or are not of one colour.")


def on_object(image: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """The product's pixels, found in at most ``SEEN`` px of the shorter side: the cost does not grow with the canvas."""
    height, width = image.shape[:2]
    seen = resize_picture(image, fitted(height, width, min(SEEN, height, width)))
    return resize_mask(foreground(seen), (height, width), "half")


def _with_patch(
    image: Float[np.ndarray, "h w 3"],
    source: UInt8[np.ndarray, "v u 3"],
    objects: tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "v u"]],
    rng: np.random.Generator,
) -> Float[np.ndarray, "h w 3"]:
    """One more patch; the image as it is where no place on the object is found."""
    sides, theirs = np.array(image.shape[:2]), np.array(source.shape[:2])
    for _ in range(TRIES):
        cut = np.maximum(3, np.round(theirs * np.clip(rng.gamma(SHAPE, SCALE, 2), *SIDE))).astype(int)
        size = np.clip(np.round(cut * rng.uniform(*RESIZE)), 3, sides).astype(int)
        (v, u), (y, x) = rng.integers(theirs - cut + 1), rng.integers(sides - size + 1)
        taken = (slice(v, v + cut[0]), slice(u, u + cut[1]))
        place = (slice(y, y + size[0]), slice(x, x + size[1]))
        if min(objects[0][place].mean(), objects[1][taken].mean()) >= ON_OBJECT:
            patch = Image.fromarray(source[taken]).resize((int(size[1]), int(size[0])), Image.Resampling.BILINEAR)
            result = image.copy()
            result[place] = np.clip(blend(image[place], np.asarray(patch)), 0, 255)
            return result
    return image


def blend(target: Num[np.ndarray, "h w 3"], source: Num[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """The function that has ``source``'s five-point Laplacian inside and ``target``'s values on the border pixels.

    What is added to the source is harmonic: its border is target - source, and the sine transform (type I) of the
    inside diagonalises the Laplacian.
    """
    source = source.astype(float)
    difference = target.astype(float) - source
    height, width = difference.shape[0] - 2, difference.shape[1] - 2
    inner = np.zeros((height, width, difference.shape[2]))
    inner[0] += difference[0, 1:-1]
    inner[-1] += difference[-1, 1:-1]
    inner[:, 0] += difference[1:-1, 0]
    inner[:, -1] += difference[1:-1, -1]
    rows = 2 - 2 * np.cos(np.pi * np.arange(1, height + 1) / (height + 1))
    columns = 2 - 2 * np.cos(np.pi * np.arange(1, width + 1) / (width + 1))
    eigenvalues = (rows[:, None] + columns[None, :])[..., None]
    harmonic = fft.idstn(fft.dstn(inner, type=1, axes=(0, 1)) / eigenvalues, type=1, axes=(0, 1))
    result: np.ndarray = source + difference  # the border is the target's
    result[1:-1, 1:-1] = source[1:-1, 1:-1] + harmonic
    return result
