"""A small product on disk, as rows: a light bar on a dark backdrop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.storage import write_image

SIDE = 32


def bar(seed: int) -> np.ndarray:
    """A bar of 16 x 24 pixels, somewhere near the middle."""
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 2, (SIDE, SIDE, 3))
    top, left = 8 + rng.integers(-3, 4), 4 + rng.integers(-3, 4)
    image[top : top + 16, left : left + 24] += 140
    return image.clip(0, 255).astype(np.uint8)


def row(sample_id: str, kind: str | None, role: str, image: Path, mask: Path | None) -> SampleRow:
    mask_path = str(mask) if mask else None
    return SampleRow(sample_id, "toy", "bar", kind, role, str(image), mask_path, SIDE, SIDE, "")


@pytest.fixture
def samples(tmp_path: Path) -> list[SampleRow]:
    """6 normals; 4 scratches, level and on the bar; 3 spots; one missing corner, beside the bar."""
    rows = []
    for index in range(6):
        path = tmp_path / "good" / f"{index}.png"
        write_image(path, bar(index))
        rows.append(row(f"bar/train/good/{index}", None, "normal", path, None))
    drawn = {"scratch": 4, "spot": 3, "missing": 1}
    for kind, count in drawn.items():
        for index in range(count):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            if kind == "scratch":
                mask[13 + 2 * index, 8 : 18 + index] = 255
            elif kind == "spot":
                mask[14 + index : 17 + index, 12 + index : 15 + index] = 255
            else:
                mask[1:4, 1:4] = 255
            image, path = tmp_path / kind / f"{index}.png", tmp_path / kind / f"{index}_mask.png"
            write_image(image, bar(50))
            write_image(path, mask)
            rows.append(row(f"bar/test/{kind}/{index}", kind, "exemplar", image, path))
    nowhere = tmp_path / "none.png"
    return [*rows, row("bar/test/unseen/0", "unseen", "held_out", nowhere, nowhere)]


@pytest.fixture
def params() -> Params:
    values = {"products": {"bar": {}}, "base": {"size": SIDE}, "generate": {"per_type": 40}}
    return Params(**values).for_product("bar")
