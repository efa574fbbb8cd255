"""Masks placed by context: where a normal looks around the new place as the exemplar does around the old one, in shape, size and turn as
free as that allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cadiff.masks.context import JUST_NOTICEABLE, Ground, Kernel, Ring, distances
from cadiff.masks.finder import Finder
from cadiff.masks.shapes import Spread, draw_scale, move_mask, shares
from cadiff.records import SampleRow
from cadiff.scene import Movement, Outline

HALF_TURN = 18  # steps
STEP = math.pi / HALF_TURN  # of the turns that are looked over: half of it moves what is 10 px away by one px
FINER = STEP / 3
OVERVIEW = 24  # px of a ring's longer side at which the turns are looked over
NEARLY = 1.25  # times the least distance: places that are as good, with what no eye sees added (JUST_NOTICEABLE)
FREEDOMS = (1.0, 0.5)  # shares of the type's spread that are tried before none
ROOM = 5  # px around a place in which it must be the best
# Of the type's exemplars and of the normals, from which the natural variation is found: 12 pairs give a median within 15 %.
ASKED = (6, 3)


@dataclass(frozen=True)
class Found:
    """A place, with how far its surroundings are from the exemplar's (CIELAB)."""

    movement: Movement
    distance: float


@dataclass(frozen=True)
class Match:
    """How an exemplar's surroundings fit a normal at its own scale: the best turn with its distance, and each turn that was looked over."""

    turn: float
    mirror: bool
    distance: float
    turns: tuple[tuple[float, bool, float], ...]


