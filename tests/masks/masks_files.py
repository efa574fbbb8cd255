"""A light bar on a dark backdrop, as pictures on disk and their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cadiff.records import SampleRow
from cadiff.storage import write_image

SIDE = 32
SHAPES = ((32, 32), (32, 40))


def bar(seed: int, shape: tuple[int, int] = SHAPES[0]) -> np.ndarray:
    """A bar of 16 x 24 pixels, somewhere near the middle."""
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 2, (*shape, 3))
    top, left = 8 + rng.integers(-3, 4), 4 + rng.integers(-3, 4)
    image[top : top + 16, left : left + 24] += 140
    return image.clip(0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray, mask: np.ndarray | None = None, kind: str | None = None) -> SampleRow:
    """A picture and its mask as files, and their row: an exemplar with a mask, else a normal."""
    write_image(path, image)
    mask_path = path.with_name(f"{path.stem}_mask.png")
    if mask is not None:
        write_image(mask_path, mask.astype(np.uint8) * 255)
    role = "normal" if mask is None else "exemplar"
    sample_id = f"bar/{path.parent.name}/{path.stem}"
    height, width = image.shape[:2]
    return SampleRow(sample_id, "toy", "bar", kind, role, str(path), None if mask is None else str(mask_path), width, height, "")
