"""benchmarks/bench: every figure is there; none is judged."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cadiff.storage import write_table

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def found() -> Iterator[None]:
    """The package by its own name, whatever the tests' folder of its parent's name holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(f"bench.{name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all measurements, as they have when they are made."""
    return tmp_path_factory.mktemp("bench")


def measure(folder: Path, function: str, argument: object = None) -> list:
    place = module("place")
    return module("plan").do(function, argument, place.Setting(place.QUICK, 1, folder))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(
            "sampling:rates",
            ["ours, 2 together", "stock, one at a time with 3 DDIM", "ours, 2 together / stock, 2 together", "matrix peak"],
            marks=pytest.mark.slow,
        ),
        pytest.param("training:rates", ["ours", "plain ControlNet and token", "ours / plain"], marks=pytest.mark.slow),
        pytest.param("detector:rates", ["training (", "prediction, 4 together", "prediction, one at a time"], marks=pytest.mark.slow),
        ("files:rates", ["scenes made", "quality signals", "pictures read", "pictures encoded", "shard written", "shard read", "PNG"]),
    ],
)
def test_every_figure_is_there_with_its_spread(folder: Path, function: str, expected: list[str]) -> None:
    rows = measure(folder, function)
    for what in expected:
        assert any(row.what.startswith(what) for row in rows), f"{what}: not among {[row.what for row in rows]}"
    for row in rows:
        assert row.part == function.partition(":")[0]
        assert row.low <= row.value <= row.high, row
        assert math.isfinite(row.value), row


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts"),
    [("written", (10, 20)), ("loaded", (10, 20)), ("ranked", (10,)), ("judged", (4,)), ("beside_exemplars", (1,)), ("of_products", (1, 2))],
)
def test_what_grows_is_measured_at_each_size(folder: Path, name: str, counts: tuple[int, ...]) -> None:
    found = [measure(folder, f"growing:{name}", count) for count in counts]
    assert len({tuple(row.what for row in rows) for rows in found}) == 1, "the same figures at every size"
    assert all(row.value > 0 for rows in found for row in rows)


def test_a_peak_is_of_its_own_process_alone() -> None:
    held = np.ones(2**29, np.uint8)
    call = [sys.executable, "-c", "from bench.peak import own_peak; print(own_peak())"]
    child = subprocess.run(call, cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert float(child.stdout) < 100 < held.nbytes / 2**20 < module("peak").own_peak(), "what a parent holds is none of it"


def test_the_plan_runs_only_what_there_is() -> None:
    plan, place = module("plan"), module("place")
    for scale in (place.QUICK, place.FULL):
        for work in (work for part in plan.PARTS for work in plan.works(part, scale)):
            own, _, name = work.function.partition(":")
            assert callable(getattr(module(own), name)), work
    assert [work.argument for work in plan.works("growth", place.FULL) if work.function == "growing:written"] == [100, 1_000, 10_000]


def test_growth_and_canvases_are_told_as_the_largest_over_the_smallest() -> None:
    rows, plan = module("rows"), module("plan")
    sizes = [(100, [rows.row("growth", "read", [5.0], "images/s")]), (10_000, [rows.row("growth", "read", [4.0], "images/s")])]
    (one,) = plan.over_sizes(sizes)
    assert (one.what, one.value, one.unit) == ("read, 10,000 over 100", 0.8, rows.RATIO)
    columns = {"drawn": "drawn, images a second", "generate MiB": "generate, peak MiB"}
    told = module("growing").canvas_rows({256: {"drawn": 2.0, "generate MiB": 500.0}, 1024: {"drawn": 1.0, "generate MiB": 600.0}}, columns)
    assert [(row.what, row.value) for row in told] == [
        ("canvas: drawn, 256 px", 2.0), ("canvas: drawn, 1,024 px", 1.0), ("canvas: drawn, 1,024 over 256", 0.5),
        ("canvas: generate peak memory, 256 px", 500.0), ("canvas: generate peak memory, 1,024 px", 600.0),
        ("canvas: generate peak memory, 1,024 over 256", 1.2),
    ]  # fmt: skip


def test_a_ratio_is_one_of_its_own_round(tmp_path: Path) -> None:
    rows = module("rows")
    calls: list[str] = []

    def rate(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    found = rows.rounds(2, {"one": lambda: rate("one"), "other": lambda: rate("other")})
    assert calls == ["one", "other", "other", "one", "one", "other"], "in turn, and every other round backwards"
    one = rows.ratio("sampling", "one / other", found["one"], found["other"])
    assert (one.low, one.high, one.repeats) == (5 / 6, 4 / 3, 2)
    lines = rows.told([one])
    assert len({line.count("|") for line in lines}) == 1
    assert "0.833 to 1.33" in lines[2]
    write_table(tmp_path / "bench.parquet", rows.to_table([one], {"threads": "1"}))
    table = pq.read_table(tmp_path / "bench.parquet")
    assert table.schema.names == rows.BENCH_SCHEMA.names
    assert table.schema.metadata[b"threads"] == b"1"
    assert table["value"].to_pylist() == [one.value]


def test_operations_are_counted_as_by_hand_forwards_and_backwards() -> None:
    """Two matrix products of an attention of 3 heads, 5 by 7 positions and 4 numbers; backwards five; a linear layer twice its own."""
    count = module("arithmetic").operations
    query, key, value = (torch.randn(2, 3, length, 4, requires_grad=True) for length in (5, 7, 7))
    product = 2 * 2 * 3 * 5 * 7 * 4
    with torch.no_grad():
        assert count(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value)) == 2 * product
    assert count(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value).sum().backward()) == 7 * product
    weight, given = torch.randn(4, 6, requires_grad=True), torch.randn(8, 6, requires_grad=True)
    assert count(lambda: (given @ weight.T).sum().backward()) == 3 * 2 * 8 * 6 * 4
