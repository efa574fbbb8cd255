"""What every test may use: no telemetry, a small random base, a small drawn product."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.update(DVC_NO_ANALYTICS="1", DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false", CADIFF_QUIET="1")

from base import write_tiny_base

from cadiff.data import read_samples
from cadiff.data.demo import draw_product
from cadiff.params import DatasetParams, DrawParams, Params
from cadiff.records import SampleRow

SMALL = {
    "products": {"nut": {}},
    "train": {"steps": 3, "batch": 4, "decay": "cosine"},
    "prompt": {"learning_rate": 1e-3},
    "control": {"learning_rate": 1e-3},
    "generate": {"per_type": 3, "steps": 3, "batch": 2, "part": 2, "background": "real"},
    "intensity": {"threshold": 0.0},
}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn nut in MVTec's layout: 4 normals, 1 good, 6 of each type."""
    root = tmp_path_factory.mktemp("drawn")
    draw_product(DrawParams(normals=4, test_good=1, anomalies_per_type=6), "nut", 0, root / "nut")
    return root


@pytest.fixture(scope="session")
def nut_samples(drawn_root: Path) -> list[SampleRow]:
    return read_samples(DatasetParams(name="demo", layout="demo", root=str(drawn_root)), "nut")


@pytest.fixture
def small_params(tiny_base: Path) -> Params:
    return Params(**SMALL, base={"path": str(tiny_base), "size": 64, "device": "cpu"}).for_product("nut")
