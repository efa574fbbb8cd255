"""A mask's regions, and each one's outline as one ring of corners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy.ndimage import find_objects, label

Corner = tuple[int, int]  # x, y in px: pixel (row y, column x) covers x..x+1 and y..y+1


class Region(NamedTuple):
    """What of a mask hangs together, over edges or corners. ``pixels`` are the mask's within a box; its top left pixel is (top, left)."""

    pixels: Bool[np.ndarray, "h w"]
    top: int
    left: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge."""
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width, self.top + height


def regions(mask: Bool[np.ndarray, "h w"]) -> list[Region]:
    """The regions of a mask, in the order of their first pixels."""
    numbers, _ = label(mask, np.ones((3, 3)))
    places = find_objects(numbers)
    return [Region(numbers[place] == number, place[0].start, place[1].start) for number, place in enumerate(places, start=1)]


def outline(region: Region) -> Int[np.ndarray, "n 2"]:
    """One ring of corners (x, y) along the pixels' edges that holds exactly the region's pixels, by the even-odd rule and by winding.

    Polygons have no holes, so the ring enters each hole along a line of the grid and leaves it along the same one.
    """
    outer, *holes = sorted(_rings(region.pixels), key=min)  # each begins at its leftmost corner; the region's own is leftmost of all
    whole = outer
    for hole in holes:
        whole = _entered(whole, hole)
    corners: np.ndarray = np.array(_straight(whole)) + np.array([region.left, region.top])
    return corners


def _rings(pixels: Bool[np.ndarray, "h w"]) -> list[list[Corner]]:
    """The closed lines between inside and outside, a corner at each px: clockwise as seen around pixels, the other way around holes."""
    inside = np.pad(pixels, 1)
    steps: dict[Corner, list[Corner]] = {}
    # the neighbour that is outside; where the edge to it begins, as seen from the pixel's top left corner, and its direction
    for (dy, dx), (x, y), (right, down) in (
        ((-1, 0), (0, 0), (1, 0)), ((0, 1), (1, 0), (0, 1)), ((1, 0), (1, 1), (-1, 0)), ((0, -1), (0, 1), (0, -1)),
    ):  # fmt: skip
        edge = inside & ~np.roll(inside, (-dy, -dx), (0, 1))
        for row, column in np.argwhere(edge).tolist():
            steps.setdefault((column - 1 + x, row - 1 + y), []).append((right, down))
    rings = []
    while steps:
        start = min(steps)
        ring: list[Corner] = []
        (x, y), heading = start, (0, 0)
        while not ring or (x, y) != start:
            ring.append((x, y))
            ways = steps[x, y]
            # where two pixels meet in a corner alone, to the left: over to the other one
            heading = _left_of(heading) if _left_of(heading) in ways else ways[0]
            ways.remove(heading)
            if not ways:
                del steps[x, y]
            x, y = x + heading[0], y + heading[1]
        rings.append(ring)
    return rings


def _left_of(heading: Corner) -> Corner:
    return heading[1], -heading[0]


def _entered(ring: list[Corner], hole: list[Corner]) -> list[Corner]:
    """A ring that goes along the grid to a hole's leftmost corner, around the hole, and back."""
    x, y = hole[0]
    at = max((corner[0], place) for place, corner in enumerate(ring) if corner[1] == y and corner[0] <= x)[1]
    there = [] if ring[at] == hole[0] else [hole[0]]  # they meet in a corner: nothing to go along
    return [*ring[: at + 1], *there, *hole[1:], hole[0], *ring[at + (not there) :]]


def _straight(ring: Sequence[Corner]) -> list[Corner]:
    """Without the corners at which a ring goes on as it came."""
    kept = []
    for (x0, y0), (x, y), (x1, y1) in zip([ring[-1], *ring[:-1]], ring, [*ring[1:], ring[0]], strict=True):
        if (x - x0) * (y1 - y) != (y - y0) * (x1 - x) or (x - x0) * (x1 - x) + (y - y0) * (y1 - y) < 0:
            kept.append((x, y))
    return kept
