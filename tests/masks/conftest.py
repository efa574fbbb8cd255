"""A small product on disk, as rows: a light bar on a dark backdrop, in pictures of two shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from parameters import bare

from cadiff.params import Params
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


@pytest.fixture
def samples(tmp_path: Path) -> list[SampleRow]:
    """6 normals, every other one wider; 4 scratches, level and on the bar; 3 spots; one missing corner, beside the bar."""
    rows = [save(tmp_path / "good" / f"{k}.png", bar(k, SHAPES[k % 2])) for k in range(6)]
    for kind, count in {"scratch": 4, "spot": 3, "missing": 1}.items():
        for index in range(count):
            mask = np.zeros((SIDE, SIDE), bool)
            if kind == "scratch":
                mask[13 + 2 * index, 8 : 18 + index] = True
            elif kind == "spot":
                mask[14 + index : 17 + index, 12 + index : 15 + index] = True
            else:
                mask[1:4, 1:4] = True
            rows.append(save(tmp_path / kind / f"{index}.png", bar(50), mask, kind))
    nowhere = str(tmp_path / "none.png")
    return [*rows, SampleRow("bar/unseen/0", "toy", "bar", "unseen", "held_out", nowhere, nowhere, SIDE, SIDE, "")]


@pytest.fixture
def params() -> Params:
    values = {"products": {"bar": {}}, "base": {"size": SIDE}, "dataset": {"size": SIDE}, "generate": {"per_type": 20}}
    return bare(**values).for_product("bar")
