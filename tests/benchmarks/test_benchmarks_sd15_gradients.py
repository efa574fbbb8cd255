"""benchmarks/sd15_gradients.py: all ways of a step are taken on what learns, and a difference is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from base import write_sd15_base

from cadiff.params import Params
from cadiff.records import SampleRow


@pytest.fixture
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("sd15_gradients")


def test_all_ways_give_the_same_gradients(bench: ModuleType, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    base = small_params.base.model_copy(update={"path": str(write_sd15_base(tmp_path / "base")), "dtype": "float32"})
    control = small_params.control.model_copy(update={"heads": 4})
    found = {}
    for name, own in bench.WAYS.items():
        train = small_params.train.model_copy(update={"batch": 2, **own})
        params = small_params.model_copy(update={"base": base, "control": control, "train": train})
        found[name] = bench.gradients(params, nut_samples, ["chip", "rust", "scratch"])
    expected = found.pop("one pass")
    assert {name.split(".")[0] for name in expected} == {"vectors", "controlnet", "saim"}
    for name, own in found.items():
        whole, worst, where = bench.difference(own, expected)
        assert whole < 1e-5, f"{name} differs by {whole:.2g}, most in {where} ({worst:.2g})"


def test_the_worst_tensor_is_named(bench: ModuleType) -> None:
    expected = {"a": torch.ones(4), "b": torch.full((4,), 3.0)}
    found = {"a": torch.ones(4), "b": torch.full((4,), 3.3)}
    whole, worst, where = bench.difference(found, expected)
    assert (whole, worst, where) == (pytest.approx(0.6 / 40**0.5), pytest.approx(0.1), "b")
    with pytest.raises(SystemExit, match="found others of"):
        bench.difference({"a": expected["a"]}, expected)
