"""benchmarks/orchestration.py: what it compares with, and a server that does not come up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cadiff.storage import write_json

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("orchestration")


def test_the_last_run_is_that_of_the_graph(bench: ModuleType, tmp_path: Path) -> None:
    bench.new_project(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(ROOT / "presets" / "smoke.yaml", tmp_path / "params.yaml")
    times = tmp_path / ".cadiff" / "times"
    names = ["report", "settings"]
    for product in ("fabric", "nut"):
        names += [f"{stage}-{product}" for stage in ("draw", "samples", "adapt")]
        names += [f"{stage}-{product}-cadiff" for stage in ("scenes", "train", "generate", "showcase", "quality", "detect", "ship")]
        names += [f"{stage}-{product}-exemplars" for stage in ("synthesize", "quality", "detect")]
    for name in [*names[1:], "detect-left-over"]:
        write_json(times / f"{name}.json", {"seconds": 2.0})
    assert bench.last_run(tmp_path) == (len(names), None), "the report was not run"
    write_json(times / "report.json", {"seconds": 5.0})
    assert bench.last_run(tmp_path) == (len(names), 2.0 * (len(names) - 1) + 5.0)


def test_cpu_time_is_that_of_all_processes_that_were_started(bench: ModuleType, tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 1: pass\n"
    (tmp_path / "busy.py").write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}], check=True)\n")
    (tmp_path / "idle.py").write_text("import time\ntime.sleep(1)\n")
    at_work, at_rest = (bench.run(tmp_path, tmp_path, name, PYTHONPATH=str(tmp_path))[0] for name in ("busy", "idle"))
    assert 1 <= at_work.cpu < 3
    assert at_rest.cpu < 1 <= at_rest.wall
    assert str(bench.median([at_work, at_rest, bench.Took(0, 0)], 2)).endswith(f"({at_rest.cpu / 2:.2f} s of CPU time)")


def test_a_server_that_does_not_come_up_is_said(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PATIENCE", 0.2)
    with pytest.raises(SystemExit, match=r"prefect server start .*: expected a healthy server within 0 s; it runs"), bench.server(tmp_path):
        pytest.fail("a server was given that is not healthy")
