"""Where the product is in a normal image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

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
    image.
    """
    distance = _distance_to_border(image)
    border = _border(distance)
    if np.quantile(border, 0.75) > HOMOGENEOUS or distance.max() < DIFFERENT:
        return np.ones(distance.shape, bool)
    threshold = threshold_otsu(np.minimum(distance, DISTINCT))
    differing = distance > max(threshold, float(np.quantile(border, 0.75)))
    solid = ndimage.binary_closing(np.pad(differing, 2), iterations=2)[2:-2, 2:-2]
    solid = remove_small_holes(solid, max_size=round(FILLED * solid.size))
    solid = remove_small_objects(solid, max_size=int(0.005 * solid.size))
    contrast = distance[solid].mean() - distance[~solid].mean() if solid.any() and not solid.all() else 0.0
    if contrast < DIFFERENT or not SHARES[0] <= solid.mean() <= SHARES[1]:
        return np.ones(distance.shape, bool)
    return solid


def _distance_to_border(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    lab = ndimage.gaussian_filter(rgb2lab(image), (1, 1, 0))
    median = np.median(np.stack([_border(lab[..., channel]) for channel in range(3)], -1), axis=0)
    return np.linalg.norm(lab - median, axis=-1)


def _border(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " n"]:
    width = max(1, round(min(values.shape) * BORDER))
    inner = np.zeros(values.shape, bool)
    inner[width:-width, width:-width] = True
    return values[~inner]
