"""Whether a picture shows an exemplar's piece: the same grain under another light, and another grain under the same light."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


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