class Context:
    """One anomaly type's exemplars with what surrounds them.

    ``tolerance``: a normal fits where its best place is no farther from the exemplar's surroundings than such places are from one normal
    to the next; of textures that is little, of parts in other poses or lights more.
    """

    def __init__(self, exemplars: Sequence[SampleRow], normals: Sequence[SampleRow], spread: Spread, finder: Finder) -> None:
        self.exemplars, self.normals, self.spread, self.finder = exemplars, normals, spread, finder
        self._ground = lru_cache(256)(lambda row: Ground.of(finder.picture(row)))
        self._around = lru_cache(None)(self._rings_of)
        self._overview = lru_cache(64)(self._kernels)
        self._match = lru_cache(4096)(lambda exemplar, normal: self._matched(self._around(exemplar)[0], self._overview(exemplar), normal))
        self.tolerance = self._natural_variation()

    def match(self, exemplar: SampleRow, normal: SampleRow) -> Match:
        return self._match(exemplar, normal)

    def fits(self, exemplar: SampleRow, normal: SampleRow) -> bool:
        return self.match(exemplar, normal).distance <= self.tolerance

    def place(self, exemplar: SampleRow, normal: SampleRow, freedom: float, rng: np.random.Generator) -> Found | None:
        """A movement drawn with that share of the type's spread, to one of the best places for it; None if there is no place so good as
        the normal's best.

        Of these, places that look under the mask as the exemplar does are left out if there are others: something missing is missing
        where it was, not where nothing ever is.
        """
        match = self.match(exemplar, normal)
        limit = math.hypot(NEARLY * match.distance, JUST_NOTICEABLE)
        turn, mirror, scale = match.turn, match.mirror, 1.0
        if freedom:
            turn, mirror = self._drawn_turn(match, min(limit, max(self.tolerance, match.distance)), rng)
            turn += freedom * float(rng.uniform(-STEP, STEP)) / 2
            scale = draw_scale(self.spread, rng) ** freedom
        between = self.finder.factor(normal) / self.finder.factor(exemplar)
        kernels = [part.moved(scale * between, turn, mirror) for part in self._around(exemplar)]
        found, under = (distances(self._ground(normal), [kernel])[0] for kernel in kernels)
        best = (found <= limit) & (found == ndimage.minimum_filter(found, ROOM))
        shown = best & (under > limit)
        places = np.argwhere(shown if shown.any() else best)
        if not len(places):
            return None
        row, column = places[int(rng.integers(len(places)))]
        between_pixels = np.array(kernels[0].anchor) - kernels[0].pixel
        centre = np.array(_least_near(found, int(row), int(column))) + between_pixels
        return Found(Movement(scale, turn, mirror, shares(centre, found.shape)), float(found[row, column]))

    def _drawn_turn(self, match: Match, limit: float, rng: np.random.Generator) -> tuple[float, bool]:
        """One of the turns that fit: any of them, or where the type has a direction rather those near to its exemplar's."""
        fitting = [(turn, mirror) for turn, mirror, distance in match.turns if distance <= limit] or [(match.turn, match.mirror)]
        weights = np.ones(len(fitting))
        if self.spread.turn is not None:
            weights = np.exp(-0.5 * np.array([turn / (self.spread.turn + STEP / 2) for turn, _ in fitting]) ** 2)
        return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]

    def _rings_of(self, exemplar: SampleRow) -> tuple[Ring, Ring]:
        """Around its mask, and under it."""
        picture, mask = self.finder.picture(exemplar), self.finder.mask(exemplar)
        own = (np.array(self.finder.outline(exemplar).centroid) + 0.5) * np.array(mask.shape) / np.array(self.finder.canvas(exemplar)) - 0.5
        centroid = (float(own[0]), float(own[1]))
        return Ring.around(Ground.of(picture, mask), mask, centroid), Ring.under(Ground.of(picture, mask, seen=True), mask, centroid)

    def _kernels(self, exemplar: SampleRow) -> list[tuple[float, bool, Kernel]]:
        return self._turned(self._around(exemplar)[0])

    def _turned(self, ring: Ring) -> list[tuple[float, bool, Kernel]]:
        """Every turn and flip that the type may have, small."""
        small = ring.at(_halvings(ring))
        if self.spread.turn is not None:
            most = math.ceil((3 * self.spread.turn + STEP) / STEP)
            return [(STEP * k, False, small.moved(1.0, STEP * k, False)) for k in range(-most, most + 1)]
        half = [small.moved(1.0, STEP * k, False) for k in range(HALF_TURN)]
        turned = half + [kernel.flipped(0, 1) for kernel in half]
        mirrored = [turned[-k].flipped(1) for k in range(2 * HALF_TURN)]  # a mirrored thing turns the other way
        return [(STEP * k, mirror, kernels[k]) for mirror, kernels in ((False, turned), (True, mirrored)) for k in range(2 * HALF_TURN)]

    def _matched(self, ring: Ring, overview: list[tuple[float, bool, Kernel]], normal: SampleRow) -> Match:
        ground = self._ground(normal)
        least = distances(ground.at(_halvings(ring)), [kernel for _, _, kernel in overview]).min(axis=(1, 2))
        turns = tuple((turn, mirror, float(distance)) for (turn, mirror, _), distance in zip(overview, least, strict=True))
        turn, mirror, _ = turns[int(least.argmin())]
        finer = [turn - FINER, turn, turn + FINER]
        found = distances(ground, [ring.moved(1.0, each, mirror) for each in finer]).min(axis=(1, 2))
        return Match(finer[int(found.argmin())], mirror, float(found.min()), turns)

    def _natural_variation(self) -> float:
        """What surrounds the best place of one normal is sought in others."""
        exemplars, normals = (_evenly(rows, count) for rows, count in zip((self.exemplars, self.normals), ASKED, strict=True))
        found = []
        for k, exemplar in enumerate(exemplars):
            one, other = normals[k % len(normals)], normals[(k + 1) % len(normals)]
            place = self.place(exemplar, one, 0.0, np.random.default_rng(0))
            mask = move_mask(self.finder.mask(exemplar), place.movement, self.finder.shape(one)) if place else None
            if mask is not None and mask.any():
                ring = Ring.around(self._ground(one), mask, Outline.of(mask).centroid)
                others = [other] if len(normals) < 3 else [other, normals[(k + 2) % len(normals)]]
                found += [self._matched(ring, self._turned(ring), row).distance for row in others]
        return NEARLY * float(np.median(found or [0.0])) + JUST_NOTICEABLE


def _evenly(rows: Sequence[SampleRow], count: int) -> list[SampleRow]:
    return [rows[k] for k in np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]


def _halvings(ring: Ring) -> int:
    return max(1, math.ceil(math.log2(max(ring.within.shape) / OVERVIEW)))


def _least_near(found: Float[np.ndarray, "h w"], row: int, column: int) -> tuple[float, float]:
    """Where a parabola through a least distance and its neighbours is least."""
    squares, at = found.astype(float) ** 2, []
    for place, line in ((row, squares[:, column]), (column, squares[row])):
        before, own, after = line[max(place - 1, 0)], line[place], line[min(place + 1, len(line) - 1)]
        bend = before - 2 * own + after
        at.append(place + (0.5 * float((before - after) / bend) if 0 < place < len(line) - 1 and bend > 0 else 0.0))
    return at[0], at[1]
