"""Synthesis masks from exemplars' masks, placed on the product of a real normal image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from cadiff.masks.foreground import foreground
from cadiff.masks.registration import Registration, register
from cadiff.masks.shapes import Spread, Transform, apply_transform, draw_transform, fit_spread
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.storage import read_image

TRIES = 128
NEAR = 1 / 32  # of the side
SAME_PART = 0.6  # correlation below which two registered pictures are not of one part
PLACED = "exemplars"
UNMOVED = "exemplars, unmoved"
IN_PLACE = "exemplars, in place"
FindProduct = Callable[[str], Bool[np.ndarray, "side side"]]


@dataclass(frozen=True)
class Placed:
    """A mask with the exemplar whose shape it has, what was done to that one, and the normal that it was placed on.

    ``source`` IN_PLACE: it lies as in its exemplar's picture, and the normal is no more than the light to see it in.
    """

    mask: Bool[np.ndarray, "side side"]
    source: str
    exemplar_id: str
    normal_id: str
    transform: Transform | None = None


def product_finder(side: int) -> FindProduct:
    """``foreground`` of image files; a file is read once however many masks are tried on it."""
    return lru_cache(maxsize=1024)(lambda image_path: foreground(read_image(image_path, "RGB", side)))


def near_edge(mask: Bool[np.ndarray, "side side"], product: Bool[np.ndarray, "side side"]) -> float:
    """The share of a mask's pixels that lie within ``NEAR`` of the side of the product's edge; the image's border is none."""
    if product.all():
        return 0.0
    return float((ndimage.distance_transform_edt(product)[mask] <= NEAR * len(mask)).mean())


class ExemplarMasks:
    """One anomaly type's exemplar masks, ready to draw from.

    With ``masks.registered`` a mask first moves as the part does from its exemplar's picture to the normal's: a defect that has
    its place on a part, as a missing pin, keeps it however the part lies.

    ``on_product`` says whether masks keep to the foreground: not if most of the exemplars' own masks lie
    outside it, as where something is missing or lies beside the product. Those that do also keep their exemplar's relation to
    the product's edge (``masks.edge``): ``near`` are the shares of the exemplars' masks that lie by it, large for a chip in the rim
    and 0 for a dent in the middle. Else an edge that cuts whatever is placed over it brings dents to where no real one is.
    """

    def __init__(
        self, exemplars: Sequence[SampleRow], normals: Sequence[SampleRow], find: FindProduct, params: Params
    ) -> None:
        self.exemplars, self.normals, self.find, self.params = exemplars, normals, find, params.masks
        self.masks = [read_image(str(row.mask_path), "L", params.base.size) > 0 for row in exemplars]
        self.poses: dict[tuple[int, str], Registration] = {}
        self.spread: Spread = fit_spread(self.masks, params.masks.spread)
        inside = [
            find(row.image_path)[mask].mean() >= 0.5 for row, mask in zip(exemplars, self.masks, strict=True)
        ]
        self.on_product = 2 * sum(inside) >= len(inside)
        # A texture has no edge, whatever a stain looks like; and what a defect took from the product was a part of it.
        textured = np.mean([find(row.image_path).all() for row in normals[:TRIES]]) > 0.5
        self.near = [
            0.0 if textured else near_edge(mask, find(row.image_path) | mask)
            for row, mask in zip(exemplars, self.masks, strict=True)
        ]

    def draw(self, rng: np.random.Generator) -> Placed:
        """One mask. After ``TRIES`` rejected placements it is the exemplar's own, unmoved, and says so."""
        index = int(rng.integers(len(self.exemplars)))
        mask, exemplar_id = self.masks[index], self.exemplars[index].sample_id
        if self.params.in_place and rng.random() < self.params.in_place:
            return Placed(mask, IN_PLACE, exemplar_id, self.normals[int(rng.integers(len(self.normals)))].sample_id)
        for _ in range(TRIES):
            normal = self.normals[int(rng.integers(len(self.normals)))]
            transform = draw_transform(mask, self.spread, rng)
            if self.params.registered:
                pose = self._pose(index, normal)
                if pose.likeness < SAME_PART:
                    continue
                transform = pose.move(transform, len(mask))
            moved = apply_transform(mask, transform)
            if self.on_product:
                product = self.find(normal.image_path)
                moved &= product
                if not moved.any() or abs(near_edge(moved, product) - self.near[index]) > self.params.edge:
                    continue
            if self._accepts(moved, mask.sum() * transform.scale**2):
                return Placed(moved, PLACED, exemplar_id, normal.sample_id, transform)
        return Placed(mask, UNMOVED, exemplar_id, normal.sample_id)

    def _pose(self, index: int, normal: SampleRow) -> Registration:
        """How the part lies in a normal against an exemplar's; found once for each pair."""
        key = (index, normal.image_path)
        if key not in self.poses:
            pictures = [read_image(row.image_path, "RGB", len(self.masks[index])) for row in (self.exemplars[index], normal)]
            self.poses[key] = register(pictures[0], self.masks[index], pictures[1])
        return self.poses[key]

    def _accepts(self, mask: Bool[np.ndarray, "side side"], area: float) -> bool:
        """Whether enough is left of a mask of ``area`` pixels after border and foreground have cut it.

        A mask with a pixel has a cell at any attention resolution, so that no other test is needed for that.
        """
        left = int(mask.sum())
        large_enough = left >= max(1, self.params.min_area * mask.size)
        return large_enough and area - left <= self.params.max_cut * area
