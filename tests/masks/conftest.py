"""A small product on disk, as rows: a light bar on a dark backdrop, in pictures of two shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from masks_files import SHAPES, SIDE, bar, save
from parameters import bare

from cadiff.params import Params
from cadiff.records import SampleRow


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
