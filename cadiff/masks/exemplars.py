"""One anomaly type's exemplars, and the rules by which a mask is drawn from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from cadiff.masks.finder import Finder
from cadiff.masks.foreground import scaled
from cadiff.masks.registration import Registration
from cadiff.masks.search import FREEDOMS, Context, Found
from cadiff.masks.shapes import Spread, draw_movement, fit_spread, move_outline, unmoved
from cadiff.params import MaskParams
from cadiff.records import SampleRow
from cadiff.scene import Anomaly, Movement, Outline

TRIES = 128
NORMALS = 4  # that are looked at for a mask by context: where three of four fit, one mask in 250 finds none
NEAR = 1 / 32  # of the shorter side
MIN_AREA = 0.0005  # of the picture: smallest accepted mask
EDGE = 0.1  # most that the share of a mask that lies by the product's edge may differ from its exemplar's
SAME_PART = 0.75  # correlation below which two registered pictures are not of one part
WHOLE = 0.4  # of the product, from which an anomaly is the product itself: nothing surrounds it that says where it may be
UNTURNED = Registration(0.0, (0.0, 0.0), 1.0)
BY_CONTEXT = "exemplars, by context"
ANYWHERE = "exemplars, anywhere"
ON_PART = "exemplars, on the part"
IN_PLACE = "exemplars, in place"


@dataclass(frozen=True)
class Placed:
    """A mask at the canvas of ``picture``, with the exemplar whose shape it has and what was done to that one.

    ``picture`` is the normal that it was placed on; with ``source`` IN_PLACE the exemplar's own, and ``normal`` no more than the light
    to see it in.
    """

    outline: Outline
    source: str
    exemplar: SampleRow | None
    movement: Movement | None
    picture: SampleRow
    normal: SampleRow

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """On the canvas."""
        return self.outline.whole

    def anomaly(self, anomaly_type: str, intensity: float) -> Anomaly:
        """What it is to be the mask of."""
        return Anomaly(anomaly_type, self.outline, intensity, self.source, self.exemplar, self.movement)


def near_edge(mask: Bool[np.ndarray, "h w"], product: Bool[np.ndarray, "h w"]) -> float:
    """The share of a mask's pixels that lie within ``NEAR`` of the product's edge; the image's border is none."""
    if product.all():
        return 0.0
    return float((ndimage.distance_transform_edt(product)[mask] <= NEAR * min(mask.shape)).mean())


