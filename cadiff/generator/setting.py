"""What a scene is set in, what its drawing starts from, and how what was drawn is set in."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import fft, ndimage

from cadiff.generator.windows import Window
from cadiff.masks.shapes import move_picture
from cadiff.params import Params
from cadiff.pictures import MEMORY, Picture, read_picture
from cadiff.records import SampleRow
from cadiff.scene import Anomaly, Scene

WHITE = 250.0  # grey levels, beyond which a picture is overexposed
TEXTURED = 6.0  # px into a mask from its edge, over which what lies around it, mirrored, gives way to its smooth continuation
FELT = 1.5  # pixels of the base, over whose mean something is taken for drawn
OWN = 2.0  # robust deviations of the picture's own variation, up to which a change is none
SEEN = 2.0  # grey levels, the same on an even picture
QUIET = 3.0  # robust deviations, beyond which the residual is an edge and no grain
KEPT = 4  # pictures at least, whatever their size
GRAIN_SIDE = 256  # px of the patch of grain that is made; it repeats, without a seam

Read = Callable[[SampleRow], Picture]


def reader(params: Params) -> Read:
    """Samples at the canvas; of the last ones, as many as ``MEMORY`` holds, none is decoded twice."""
    size = params.dataset.size
    kept = KEPT if size == "native" else min(max(KEPT, MEMORY // (6 * size**2)), 256)  # 4 bytes a pixel, half as wide again as high
    return lru_cache(maxsize=kept)(lambda row: read_picture(row, params.dataset.size))


def picture_of(scene: Scene, params: Params, read: Read) -> UInt8[np.ndarray, "h w 3"] | None:
    """The real picture that a scene is set in; None where all of it is generated.

    For an anomaly that stays in its exemplar's picture it is that one, in the light of the scene's normal where ``train.exposure`` asks
    for it, without its own anomaly.
    """
    if scene.picture is None:
        return None
    image, mask = read(scene.picture)
    if scene.edits or scene.picture.mask_path is None:
        return image
    return remove_defect(match_exposure(image, mask, scene, params, read), mask)


def match_exposure(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], scene: Scene, params: Params, read: Read
) -> UInt8[np.ndarray, "h w 3"]:
    """An exemplar's picture as bright as the scene's normal, where ``train.exposure`` asks for it; what the mask covers does not count."""
    return lit(image, light_of(image, mask, scene, params, read))


def light_of(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], scene: Scene, params: Params, read: Read) -> float | None:
    """The gain by which ``match_exposure`` makes an exemplar's picture brighter; None: it stays as it is."""
    if params.train.exposure != "normals" or scene.normal is None or mask.all():
        return None
    return exposure_gain(image, mask, read(scene.normal).image)


def lit(pixels: UInt8[np.ndarray, "h w 3"], gain: float | None) -> UInt8[np.ndarray, "h w 3"]:
    """Brighter by a gain; what goes beyond white is white."""
    return pixels if gain is None else (pixels * np.float32(gain)).clip(0, 255).round().astype(np.uint8)


def exposure_gain(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], like: UInt8[np.ndarray, "h2 w2 3"]) -> float:
    """The gain that makes ``image`` as bright on average, outside of its mask, as ``like``: an anomaly is no part of the light.

    No more than leaves it its highlights: a hundredth of it may become white. A few thousand pixels of each say so; a canvas has millions.
    """
    (image, mask), like = ((values[:: _step(values), :: _step(values)] for values in (image, mask)), like[:: _step(like), :: _step(like)])
    if mask.all():
        return 1.0
    most = WHITE / max(float(np.quantile(image[~mask], 0.99)), 1.0)
    return min(float(like.mean()) / max(float(image[~mask].mean()), 1.0), max(most, 1.0))


