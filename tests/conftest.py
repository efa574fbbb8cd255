"""What every test may use: no telemetry, a small random base, a small drawn product."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.update(DVC_NO_ANALYTICS="1", DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false", CADIFF_QUIET="1")

from base import write_tiny_base
from parameters import BARE, bare

from cadiff.data import read_samples
from cadiff.data.demo import draw_product
from cadiff.params import DatasetParams, DrawParams, Params
from cadiff.records import SampleRow

SIDE = 64  # px of the drawn pictures
SMALL = {
    "products": {"nut": {}},
    "dataset": {"size": SIDE},
    "window": {"cut": "whole"},
    "train": {"steps": 3, "batch": 4, "decay": "cosine"},
    "prompt": {"learning_rate": 1e-3},
    "control": {"learning_rate": 1e-3},
    "generate": {"per_type": 3, "steps": 3, "batch": 2, "background": "real", "blend": None},
    "intensity": {"threshold": 0.0},
}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn nut in MVTec's layout, small: 4 normals, 1 good, 6 of each type."""
    root = tmp_path_factory.mktemp("drawn")
    draw_product(DrawParams(normals=4, test_good=1, anomalies_per_type=6), "nut", 0, root / "nut", SIDE)
    return root


@pytest.fixture(scope="session")
def nut_samples(drawn_root: Path) -> list[SampleRow]:
    return read_samples(DatasetParams(name="demo", layout="demo", root=str(drawn_root), calibration=0.0), "nut")


@pytest.fixture
def small_params(tiny_base: Path) -> Params:
    """Whole pictures as the base sees them, all that was drawn kept: what the method's equations say, and nothing around it."""
    return bare(**SMALL, base={"path": str(tiny_base), "size": 64, "device": "cpu"}).for_product("nut")


@pytest.fixture
def windowed_params(small_params: Params) -> Params:
    """Windows of 64 px and more in pictures of 128 px: by default, as users have it."""
    values = {**small_params.model_dump(), "dataset": {**BARE["dataset"], "size": 2 * SIDE}, "window": {}}
    return Params(**{**values, "generate": {**values["generate"], "blend": 2.0}})
