"""A disk that is full or may not be written, data that change while a stage runs, a clock that was set back: at each the exit status,
what is kept, and what a rerun does."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from cadiff.errors import CADiffError, TransientError, UsageError, exit_code
from cadiff.params import load_params
from cadiff.records import SAMPLE_SCHEMA
from cadiff.stages import prune_work, resolve, run_stage
from cadiff.storage import read_table, sha256_folder, write_bytes, write_json, write_table, write_tensors
from cadiff.unchanged import all_below, changed, stamps

SAMPLES = Path("data/made/samples/plate.parquet")
METHOD = "exemplars"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB to write to."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if os.geteuid() or subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk, and not in every container")
    yield place
    subprocess.run(["umount", str(place)], check=True)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "bytes": lambda path, seed: write_bytes(path, bytes([seed]) * 200_000),
    "json": lambda path, seed: write_json(path, [seed] * 100_000),
    "table": lambda path, seed: write_table(path, pa.table({"a": [os.urandom(20) for _ in range(10_000)]})),
    "tensors": lambda path, seed: write_tensors(path, {"a": torch.full((200, 200), float(seed))}, {"seed": str(seed)}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_does_not_fit_leaves_what_was_there_before(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "out" / "file"
    WRITERS[writer](path, 1)
    before = path.read_bytes()
    with largest_file(50_000), pytest.raises(CADiffError, match=r"out/file: not written \(File too large\); .* Raise the limit"):
        WRITERS[writer](path, 2)
    assert [found.name for found in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == before
    WRITERS[writer](path, 2)  # as it says
    assert path.read_bytes() != before


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_nothing_half_written(writer: str, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: WRITERS[writer](small_disk / "file", 1)) == 1
    said = capsys.readouterr().err
    assert said == f"error: {small_disk}/file: not written (No space left on device); what was there is whole. Make room, and run again.\n"
    assert list(small_disk.iterdir()) == []


def samples() -> int:
    """The stage's exit status."""
    return exit_code(lambda: run_stage("samples", load_params(), "plate"))


