"""What a generator drew in the middle of its training, a strip a type: when it learned what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cadiff.records import ValidationRow
from cadiff.reporting.gallery import jpeg_uri
from cadiff.storage import decode_image

GAP = 4  # px between two pictures


@dataclass(frozen=True)
class Film:
    """One type's pictures side by side, in one image of ``width`` x ``height`` px: the exemplar, its mask, then what was drawn."""

    kind: str
    uri: str
    alt: str
    width: int
    height: int
    said: str


def films(rows: Sequence[ValidationRow]) -> list[Film]:
    """By type; empty where too short a training drew nothing."""
    found: dict[str, list[ValidationRow]] = {}
    for row in sorted(rows, key=lambda row: (row.anomaly_type, row.step)):
        found.setdefault(row.anomaly_type, []).append(row)
    return [_film(kind, own) for kind, own in found.items()]


def _film(kind: str, rows: Sequence[ValidationRow]) -> Film:
    exemplar, drawn = rows[0], rows[1:]
    pictures = [decode_image(part["bytes"], "RGB", kind) for part in (exemplar.image, exemplar.mask, *(row.image for row in drawn))]
    side = pictures[0].shape[0]
    strip = np.full((side, len(pictures) * (side + GAP) - GAP, 3), 255, np.uint8)
    for k, pixels in enumerate(pictures):
        strip[:, k * (side + GAP) : k * (side + GAP) + side] = pixels
    said = f"The exemplar, its mask, and what was drawn after {', '.join(str(row.step) for row in drawn)} steps."
    return Film(kind, jpeg_uri(Image.fromarray(strip)), f"Training of {kind}", strip.shape[1], strip.shape[0], said)
