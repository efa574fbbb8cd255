"""Parts on real Dask workers: what comes back, what a lost worker costs, and what a broken cluster says."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from cadiff.cluster import run_parts
from cadiff.errors import CADiffError, TransientError, UsageError
from cadiff.generator import adapt_base, generate_shards, train_generator
from cadiff.masks import make_masks
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.storage import sha256_folder


def square(folder: Path, number: int) -> tuple[int, int]:
    """A part that leaves a trace; the last one kills its own worker, once, when others have long come back."""
    with (folder / f"part-{number}").open("a") as trace:
        trace.write("run\n")
    if number == 7 and not (folder / "killed").exists():
        time.sleep(1.5)
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), number * number


def refuse(number: int) -> None:
    raise CADiffError(f"part {number}: no cloth left")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_lost_worker_costs_no_part_that_came_back(tmp_path: Path) -> None:
    results, before = {}, set()
    for index, result in run_parts("local:2", square, (tmp_path,), [(k,) for k in range(8)]):
        results[index] = result
        if not (tmp_path / "killed").exists():
            before.add(index)
    assert {k: value for k, (_, value) in results.items()} == {k: k * k for k in range(8)}
    assert os.getpid() not in {process for process, _ in results.values()}
    runs = [len((tmp_path / f"part-{k}").read_text().split()) for k in range(8)]
    assert runs[7] == 2, "the killed part was not run again"
    assert before, "nothing came back before the worker was killed"
    assert [runs[k] for k in before] == [1] * len(before), "a part that had come back was computed again"


def test_in_this_process_parts_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "killed").touch()
    results = list(run_parts(None, square, (tmp_path,), [(k,) for k in range(3)]))
    assert [index for index, _ in results] == [0, 1, 2]
    assert {process for _, (process, _) in results} == {os.getpid()}
    assert list(run_parts("tcp://127.0.0.1:1", square, (tmp_path,), [])) == [], "nothing to do needs no cluster"


@pytest.mark.slow
def test_what_fails_on_a_worker_fails_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CADiffError, match="part 3: no cloth left"):
        list(run_parts("local:1", refuse, (), [(3,)]))
    with pytest.raises(CADiffError, match="part 1 of 1 lost 4 workers"):
        list(run_parts("local:1", die, (), [()]))
    monkeypatch.setattr("cadiff.cluster.PATIENCE", 1.0)
    with pytest.raises(TransientError, match=r"expected a Dask scheduler with a worker at tcp://127.0.0.1:1 within 1 s"):
        list(run_parts("tcp://127.0.0.1:1", refuse, (), [(0,)]))
    monkeypatch.setattr("cadiff.cluster.code_digest", lambda: "another")
    with pytest.raises(UsageError, match="a worker has another version of cadiff"):
        list(run_parts("local:1", refuse, (), [(0,)]))


@pytest.mark.slow
def test_generated_bytes_are_those_of_this_process(small_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    adapt_base(small_params, "nut", nut_samples, tmp_path / "adapted", tmp_path / "a")
    train_generator(small_params, "nut", nut_samples, tmp_path / "adapted", tmp_path / "generator", tmp_path / "t")
    masks = make_masks(small_params, "nut", nut_samples)
    for name, cluster in (("here", None), ("there", "local:2")):
        params = small_params.model_copy(update={"cluster": cluster})
        arguments = (params, "nut", nut_samples, tmp_path / "adapted", tmp_path / "generator", masks)
        generate_shards(*arguments, tmp_path / name, tmp_path / f"work-{name}")
    assert len(list((tmp_path / "there").iterdir())) == 4
    assert sha256_folder(tmp_path / "there") == sha256_folder(tmp_path / "here")
    assert sha256_folder(tmp_path / "work-there") == sha256_folder(tmp_path / "work-here")
    started = time.monotonic()
    generate_shards(*arguments, tmp_path / "again", tmp_path / "work-there")
    assert sha256_folder(tmp_path / "again") == sha256_folder(tmp_path / "here")
    assert time.monotonic() - started < 1, "a cluster was started though no part was left"