class TypeMasks:
    """One type's exemplar masks, ready to draw from by the rule of ``masks.placement``.

    ``auto``: by context (``cadiff.masks.search``), or anywhere for a type that is the whole product. ``on_part``: a mask first moves as
    the part does from its exemplar's picture to the normal's. Both of the last two rules move masks about by the exemplars' own spread,
    and keep them to the foreground unless most of the exemplars' own lie outside of it, as where something is missing or lies beside the
    product. Those that do also keep their exemplar's relation to the product's edge (``near``): large for a chip in the rim, 0 for a dent
    in the middle. Else an edge that cuts whatever is placed over it brings dents to where no real one is.
    """

    def __init__(self, exemplars: Sequence[SampleRow], normals: Sequence[SampleRow], finder: Finder, params: MaskParams) -> None:
        self.exemplars, self.normals, self.finder, self.params = exemplars, normals, finder, params
        self.outlines = [finder.outline(row) for row in exemplars]
        covered = [finder.mask(row).sum() / finder.foreground(row).sum() for row in exemplars]
        self.whole = float(np.median(covered)) > WHOLE
        self._asked = 0
        self._stayed: list[float] = []  # of each mask that found no place, how far the likest was (CIELAB; inf: not known)

    def draw(self, rng: np.random.Generator, normal: SampleRow | None, moved: bool) -> Placed:
        """One mask, on that normal or on one of the product's; ``moved``: not in place, as ``normal`` is to be seen."""
        index, rule = int(rng.integers(len(self.exemplars))), self.params.placement
        self._asked += 1
        if rule == "in_place" and not moved:
            return self._in_place(index, normal or self._any(rng))
        if rule in ("auto", "in_place") and not self.whole:
            return self._by_context(index, normal, moved, rng)
        return self._free(index, normal, moved, rng, registered=rule == "on_part")

    def lacking(self, share: float) -> str | None:
        """What to say if more than that share of the masks found no place and stayed in their exemplar's picture."""
        if len(self._stayed) <= share * self._asked:
            return None
        said = f"{len(self._stayed)} of {self._asked} found no place and stay in their exemplar's picture"
        if math.isinf(self._stayed[0]):
            return f"{said}; see recipe.masks.max_cut and, with masks.placement: on_part, whether the normals show the exemplars' part"
        far, near = float(np.median(self._stayed)), self.context.tolerance
        return f"{said}: no normal looks as around them (the likest place differs by {far:.1f} CIELAB in the median, tolerated: {near:.1f})"

    @cached_property
    def context(self) -> Context:
        return Context(self.exemplars, self.normals, self._spread, self.finder)

    @cached_property
    def _spread(self) -> Spread:
        return fit_spread(self.outlines)

    def _by_context(self, index: int, normal: SampleRow | None, moved: bool, rng: np.random.Generator) -> Placed:
        exemplar, seen = self.exemplars[index], []
        for _ in range(1 if normal else NORMALS):
            seen.append(normal or self._any(rng))
            if self.context.fits(exemplar, seen[-1]) and (placed := self._on(index, seen[-1], FREEDOMS, rng)):
                return placed
        likest = min(seen, key=lambda row: self.context.match(exemplar, row).distance)
        if not moved:
            self._stayed.append(self.context.match(exemplar, likest).distance)
            return self._in_place(index, seen[-1])
        return self._on(index, likest, (), rng) or self._as_it_lies(index, likest, BY_CONTEXT)

    def _on(self, index: int, normal: SampleRow, freedoms: Sequence[float], rng: np.random.Generator) -> Placed | None:
        """By context on this normal, as free as can be."""
        for freedom in (*freedoms, 0.0):
            found: Found | None = self.context.place(self.exemplars[index], normal, freedom, rng)
            if found is not None:
                canvas = self.finder.canvas(normal)
                there = move_outline(self.outlines[index], found.movement, canvas, goes_on=True)
                if self._accepts(there, index, found.movement):
                    return Placed(there, BY_CONTEXT, self.exemplars[index], found.movement, normal, normal)
        return None

    def _free(self, index: int, normal: SampleRow | None, moved: bool, rng: np.random.Generator, registered: bool) -> Placed:
        """By the exemplars' own spread. After ``TRIES`` rejected placements it is the exemplar's own."""
        exemplar, outline, source = self.exemplars[index], self.outlines[index], ON_PART if registered else ANYWHERE
        spread, turns = self._laid if registered else (self._spread, [0.0] * len(self.outlines))
        for _ in range(TRIES):
            chosen = normal or self._any(rng)
            movement = draw_movement(outline, spread, rng, turns[index])
            if registered:
                pose = self.finder.pose(exemplar, chosen)
                if pose.likeness < SAME_PART:
                    continue
                movement = pose.move(movement, outline.canvas, self.finder.canvas(chosen))
            if self._too_large(index, chosen, movement):  # known before a mask is moved of which all tries would cost seconds
                continue
            # what a border cut stays at it, or nobody knows what of it comes into the picture
            if not self._suits(index, chosen, movement, goes_on=not registered):
                continue
            there = self._cut(outline, movement, chosen, goes_on=not registered)
            if self._accepts(there, index, movement):
                return Placed(there, source, exemplar, movement, chosen, chosen)
        if moved:
            return self._as_it_lies(index, chosen, source)
        self._stayed.append(math.inf)
        return self._in_place(index, chosen)

    def _suits(self, index: int, normal: SampleRow, movement: Movement, goes_on: bool) -> bool:
        """Whether the product's edge is as near, told small before anything is done at the canvas."""
        if not self._on_product:
            return True
        product, own = self.finder.foreground(normal), Outline.of(self.finder.mask(self.exemplars[index]))
        between = self.finder.factor(normal) / self.finder.factor(self.exemplars[index])
        small = Movement(movement.scale * between, movement.turn, movement.mirror, movement.centre)
        mask = move_outline(own, small, (product.shape[0], product.shape[1]), goes_on).whole & product
        return bool(mask.any()) and abs(near_edge(mask, product) - self._near[index]) <= EDGE

    def _too_large(self, index: int, normal: SampleRow, movement: Movement) -> bool:
        """Whether the picture cannot hold as much of a mask as ``masks.max_cut`` leaves of it, wherever it lies."""
        return math.prod(self.finder.canvas(normal)) < (1 - self.params.max_cut) * self.outlines[index].area * movement.scale**2

    def _cut(self, outline: Outline, movement: Movement, normal: SampleRow, goes_on: bool) -> Outline:
        """The moved mask at the canvas, within the product where it keeps to that."""
        canvas = self.finder.canvas(normal)
        there = move_outline(outline, movement, canvas, goes_on)
        if not self._on_product or not there.area:
            return there
        rows, columns = there.where
        product = scaled(self.finder.foreground(normal), canvas, (rows.start, columns.start, rows.stop, columns.stop))
        return Outline.of(there.crop & product, (there.top, there.left), canvas)

    def _accepts(self, there: Outline, index: int, movement: Movement) -> bool:
        """Whether enough is left of a mask after border and foreground have cut it: ``MIN_AREA`` of the picture, or what its
        exemplar has if that is less."""
        outline, left, canvas = self.outlines[index], there.area, there.canvas
        area, share = outline.area * movement.scale**2, min(MIN_AREA, 0.5 * outline.area / math.prod(outline.canvas))
        return left >= max(1, share * math.prod(canvas)) and area - left <= self.params.max_cut * area

    def _in_place(self, index: int, normal: SampleRow) -> Placed:
        return Placed(self.outlines[index], IN_PLACE, self.exemplars[index], None, self.exemplars[index], normal)

    def _as_it_lies(self, index: int, normal: SampleRow, source: str) -> Placed:
        """On a normal that is to be seen, where it is in the exemplar's picture."""
        outline, canvas = self.outlines[index], self.finder.canvas(normal)
        movement = unmoved(outline)
        there = move_outline(outline, movement, canvas)
        if not there.area:  # of a picture that is longer than this one, along either side: its parts lay beyond both borders
            scale = min(there / own for there, own in zip(canvas, outline.canvas, strict=True))
            movement = Movement(scale, 0.0, False, movement.centre)
            there = move_outline(outline, movement, canvas)
        return Placed(there, source, self.exemplars[index], movement, normal, normal)

    def _any(self, rng: np.random.Generator) -> SampleRow:
        return self.normals[int(rng.integers(len(self.normals)))]

    @cached_property
    def _on_product(self) -> bool:
        inside = [self.finder.foreground(row)[self.finder.mask(row)].mean() >= 0.5 for row in self.exemplars]
        return bool(2 * sum(inside) >= len(inside))

    @cached_property
    def _near(self) -> list[float]:
        # A texture has no edge, whatever a stain looks like; and what a defect took from the product was a part of it.
        textured = np.mean([self.finder.foreground(row).all() for row in self.normals[:TRIES]]) > 0.5
        masks = [self.finder.mask(row) for row in self.exemplars]
        return [0.0 if textured else near_edge(m, self.finder.foreground(row) | m) for row, m in zip(self.exemplars, masks, strict=True)]

    @cached_property
    def _laid(self) -> tuple[Spread, list[float]]:
        """The spread of the masks laid onto one picture's part, for what they are spread there is the anomaly's own and not the part's
        poses; and by how much each was turned for it. One that this moves out of the picture is left where it is."""
        first, laid, turns = self.exemplars[0], [], []
        for row, outline in zip(self.exemplars, self.outlines, strict=True):
            pose = self.finder.pose(row, first)
            pose = pose if pose.likeness >= SAME_PART else UNTURNED
            canvas = self.finder.canvas(first)
            there = move_outline(outline, pose.move(unmoved(outline), outline.canvas, canvas), canvas)
            laid.append(there if there.area else outline)
            turns.append(pose.turn)
        return fit_spread(laid), turns