def test_a_stage_whose_output_does_not_fit_fails_in_one_line_and_runs_again(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with largest_file(2000):
        assert samples() == 1
    assert capsys.readouterr().err.startswith(f"error: {SAMPLES}: not written (File too large); what was there is whole. Raise the limit")
    assert list(SAMPLES.parent.iterdir()) == []
    assert samples() == 0
    assert read_table(SAMPLES, SAMPLE_SCHEMA).num_rows == 15


def test_a_stage_that_may_not_write_fails_in_one_line(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert samples() == 0
    before = sha256_folder("data")
    with as_one_who_may_not_write(SAMPLES.parent):
        assert samples() == 1
    said, remedy = capsys.readouterr().err, "Give yourself the right to it, and run again."
    assert said == f"error: {SAMPLES}: may not be used (Permission denied); what was there is whole. {remedy}\n"
    assert sha256_folder("data") == before
    assert samples() == 0


@contextmanager
def as_one_who_may_not_write(folder: Path) -> Iterator[None]:
    """A user whom rights bind, which root is not: another one, who may read all."""
    mode, root = folder.stat().st_mode, os.geteuid() == 0
    for parent in folder.absolute().parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


@contextmanager
def touched(path: Path) -> Iterator[None]:
    """Somebody writes to a file all the while."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(0.001):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_data_that_change_while_they_are_read_are_no_result(repository: Path) -> None:
    picture = repository.parent / "raw/plate/test/spot/010.png"
    with touched(picture), pytest.raises(TransientError, match=rf"^{picture}: changed while the data set was read. Run again when"):
        run_stage("samples", load_params(), "plate")
    run_stage("samples", load_params(), "plate")
    assert read_table(SAMPLES, SAMPLE_SCHEMA).num_rows == 15


def test_a_file_that_comes_or_goes_is_a_change_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good/a.png").write_text("a")
    os.utime(tmp_path / "good", (1e9, 1e9))
    before = stamps(all_below(tmp_path))
    assert changed(before) is None
    (tmp_path / "good/b.png").write_text("b")
    assert changed(before) == tmp_path / "good"
    (tmp_path / "good/b.png").unlink()
    (tmp_path / "good/a.png").unlink()
    assert changed(stamps(all_below(tmp_path))) is None
    assert set(before) - set(stamps(all_below(tmp_path))) == {tmp_path / "good/a.png"}


def test_data_that_change_while_a_stage_computes_leave_no_state_to_go_on_from(repository: Path) -> None:
    params, picture = load_params(), repository.parent / "raw/plate/train/good/003.png"
    for name, method in (("samples", ""), ("synthesize", METHOD)):
        run_stage(name, params, "plate", method)
    with touched(picture), pytest.raises(CADiffError, match=r"good/003.png: changed while detect ran. Run again \(dvc repro\)"):
        run_stage("detect", params, "plate", METHOD)
    assert list(Path(".cadiff/work/detect").iterdir()) == []
    run_stage("detect", params, "plate", METHOD)
    once = sha256_folder(f"data/made/evaluated/{METHOD}/plate")
    shutil.rmtree(".cadiff/work")
    run_stage("detect", params, "plate", METHOD)
    assert sha256_folder(f"data/made/evaluated/{METHOD}/plate") == once


def test_data_that_vanish_are_named_and_what_was_made_before_stays(repository: Path) -> None:
    params, picture = load_params(), repository.parent / "raw/plate/train/good/003.png"
    for name, method in (("samples", ""), ("synthesize", METHOD)):
        run_stage(name, params, "plate", method)
    before = sha256_folder("data/made")
    picture.rename(repository / "away.png")
    with pytest.raises(UsageError, match=rf"^{picture}: expected an image, but there is no such file"):
        run_stage("detect", params, "plate", METHOD)
    assert sha256_folder("data/made") == before
    (repository / "away.png").rename(picture)
    run_stage("detect", params, "plate", METHOD)
    shutil.move(repository.parent / "raw", repository.parent / "unmounted")
    for name, method in (("samples", ""), ("detect", METHOD)):
        with pytest.raises(UsageError, match=r"raw: expected a folder|but there is no such file"):
            run_stage(name, params, "plate", method)


def test_the_state_of_the_run_itself_is_kept_whatever_the_clock_says(repository: Path) -> None:
    params = load_params()
    for name, method in (("samples", ""), ("synthesize", METHOD)):
        run_stage(name, params, "plate", method)
    run = resolve("detect", params, "plate", METHOD)
    work = run.work(*run.sources)
    later = work.with_name(f"{run.name}-{16 * 'a'}")
    later.mkdir()
    os.utime(work, (1e9, 1e9))
    os.utime(later, (4e9, 4e9))
    prune_work(run)
    assert list(work.parent.iterdir()) == [work]


def dvc(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_dvc_runs_again_what_failed_and_nothing_for_a_time_alone(repository: Path) -> None:
    """A clock that is set back or forward changes no content, and what has another content is seen whatever its time."""
    target, raw = "samples@plate", repository.parent / "raw/plate"
    call = [sys.executable, "-m", "dvc", "repro", "--single-item", target]
    done = subprocess.run(
        call, capture_output=True, text=True, check=False, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )  # fmt: skip
    assert done.returncode != 0
    assert not SAMPLES.exists()
    assert "Running stage" in dvc("repro", target)
    files = [*raw.rglob("*.png"), SAMPLES, Path("dvc.lock"), Path("params.yaml")]
    for moment in (0, 4e9):
        for path in files:
            os.utime(path, (moment, moment))
        assert "didn't change" in dvc("repro", target), moment
    first, second = sorted((raw / "train/good").iterdir())[:2]
    shutil.copy(second, first)
    os.utime(first, (4e9, 4e9))
    assert "Running stage" in dvc("repro", target)
