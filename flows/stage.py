"""One stage of DVC's graph in a subprocess: a plain call, or a Prefect task or flow.

``python -m flows.stage train@fabric-cadiff`` runs that stage if it is out of date.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow, task
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

from cadiff.errors import CADiffError, exit_code

SILENT = {"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()


def in_run() -> bool:
    """Whether the caller is inside a Prefect flow or task run."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def teller(address: str) -> Callable[[str], None]:
    """Where a stage's lines go: the run's log inside Prefect, standard output elsewhere."""
    if in_run():
        return get_run_logger().info
    return lambda line: print(f"[{address}] {line}", flush=True)


def run_stage(address: str, root: Path, force: bool = False) -> None:
    """Brings one DVC stage up to date, and streams what it says.

    Raises:
        CADiffError: if the stage fails; the message ends with the last thing that it said.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", address]
    if force:
        command.append("--force")
    tell, last = teller(address), ""
    with guarded(command, root) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if text := line.rstrip():
                tell(text)
                if text.startswith("error: ") or not last.startswith("error: "):
                    last = text
        status = process.wait()
    if status != 0:
        raise CADiffError(f"{address}: the stage failed (exit code {status}): {last}")


@contextmanager
def guarded(command: list[str], root: Path) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group that ends when this process does, however it does."""
    python_first = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    guard = str(Path(__file__).with_name("guard.py"))
    process = subprocess.Popen(
        [sys.executable, guard, str(os.getpid()), *command],
        cwd=root,
        env={**os.environ, **SILENT, "PATH": python_first},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with _lock:
        _running.add(process)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        with _lock:
            _running.discard(process)


def end_all() -> None:
    """Ends every stage that this process started; the guards take their groups along."""
    with _lock:
        processes = list(_running)
    for process in processes:
        process.terminate()


stage_task = task(name="stage", task_run_name="{address}")(run_stage)


@flow(name="cadiff-stage", flow_run_name="{address}", log_prints=True)
def stage(address: str, root: Path = Path(), force: bool = False) -> None:
    """One stage as a flow of its own, for a deployment that runs stages on different machines."""
    run_stage(address, root, force)


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python -m flows.stage STAGE   (names: dvc stage list --name-only)", file=sys.stderr)
        return 2
    return exit_code(lambda: run_stage(sys.argv[1], Path()))


if __name__ == "__main__":
    sys.exit(main())
