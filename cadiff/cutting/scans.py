"""Where a scan is cut: into pieces of one size that overlap, so that what is small lies whole in one of them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import find_objects, label

from cadiff.data.readers import LONGEST

PIECE, OVERLAP = 4, 1  # a piece's longer side, and by how much two pieces overlap, in shorter sides

Place = tuple[slice, slice]


def places(height: int, width: int) -> list[Place]:
    """The pieces of a picture, from top to bottom or from left to right, which cover it: one where it is not too long."""
    short, long = sorted((height, width))
    if long <= LONGEST * short:
        return [(slice(0, height), slice(0, width))]
    length = PIECE * short
    count = math.ceil((long - OVERLAP * short) / (length - OVERLAP * short))
    starts = (round(index * (long - length) / (count - 1)) for index in range(count))
    cuts = [slice(start, start + length) for start in starts]
    whole = slice(0, short)
    return [(cut, whole) if height > width else (whole, cut) for cut in cuts]


def that_show(mask: Bool[np.ndarray, "h w"], pieces: list[Place]) -> list[Place]:
    """Those of the pieces that show an anomaly: a region of the mask whole, or a part of one that lies whole in none.

    A sliver at a piece's border of what the next piece has whole would be learned as a kind of its own; a piece that is marked all over
    says nothing of where.
    """
    regions = find_objects(label(mask, np.ones((3, 3)))[0])
    shown = set[int]()
    for region in regions:
        whole = [index for index, piece in enumerate(pieces) if all(_is_in(*sides) for sides in zip(region, piece, strict=True))]
        shown.update(whole or [index for index, piece in enumerate(pieces) if mask[piece][_within(region, piece)].any()])
    return [piece for index, piece in enumerate(pieces) if index in shown and not mask[piece].all()]


def _is_in(inner: slice, outer: slice) -> bool:
    return bool(outer.start <= inner.start and inner.stop <= outer.stop)


def _within(region: Place, piece: Place) -> Place:
    """A region's box in a piece's own coordinates; empty where they do not meet."""
    first, second = (
        slice(max(0, one.start - other.start), max(0, min(one.stop, other.stop) - other.start))
        for one, other in zip(region, piece, strict=True)
    )
    return first, second
