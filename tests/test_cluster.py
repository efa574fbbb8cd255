"""Parts on real Dask workers: what comes back, what a lost worker costs, and what a broken cluster says."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from distributed import default_client

from cadiff.cluster import run_parts
from cadiff.errors import CADiffError, TransientError, UsageError
from cadiff.generator import adapt_base, generate_shards, train_generator
from cadiff.masks import make_scenes
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.storage import sha256_folder
from cadiff.task import Task


def square(folder: Path, number: int) -> tuple[int, int]:
    """A part that leaves a trace; the last to begin kills its own worker, once, when it is told that the others came back.

    Workers begin parts in any order, so which one is the last is known when it begins.
    """
    with (folder / f"part-{number}").open("a") as trace:
        trace.write("run\n")
    if len(list(folder.glob("part-*"))) == 8 and claim(folder / "last", number):
        wait_until((folder / "others-came-back").exists)
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), number * number


def claim(file: Path, number: int) -> bool:
    """Whether the file was not there yet; then it holds the number."""
    try:
        with file.open("x") as taken:
            taken.write(str(number))
    except FileExistsError:
        return False
    return True


def refuse(number: int) -> None:
    raise CADiffError(f"part {number}: no cloth left")


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "shard.parquet")


def begin(folder: Path, number: int) -> None:
    """A part that says that it runs, and does not end by itself."""
    (folder / f"began-{number}").touch()
    time.sleep(600)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])  # of one alone, the part that came back last is always the lost worker's
def test_a_lost_worker_costs_no_part_that_came_back(workers: int, tmp_path: Path) -> None:
    results = {}
    for index, result in run_parts(f"local:{workers}", square, (tmp_path,), [(k,) for k in range(8)]):
        results[index] = result
        if len(results) == 7:
            wait_until(lambda: held_tasks() == 2, "the cluster holds more than the last part and its arguments")
            (tmp_path / "others-came-back").touch()
    assert {k: value for k, (_, value) in results.items()} == {k: k * k for k in range(8)}
    assert os.getpid() not in {process for process, _ in results.values()}
    runs = [len((tmp_path / f"part-{k}").read_text().split()) for k in range(8)]
    last = int((tmp_path / "last").read_text())
    assert runs.pop(last) == 2, "the killed part was not run again"
    assert runs == [1] * 7, "a part that had come back was computed again"


def held_tasks() -> int:
    """How many tasks the scheduler of this process's client would compute again if their workers were lost."""
    return default_client().run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))


@contextmanager
def cluster(folder: Path, threads: int = 1) -> Iterator[tuple[str, subprocess.Popen]]:
    """A scheduler and a worker as a user starts them: the address and the scheduler's process."""
    file, dask = folder / "scheduler.json", [sys.executable, "-m", "dask"]
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    log = (folder / "dask.log").open("w")
    options = {"cwd": folder, "stdout": log, "stderr": log, "env": {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}}
    scheduler = subprocess.Popen([*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *common], **options)
    started = [scheduler]
    try:
        wait_until(lambda: file.exists() and file.stat().st_size)  # it is there before it is written
        worker = [*dask, "worker", "--no-nanny", "--nthreads", str(threads), "--memory-limit", "0", *common]
        started.append(subprocess.Popen(worker, **options))
        yield json.loads(file.read_text())["address"], scheduler
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def wait_until(ask: Callable[[], object], otherwise: str = "it did not happen", seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def test_a_lost_scheduler_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    def kill() -> None:
        wait_until((tmp_path / "began-0").exists)
        scheduler.kill()

    with cluster(tmp_path) as (address, scheduler):
        Thread(target=kill, daemon=True).start()
        with pytest.raises(TransientError, match=r"cluster: the scheduler is lost .*scheduler-connection-lost"):
            list(run_parts(address, begin, (tmp_path,), [(0,)]))


def test_a_worker_of_several_threads_is_refused(tmp_path: Path) -> None:
    with cluster(tmp_path, threads=2) as (address, _), pytest.raises(UsageError, match="one part at a time, found 2 at tcp://127"):
        list(run_parts(address, refuse, (), [(0,)]))


def test_a_full_disk_of_a_worker_is_not_a_lost_scheduler() -> None:
    with pytest.raises(CADiffError, match=r"part 1 of 1 failed on its worker .*No space left on device: 'shard.parquet'") as caught:
        list(run_parts("local:1", fill_disk, (), [()]))
    assert caught.value.exit_code == 1, "the same disk would be full on a second try"


def test_in_this_process_parts_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "last").touch()
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
def test_generated_bytes_are_those_of_this_process(windowed_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    adapt_base(Task(windowed_params, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "a")
    train_generator(Task(windowed_params, "nut", "cadiff", nut_samples), tmp_path / "adapted", tmp_path / "generator", tmp_path / "t")
    scenes = make_scenes(Task(windowed_params, "nut", samples=nut_samples))
    for name, cluster in (("here", None), ("there", "local:2")):
        params = windowed_params.model_copy(update={"cluster": cluster})
        arguments = (Task(params, "nut", "cadiff", nut_samples), tmp_path / "adapted", tmp_path / "generator", scenes)
        generate_shards(*arguments, tmp_path / name, tmp_path / f"work-{name}")
    assert len(list((tmp_path / "there").iterdir())) == 4
    assert sha256_folder(tmp_path / "there") == sha256_folder(tmp_path / "here")
    assert sha256_folder(tmp_path / "work-there") == sha256_folder(tmp_path / "work-here")
    started = time.monotonic()
    generate_shards(*arguments, tmp_path / "again", tmp_path / "work-there")
    assert sha256_folder(tmp_path / "again") == sha256_folder(tmp_path / "here")
    assert time.monotonic() - started < 1, "a cluster was started though no part was left"