def _step(values: np.ndarray) -> int:
    return max(1, int(min(values.shape[:2])) // 128)


def remove_defect(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as it may have been without what is under the mask: by its edge what lies around it, mirrored, so that it keeps its
    grain and meets its surroundings without a step; deeper inside their smooth continuation, with their grain.

    Where the mirror shows more of the mask or lies beyond the picture, it is the nearest pixel outside.
    """
    if not mask.any() or mask.all():
        return image
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    reach = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 2  # what is mirrored lies within it
    window = tuple(slice(max(0, int(found[0]) - reach), int(found[-1]) + 1 + reach) for found in (rows, columns))
    near, inside = image[window], mask[window]
    if inside.all():
        near, inside, window = image, mask, (slice(None), slice(None))
    depth, nearest = ndimage.distance_transform_edt(inside, return_indices=True)
    mirrored = 2 * nearest - np.indices(inside.shape)
    edge = np.array(inside.shape)[:, None, None] - 1
    within = ((mirrored >= 0) & (mirrored <= edge)).all(0)
    row, column = mirrored.clip(0, edge)
    seen = within & ~inside[row, column]
    row, column = np.where(seen, row, nearest[0]), np.where(seen, column, nearest[1])
    folded = near[row, column].astype(np.float32)
    lost = folded - ndimage.gaussian_filter(folded, (2, 2, 0))
    even = ndimage.gaussian_filter(continued(near.astype(np.float32), inside), (2, 2, 0)) + grain(lost, np.random.default_rng(0))
    share = np.exp(-((depth / TEXTURED) ** 2))[..., None]
    filled = (share * folded + (1 - share) * even).clip(0, 255).round().astype(np.uint8)
    result = image.copy()
    result[window] = np.where(inside[..., None], filled, near)
    return result


def continued(values: Float[np.ndarray, "h w c"], inside: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w c"]:
    """What is outside, continued smoothly into a mask: means of 2 x 2 pixels, halved until none is inside, are brought back level by
    level (Gortler et al., "The Lumigraph", SIGGRAPH 1996, pull-push)."""
    if not inside.any() or min(inside.shape) < 2 or inside.all():
        return values
    height, width = (-(-length // 2) for length in inside.shape)
    padded = np.pad(values, ((0, 2 * height - len(values)), (0, 2 * width - values.shape[1]), (0, 0)), "edge")
    weight = np.pad(~inside, ((0, 2 * height - len(values)), (0, 2 * width - values.shape[1]))).astype(np.float32)
    cells = weight.reshape(height, 2, width, 2).sum((1, 3))
    sums = (padded * weight[..., None]).reshape(height, 2, width, 2, -1).sum((1, 3))
    coarse = continued(sums / np.maximum(cells, 1)[..., None], cells == 0)
    fine = enlarged(coarse, (2 * height, 2 * width))[: len(values), : values.shape[1]]
    return np.where(inside[..., None], fine, values)


def paste_exemplars(
    image: UInt8[np.ndarray, "h w 3"], window: Window, scene: Scene, params: Params, read: Read, blend: float = 0.0
) -> UInt8[np.ndarray, "h w 3"]:
    """A window of the picture with each anomaly's exemplar in its mask, w times as far from what was there as it is (below 0 as 0).

    So the start follows the intensity as the attention does (Eq. 11): 0 leaves the picture, 1 is the exemplar. Every anomaly has one.
    Beyond a mask its exemplar's surroundings fade out over ``blend`` px.
    """
    pasted = window.of(image).astype(np.float32)
    for anomaly in scene.anomalies:
        inside = window.shown(anomaly.outline)
        if inside.any():
            pixels = exemplar_pixels(anomaly, window, scene, params, read)
            share = fading(inside, blend).astype(np.float32) if blend else inside
            pasted = pasted + share[..., None] * (max(anomaly.intensity, 0.0) * (pixels - pasted))
    return pasted.clip(0, 255).round().astype(np.uint8)


def exemplar_pixels(
    anomaly: Anomaly, window: Window, scene: Scene, params: Params, read: Read
) -> Float[np.ndarray, "h w 3"]:
    """An anomaly's exemplar where its mask has it, in a window of the scene's canvas; in the light of the picture around it."""
    assert anomaly.exemplar is not None
    image, mask = read(anomaly.exemplar)
    gain = light_of(image, mask, scene, params, read)
    if anomaly.movement is None:
        return lit(window.of(image), gain).astype(np.float32)
    box = (window.top, window.left, window.top + window.height, window.left + window.width)
    return move_picture(image, mask, anomaly.movement, anomaly.outline.canvas, box, partial(lit, gain=gain))


def has_exemplars(scene: Scene) -> bool:
    return all(anomaly.exemplar is not None for anomaly in scene.anomalies)


def set_in(
    around: UInt8[np.ndarray, "h w 3"], drawn: Float[np.ndarray, "s s 3"], known: Float[np.ndarray, "s s 3"],
    part: Bool[np.ndarray, "h w"], blend: float, rng: np.random.Generator, start: UInt8[np.ndarray, "h w 3"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:  # fmt: skip
    """A window of the picture with what was drawn in ``part``, fading over ``blend`` px into what it started from; beyond that
    ``around``, byte for byte.

    ``drawn`` is what the base made of the window (grey levels), ``known`` what its autoencoder makes of what the drawing started from:
    ``start``, or where that is None ``around``. Where the two differ by no more than the picture's own grain would, nothing was drawn
    (``changed``), and what it started from is kept pixel by pixel. Where something was, what scaling and codec took is given back as
    grain alone (``grain``): an edge that was there before would stand embossed in what is there now.
    """
    shape = around.shape[:2]
    share = fading(part, blend)[..., None]
    if not share.any():
        return around
    scale = max(shape) / len(drawn)
    drawn, known = enlarged(drawn, shape), enlarged(known, shape)
    begun = (around if start is None else start).astype(np.float32)
    new = changed(drawn - known, begun, scale)[..., None]
    mixed = np.clip(begun + share * new * (drawn + grain(begun - known, rng) - begun), 0, 255).round().astype(np.uint8)
    return np.where(share > 0, mixed, around)


def changed(difference: Float[np.ndarray, "h w 3"], picture: Float[np.ndarray, "h w 3"], scale: float) -> Float[np.ndarray, "h w"]:
    """How far each pixel was drawn anew, 0 to 1: by the difference's means over a pixel and a half of the base (``scale`` px each), their
    root mean square around it, against what the picture itself varies by at that size (robustly: an edge is no grain)."""
    width = FELT * scale
    means = ndimage.gaussian_filter(difference, (width, width, 0))
    felt = np.sqrt(ndimage.gaussian_filter((means**2).mean(-1), 2 * width))
    even = ndimage.gaussian_filter(picture, (width, width, 0))
    varies = 1.4826 * float(np.median(np.abs(even - ndimage.gaussian_filter(even, (4 * width, 4 * width, 0)))))
    share: np.ndarray = 1 - np.exp(-((felt / max(SEEN, OWN * varies)) ** 4))
    return share


def fading(part: Bool[np.ndarray, "h w"], blend: float) -> Float[np.ndarray, "h w"]:
    """1 in the mask, falling to 0 over ``blend`` px outside of it; with 0 px the mask alone."""
    if not part.any():
        return np.zeros(part.shape)
    distance = ndimage.distance_transform_edt(~part)
    return np.where(distance <= blend, 1 - distance / (blend + 1), 0.0)


def enlarged(values: Float[np.ndarray, "s s 3"], shape: tuple[int, int]) -> Float[np.ndarray, "h w 3"]:
    """Grey levels brought to a window's own size (cubic splines; the same values where the size is the same)."""
    if values.shape[:2] == shape:
        return values
    channels = [Image.fromarray(np.ascontiguousarray(values[..., c], np.float32)) for c in range(values.shape[2])]
    return np.stack([np.asarray(channel.resize(shape[::-1], Image.Resampling.BICUBIC)) for channel in channels], -1)


def grain(lost: Float[np.ndarray, "h w 3"], rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Noise with the spectrum and the deviation of a residual's grain, and none of its edges.

    Random phase noise (Galerne, Gousseau and Morel, "Random Phase Textures", IEEE TIP 2011): the residual's Fourier moduli with random
    phases, the same for all channels, so that a grey picture's stays grey. What is beyond ``QUIET`` robust deviations is left out first,
    with what is next to it (merely cut off at them, an edge becomes stripes all over), and the deviation is the robust one: most of a
    window is no edge.
    """
    height, width = lost.shape[:2]
    side = (min(height, GRAIN_SIDE), min(width, GRAIN_SIDE))
    top, left = (height - side[0]) // 2, (width - side[1]) // 2
    patch = lost[top : top + side[0], left : left + side[1]]
    deviation = 1.4826 * np.median(np.abs(patch - np.median(patch, axis=(0, 1))), axis=(0, 1))
    if not deviation.any():
        return np.zeros_like(lost)
    centred = patch - np.median(patch, axis=(0, 1))
    quiet = np.where(ndimage.maximum_filter(np.abs(centred), (3, 3, 1)) > QUIET * deviation, 0.0, centred)
    quiet = quiet - quiet.mean(axis=(0, 1))
    phases = np.exp(1j * np.angle(fft.rfft2(rng.standard_normal(side))))
    made = fft.irfft2(np.abs(fft.rfft2(quiet, axes=(0, 1))) * phases[..., None], side, axes=(0, 1))
    made *= deviation / np.maximum(made.std(axis=(0, 1)), 1e-6)
    repeats = (-(-height // side[0]), -(-width // side[1]), 1)
    return np.tile(made, repeats)[:height, :width]
