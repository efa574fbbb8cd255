"""benchmarks/canvas.py: the same work on every canvas, and a table of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cadiff.data import read_samples
from cadiff.generator import adapt_base, train_generator
from cadiff.records import GENERATED_SCHEMA
from cadiff.storage import read_image, read_table
from cadiff.task import Task


@pytest.fixture
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("canvas")


def test_every_canvas_has_the_same_pictures_and_windows_of_the_same_px(bench: ModuleType, tmp_path: Path) -> None:
    bench.draw_pictures(tmp_path, [256, 320])
    found = {}
    for canvas in (256, 320):
        params = bench.parameters(tmp_path, canvas, 3, 128)
        samples = read_samples(params.dataset, "nut")
        assert {(row.width, row.height) for row in samples} == {(canvas, canvas)}
        found[canvas] = bench.scenes(samples, canvas, 3)
        assert params.dataset.size == "native"
        assert params.detector.size == 128
    assert [scene.mask.sum() for scene in found[256]] == [scene.mask.sum() for scene in found[320]] == [bench.MASK**2] * 3
    assert [scene.types for scene in found[256]] == [("chip",), ("rust",), ("scratch",)]
    small, large = (read_image(tmp_path / str(canvas) / "nut/train/good/000.png") for canvas in (256, 320))
    assert small.mean() == pytest.approx(large.mean(), abs=0.5)


def test_images_are_drawn_and_written(bench: ModuleType, tmp_path: Path) -> None:
    bench.draw_pictures(tmp_path, [96])
    params = bench.parameters(tmp_path, 96, 2, 64)
    params = params.model_copy(update={"generate": params.generate.model_copy(update={"steps": 2})})
    samples = read_samples(params.dataset, "nut")
    adapt_base(Task(params, "nut", samples=samples), tmp_path / "adapted", tmp_path / "a")
    train_generator(Task(params, "nut", "cadiff", samples), tmp_path / "adapted", tmp_path / "generator", tmp_path / "t")
    speeds = bench.generated(params, tmp_path, 96, 2)
    assert min(speeds.values()) > 0
    kinds = {path.stem: read_table(path, GENERATED_SCHEMA).num_rows for path in (tmp_path / "generated-96").glob("*.parquet")}
    assert kinds == {"chip": 1, "rust": 1, "good": 2}


def test_a_line_a_canvas(bench: ModuleType) -> None:
    figures = dict.fromkeys(bench.COLUMNS, 1234.56)
    lines = bench.table({256: figures, 4096: figures})
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 256", "| 4096"]
    assert len({line.count("|") for line in lines}) == 1
    assert "1235" in lines[2], "MiB without decimals"
