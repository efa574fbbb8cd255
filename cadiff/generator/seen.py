"""The second look at what was drawn: whether what a scene asks for is there, and fills its masks."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, UInt8

from cadiff.generator.setting import Read, changed, remove_defect
from cadiff.generator.windows import box_of
from cadiff.masks.foreground import foreground
from cadiff.params import Params
from cadiff.pictures import resize_mask, resize_picture
from cadiff.records import SampleRow
from cadiff.scene import Anomaly, Scene

VISIBLE = 2.0  # grey levels: what changed less than this under its mask, on average, is not seen
INTENDED = 0.5  # w from which an anomaly is meant to be seen
FILLED = 0.9  # of the share of its mask that an exemplar fills: what is drawn in its place fills at least so much
AROUND = 0.5  # of a mask's extent, on each side, from which it is told what a picture varies by
LOOKED_AT = 256  # px of the longer side at which that is told: it must not cost more on a larger canvas


def fulfilled(scene: Scene, original: UInt8[np.ndarray, "h w 3"] | None, image: UInt8[np.ndarray, "h w 3"], params: Params, read: Read,
              from_noise: bool) -> float:  # fmt: skip
    """How far a drawing has what its scene asks for, 0 to 1; at 1 it is not drawn again.

    Where a picture is kept (``original``), each anomaly with w of at least ``INTENDED`` is to be seen, and one that was drawn
    ``from_noise`` is to fill its mask as its exemplar fills its own (``filled``): a detector takes what is marked for the anomaly. Of one
    that started from its exemplar other noise would change little of that. Where no picture is kept, the masks are to lie on the product
    that was drawn.
    """
    if original is None:
        return 0.0 if lies_beside(scene, image, params, read) else 1.0
    if not scene.named or scene.edits or params.generate.blend is None:
        return 1.0
    found = [1.0]
    for anomaly in scene.anomalies:
        if anomaly.intensity < INTENDED or not anomaly.outline.area:
            continue
        outline = anomaly.outline
        before, after = (picture[outline.where][outline.crop].astype(np.int16) for picture in (original, image))
        found.append(float(np.abs(after - before).mean()) / VISIBLE)
        if from_noise and anomaly.exemplar is not None:
            found.append(filled(original, image, anomaly, read))
    return min(found)


def filled(original: UInt8[np.ndarray, "h w 3"], image: UInt8[np.ndarray, "h w 3"], anomaly: Anomaly, read: Read) -> float:
    """The share of its mask that an anomaly fills over what is asked of it: ``FILLED`` of what its exemplar fills of its own mask, and of
    a fainter one (w below 1) w times that."""
    assert anomaly.exemplar is not None
    asked = FILLED * _of_exemplar(anomaly.exemplar, read) * min(anomaly.intensity, 1.0)
    return covered(original, image, anomaly.outline.whole) / asked if asked > 0 else 1.0


def _of_exemplar(row: SampleRow, read: Read) -> float:
    image, mask = read(row)
    return covered(remove_defect(image, mask), image, mask) if mask.any() and not mask.all() else 0.0


def covered(
    before: UInt8[np.ndarray, "h w 3"], after: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> float:
    """The share of a mask's pixels, at least one, in which two pictures differ by more than the first varies there (``changed``)."""
    top, left, bottom, right = box_of(mask)
    margin = math.ceil(AROUND * max(bottom - top, right - left))
    near = np.s_[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin]
    before, after, mask = before[near], after[near], mask[near]
    longer = max(mask.shape)
    if longer > LOOKED_AT:
        shape = (max(1, mask.shape[0] * LOOKED_AT // longer), max(1, mask.shape[1] * LOOKED_AT // longer))
        before, after, mask = resize_picture(before, shape), resize_picture(after, shape), resize_mask(mask, shape, "any")
    was = before.astype(np.float32)
    return float((changed(after - was, was, 1.0) > 0.5)[mask].mean())


def lies_beside(scene: Scene, image: UInt8[np.ndarray, "h w 3"], params: Params, read: Read) -> bool:
    """Whether more of a mask than ``masks.max_cut`` lies off the product that was drawn: masks are placed on a normal of which nothing is
    kept, and what is drawn may stand elsewhere. Of an exemplar's mask what counts is how much of it lies on its own product: where a part
    is missing it may be none."""
    product = foreground(image)

    def on(mask: Bool[np.ndarray, "h w"], there: Bool[np.ndarray, "h w"]) -> float:
        return float(there[mask].mean()) if mask.any() else 1.0

    for anomaly in scene.anomalies:
        wanted = 1.0
        if anomaly.exemplar is not None:
            exemplar, mask = read(anomaly.exemplar)
            wanted = on(mask, foreground(exemplar))
        if on(anomaly.outline.whole, product) < (1 - params.masks.max_cut) * wanted:
            return True
    return False
