"""A product's pictures and masks as placement sees them: small, each read once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, UInt8

from cadiff.masks.foreground import foreground
from cadiff.masks.registration import POSE_SIDE, Registration, register
from cadiff.pictures import Size, canvas_of, fitted, read_mask, resize_picture
from cadiff.records import SampleRow
from cadiff.scene import Outline
from cadiff.storage import read_image, resize_mask

SHORTER = 96  # px of the shorter side at which a place is sought, of the median picture: a pin is 5 px there, and a search takes ms
BOUNDS = (64, 128)  # where the canvases of a product differ (``native``): a px is as much in all of them, as far as these allow
LONGER = 512  # px of the longer side, at most, whatever the aspect ratio
KEPT = 1024  # small pictures that stay in memory: 30 MB


class Finder:
    """What is asked of picture files again and again; ``rows`` are those of the product, ``size`` its canvas."""

    def __init__(self, rows: Sequence[SampleRow], size: Size) -> None:
        self.size = size
        self._common = SHORTER / float(np.median([min(canvas_of(row, size)) for row in rows]))
        self._picture = lru_cache(KEPT)(lambda path, levels, shape: read_image(path, "RGB", shape, levels=levels))
        self._mask = lru_cache(KEPT)(lambda path, shape: read_mask(path, shape))
        self._foreground = lru_cache(KEPT)(lambda path, levels, shape: foreground(self._picture(path, levels, shape)))
        self._outline = lru_cache(None)(lambda path, shape: Outline.of(read_mask(path, shape)))
        self._pose = lru_cache(None)(self._registered)

    def canvas(self, row: SampleRow) -> tuple[int, int]:
        return canvas_of(row, self.size)

    def factor(self, row: SampleRow) -> float:
        """Px here for one of the canvas."""
        canvas = self.canvas(row)
        least, most = (bound / min(canvas) for bound in BOUNDS)
        return min(max(self._common, least), most, LONGER / max(canvas))

    def shape(self, row: SampleRow) -> tuple[int, int]:
        height, width = (max(1, round(side * self.factor(row))) for side in self.canvas(row))
        return height, width

    def picture(self, row: SampleRow) -> UInt8[np.ndarray, "h w 3"]:
        return self._picture(row.image_path, row.levels, self.shape(row))

    def mask(self, row: SampleRow) -> Bool[np.ndarray, "h w"]:
        """An exemplar's, small; unchecked: its sample was checked as it was read."""
        return self._mask(str(row.mask_path), self.shape(row))

    def foreground(self, row: SampleRow) -> Bool[np.ndarray, "h w"]:
        """Where the product is, small."""
        return self._foreground(row.image_path, row.levels, self.shape(row))

    def outline(self, row: SampleRow) -> Outline:
        """An exemplar's mask at its canvas."""
        return self._outline(str(row.mask_path), self.canvas(row))

    def pose(self, exemplar: SampleRow, onto: SampleRow) -> Registration:
        """How the part lies in ``onto`` against an exemplar's picture, whose anomaly does not count."""
        return self._pose(exemplar, onto)

    def _registered(self, exemplar: SampleRow, onto: SampleRow) -> Registration:
        shapes = [fitted(*self.shape(row), POSE_SIDE) for row in (exemplar, onto)]
        own, other = (resize_picture(self.picture(row), shape) for row, shape in zip((exemplar, onto), shapes, strict=True))
        return register(own, resize_mask(self.mask(exemplar), shapes[0]), other)
