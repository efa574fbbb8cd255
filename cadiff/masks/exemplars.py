"""Synthesis masks from exemplars' masks, placed on the product of a real normal image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from cadiff.masks.foreground import foreground
from cadiff.masks.registration import WORKING_SIDE, Registration, register
from cadiff.masks.shapes import Spread, Transform, apply_transform, draw_transform, fit_spread, unmoved
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.storage import read_image

TRIES = 128
NEAR = 1 / 32  # of the side
SAME_PART = 0.75  # correlation below which two registered pictures are not of one part
UNTURNED = Registration(0.0, (0.0, 0.0), 1.0)
PLACED = "exemplars"
UNMOVED = "exemplars, unmoved"
IN_PLACE = "exemplars, in place"


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


class ProductFinder:
    """Where the product is in image files; what was found in a file is kept, however many masks are tried on it."""

    def __init__(self, side: int) -> None:
        self._foreground = lru_cache(maxsize=1024)(lambda path: foreground(read_image(path, "RGB", side)))
        self._small = lru_cache(maxsize=4096)(lambda path: read_image(path, "RGB", WORKING_SIDE))
        self._pose = lru_cache(maxsize=None)(
            lambda path, mask_path, onto: register(self._small(path), exemplar_mask(mask_path, WORKING_SIDE), self._small(onto))
        )

    def foreground(self, image_path: str) -> Bool[np.ndarray, "side side"]:
        return self._foreground(image_path)

    def pose(self, exemplar: SampleRow, onto: SampleRow) -> Registration:
        """How the part lies in ``onto`` against an exemplar's picture, whose anomaly does not count."""
        return self._pose(exemplar.image_path, str(exemplar.mask_path), onto.image_path)


def exemplar_mask(mask_path: str, side: int) -> Bool[np.ndarray, "side side"]:
    """Unchecked: its sample was checked as it was read, and a small one may vanish at another side."""
    return read_image(mask_path, "L", side) > 0


def near_edge(mask: Bool[np.ndarray, "side side"], product: Bool[np.ndarray, "side side"]) -> float:
    """The share of a mask's pixels that lie within ``NEAR`` of the side of the product's edge; the image's border is none."""
    if product.all():
        return 0.0
    return float((ndimage.distance_transform_edt(product)[mask] <= NEAR * len(mask)).mean())


def _on_one_part(
    masks: list[Bool[np.ndarray, "side side"]], poses: Sequence[Registration]
) -> list[Bool[np.ndarray, "side side"]]:
    """The masks laid onto one picture's part, for what they are spread there is the anomaly's own and not the part's poses.
    One that this moves out of the picture is left where it is."""
    laid = [apply_transform(mask, pose.move(unmoved(mask), len(mask)), goes_on=False) for mask, pose in zip(masks, poses, strict=True)]
    return [moved if moved.any() else mask for moved, mask in zip(laid, masks, strict=True)]


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
        self, exemplars: Sequence[SampleRow], normals: Sequence[SampleRow], find: ProductFinder, params: Params
    ) -> None:
        self.exemplars, self.normals, self.find, self.params = exemplars, normals, find, params.masks
        self.masks = [exemplar_mask(str(row.mask_path), params.base.size) for row in exemplars]
        poses = [find.pose(row, exemplars[0]) if params.masks.registered else UNTURNED for row in exemplars]
        poses = [pose if pose.likeness >= SAME_PART else UNTURNED for pose in poses]
        self.turns = [pose.turn for pose in poses]
        self.spread: Spread = fit_spread(_on_one_part(self.masks, poses), params.masks.spread)
        inside = [
            find.foreground(row.image_path)[mask].mean() >= 0.5 for row, mask in zip(exemplars, self.masks, strict=True)
        ]
        self.on_product = 2 * sum(inside) >= len(inside)
        # A texture has no edge, whatever a stain looks like; and what a defect took from the product was a part of it.
        textured = np.mean([find.foreground(row.image_path).all() for row in normals[:TRIES]]) > 0.5
        self.near = [
            0.0 if textured else near_edge(mask, find.foreground(row.image_path) | mask)
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
            transform = draw_transform(mask, self.spread, rng, self.turns[index])
            if self.params.registered:
                pose = self.find.pose(self.exemplars[index], normal)
                if pose.likeness < SAME_PART:
                    continue
                transform = pose.move(transform, len(mask))
            # what a border cut stays at it, or nobody knows what of it comes into the picture
            moved = apply_transform(mask, transform, goes_on=not self.params.registered)
            if self.on_product:
                product = self.find.foreground(normal.image_path)
                moved &= product
                if not moved.any() or abs(near_edge(moved, product) - self.near[index]) > self.params.edge:
                    continue
            if self._accepts(moved, mask.sum() * transform.scale**2):
                return Placed(moved, PLACED, exemplar_id, normal.sample_id, transform)
        return Placed(mask, UNMOVED, exemplar_id, normal.sample_id)

    def _accepts(self, mask: Bool[np.ndarray, "side side"], area: float) -> bool:
        """Whether enough is left of a mask of ``area`` pixels after border and foreground have cut it.

        A mask with a pixel has a cell at any attention resolution, so that no other test is needed for that.
        """
        left = int(mask.sum())
        large_enough = left >= max(1, self.params.min_area * mask.size)
        return large_enough and area - left <= self.params.max_cut * area
