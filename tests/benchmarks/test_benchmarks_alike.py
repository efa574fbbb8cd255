"""Whether a picture shows an exemplar's piece: the same grain under another light, and another grain under the same light."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from cadiff.params import MetricParams
from cadiff.records import SampleRow
from cadiff.storage import encode_png, write_image


def test_the_same_grain_is_known_under_another_light_and_another_grain_is_not(script: Callable[[str], ModuleType]) -> None:
    alike, rng = script("alike"), np.random.default_rng(0)
    pieces = rng.normal(0, 8, (3, 64, 64))
    slope = np.linspace(0, 60, 64)[None]
    exemplars = [np.clip(80 + pieces[k], 0, 255).astype(np.uint8) for k in (0, 1)]
    others = [np.clip(60 + slope + 1.5 * pieces[k], 0, 255).astype(np.uint8) for k in (1, 2)]
    known, new = alike.likeness(exemplars, others)
    assert known > 0.9 > alike.SAME > 0.2 > new


def test_grains_product_is_numpys_correlation(script: Callable[[str], ModuleType]) -> None:
    grain = script("alike").grain
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 255, (2, 32, 32)).astype(np.uint8)
    assert grain(first) @ grain(second) == pytest.approx(np.corrcoef(grain(first), grain(second))[0, 1])
    assert not grain(np.full((32, 32), 7, np.uint8)).any()


def test_each_side_is_scored_with_the_good_images_and_without_the_other(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """A map that is its mask on the exemplars' piece (AP 1), an empty one on another: all ties, 16 of 128 pixels."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4] = 255
    write_image(tmp_path / "mask.png", mask)
    empty = np.zeros_like(mask)
    maps = {"same": mask, "other": empty, "good": empty}
    rows = {
        name: SampleRow(name, "toy", "nut", None, "held_out", "", None if name == "good" else str(tmp_path / "mask.png"), 8, 8, "")
        for name in maps
    }
    scored = pd.DataFrame([{"sample_id": name, "anomaly_map": {"bytes": encode_png(pixels)}} for name, pixels in maps.items()])
    found = script("alike").split_ap(scored, rows, {"same": True, "other": False}, MetricParams.model_construct(size=8, mask_rule="half"))
    assert found == {True: pytest.approx(1.0), False: pytest.approx(16 / 128)}
