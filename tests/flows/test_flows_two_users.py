"""Two at work on one checkout: what is done is done once and whole, and who has to wait or is refused is told why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cadiff.errors import CADiffError
from flows.stage import checkout_lock

ROOT = Path(__file__).resolve().parents[2]
FLOW, DVC = ("flows.pipeline",), ("dvc", "repro")


def at_once(project: Path, *calls: tuple[str, ...]) -> list[tuple[int, str]]:
    """Exit status and what was said of each call, all started together."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *call], cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for call in calls
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("calls", [(FLOW, FLOW), (DVC, DVC), (FLOW, DVC)], ids=["two flows", "two repros", "a flow and a repro"])
def test_two_runs_at_once_do_no_harm(project: Path, calls: tuple[tuple[str, ...], ...]) -> None:
    ended = at_once(project, *calls)
    for status, said in ended:
        refused = any(text in said for text in ("another pipeline run", "another DVC is at work", "is busy", "Unable to acquire lock"))
        assert status == 0 or refused, said
    if set(calls) == {FLOW}:
        assert 0 in [status for status, _ in ended]
        assert (project / "log").read_text().split() == ["start", "end"] * 3, "a stage ran twice, or two beside each other"
    assert [status for status, _ in at_once(project, DVC)] == [0], "a rerun ends it, whoever was refused"
    assert (project / "report").read_text() == "done\n" * 3
    ((status, said),) = at_once(project, FLOW)
    assert (status, "everything is up to date" in said) == (0, True), said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_checkout_of_another_user_is_refused_by_name(project: Path) -> None:
    (project / ".cadiff").mkdir()
    (project / ".cadiff/pipeline.lock").write_text("1\n")
    for parent in (project, *project.parents):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(CADiffError) as error, checkout_lock(project):
            pass
    finally:
        os.seteuid(0)
    assert str(error.value) == (
        f"{project}/.cadiff/pipeline.lock: may not be used (Permission denied); what was there is whole. Give yourself the right to it, "
        "and run again."
    )
