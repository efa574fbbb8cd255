"""Where the product is in a normal image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from cadiff.pictures import fitted, resize_picture

MODEST = 128  # px of the shorter side at which it is sought, at most: a product's outline is as plain there, and the cost is bounded
# CIELAB distances. Around 2.3 is just noticeable; a border within 10 of its median looks like one backdrop.
HOMOGENEOUS = 10.0
DIFFERENT = 10.0
DISTINCT = 25.0  # two colours of one product both count, however far apart they are from each other
BORDER = 1 / 32
# A product is more than a speck of its image, and leaves some backdrop; no other estimate is believed.
SHARES = (0.05, 0.95)
# A gap this small is a mark on the product that looks like the backdrop; a larger one is a bore, seen through.
FILLED = 0.03


def foreground(image: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """The product's pixels, True everywhere for a texture.

    An object stands before a homogeneous backdrop: most of the image's border has one colour, and what
    differs from it (Otsu's threshold on the CIELAB distance to the border's median, small holes filled) is
    the object. Where the border has many colours, or nothing or nearly all differs from it, the product fills the
    image. A picture larger than ``MODEST`` is looked at there, and what is found is scaled up.
    """
    shape = (image.shape[0], image.shape[1])
    if min(shape) <= MODEST:
        return _found(image)
    return scaled(_found(resize_picture(image, fitted(*shape, MODEST))), shape)


def scaled(
    mask: Bool[np.ndarray, "h w"], shape: tuple[int, int], box: tuple[int, int, int, int] | None = None
) -> Bool[np.ndarray, "h2 w2"]:
    """A mask at a larger shape, its outline smooth (linear); or the part of that in ``box`` (top, left, bottom, right) alone."""
    top, left, bottom, right = box or (0, 0, *shape)
    rows, columns = (
        (np.arange(start, end) + 0.5) * own / whole - 0.5
        for start, end, own, whole in zip((top, left), (bottom, right), mask.shape, shape, strict=True)
    )
    shares = _between(_between(mask.astype(np.float32), rows).T, columns).T
    return shares >= 0.5


def _between(values: Float[np.ndarray, "n m"], at: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k m"]:
    """Rows of ``values`` at places between them, linearly."""
    at = at.clip(0, len(values) - 1)
    below = np.minimum(at.astype(int), max(len(values) - 2, 0))
    share = (at - below).astype(np.float32)[:, None]
    between: np.ndarray = values[below] * (1 - share) + values[np.minimum(below + 1, len(values) - 1)] * share
    return between


def _found(image: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    distance = _distance_to_border(image)
    border = _border(distance)
    if np.quantile(border, 0.75) > HOMOGENEOUS or distance.max() < DIFFERENT:
        return np.ones(distance.shape, bool)
    threshold = threshold_otsu(np.minimum(distance, DISTINCT))
    differing = distance > max(threshold, float(np.quantile(border, 0.75)))
    solid: np.ndarray = ndimage.binary_closing(np.pad(differing, 2), iterations=2)[2:-2, 2:-2]
    solid = remove_small_holes(solid, max_size=round(FILLED * solid.size))
    solid = remove_small_objects(solid, max_size=int(0.005 * solid.size))
    contrast = distance[solid].mean() - distance[~solid].mean() if solid.any() and not solid.all() else 0.0
    if contrast < DIFFERENT or not SHARES[0] <= solid.mean() <= SHARES[1]:
        return np.ones(distance.shape, bool)
    return solid


def _distance_to_border(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    lab = ndimage.gaussian_filter(rgb2lab(image), (1, 1, 0))
    median = np.median(np.stack([_border(lab[..., channel]) for channel in range(3)], -1), axis=0)
    distance: np.ndarray = np.linalg.norm(lab - median, axis=-1)
    return distance


def _border(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " n"]:
    width = max(1, round(min(values.shape) * BORDER))
    inner = np.zeros(values.shape, bool)
    inner[width:-width, width:-width] = True
    return values[~inner]
