"""One stage of DVC's graph in a subprocess: a plain call, or a Prefect task with a flow run of its own.

``python -m flows.stage train@fabric-cadiff`` runs that stage if it is out of date.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings

from cadiff.errors import CADiffError, exit_code, refused
from cadiff.progress import SILENCE, speaking
from flows.artifacts import StageBar, publish_sheet
from flows.rwlock import mend_rwlock

SILENT = {"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
ATTEMPTS = 2
PAUSE = 5.0  # seconds before the second attempt
REMEMBERED = 40  # a stage's last lines, searched for the reason of a failure
# What may pass on a second try: a pattern in a failed stage's last lines, and the reason in words.
PASSING = {
    r"exited with 75\b": "it said that the cause may pass",
    r"exited with (-9|137)\b": "it was killed from outside, as when memory runs out",
    r"Unable to acquire lock|is busy|database is locked": "another process held DVC's lock",
    r"RWLock-file .* corrupted": "a DVC that was killed had left its lock file cut off",
    r"OutOfMemoryError": "the device's memory was full, as when another process holds it",
}
_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()
_ending = threading.Event()


def in_run() -> bool:
    """Whether the caller is inside a Prefect flow or task run."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def server_answers() -> bool:
    """Whether a Prefect API is named and answers; one that is named and silent is reported."""
    url = get_current_settings().api.url
    if not url:
        return False
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        print(f"no Prefect server answers at {url} ({problem}): running without one", file=sys.stderr)
    return problem is None


def teller(address: str) -> Callable[[str], None]:
    """Where a stage's lines go: the run's log inside Prefect, standard output elsewhere."""
    if in_run():
        return get_run_logger().info
    return lambda line: print(f"[{address}] {line}", flush=True)


def run_stage(address: str, root: Path, force: bool = False, environment: Mapping[str, str] | None = None) -> None:
    """Brings one DVC stage up to date, and streams what it says. What may pass on a second try is tried twice.

    Raises:
        CADiffError: if the stage fails; the message ends with the last thing that it said.
    """
    tell = teller(address)
    for attempt in range(1, ATTEMPTS + 1):
        mend_rwlock(root, tell)
        status, lines = _attempt(address, root, force, environment or {}, tell)
        if status == 0:
            return
        reason = passing_reason(status, lines)
        if reason is None or attempt == ATTEMPTS or _ending.is_set():
            break
        tell(f"{address} failed, but {reason}: attempt {attempt + 1} of {ATTEMPTS} in {PAUSE:.0f} s")
        _ending.wait(PAUSE)
    raise CADiffError(f"{address}: the stage failed (exit code {status}): {last_words(lines)}")


def _attempt(
    address: str, root: Path, force: bool, environment: Mapping[str, str], tell: Callable[[str], None]
) -> tuple[int, list[str]]:
    """The exit code and the last lines of one run of a stage."""
    options = ["--single-item", *(["--force"] if force else [])]
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *options, address]
    lines: deque[str] = deque(maxlen=REMEMBERED)
    bar = StageBar(address) if in_run() else None
    # a stage speaks after SILENCE itself; DVC does not while it hashes large files
    with guarded(command, root, environment) as process, speaking(address, SILENCE + 1, tell) as heard:
        assert process.stdout is not None
        for line in process.stdout:
            if text := line.rstrip():
                heard()
                tell(text)
                lines.append(text)
                if bar:
                    bar.see(text)
                    publish_sheet(address, text, root)
        return process.wait(), list(lines)


def passing_reason(status: int, lines: list[str]) -> str | None:
    """Why a failed stage may pass on a second try; None where nothing says that it may."""
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return PASSING[r"exited with (-9|137)\b"]
    return next((reason for pattern, reason in PASSING.items() if any(re.search(pattern, line) for line in lines)), None)


def last_words(lines: list[str]) -> str:
    """The stage's own error if it named one, else its last line."""
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1]


@contextmanager
def guarded(command: list[str], root: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group that ends when this process does, however it does.

    Raises:
        CADiffError: if the run is ending: ``end_all`` has seen all that will ever be started.
    """
    python_first = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    guard = str(Path(__file__).with_name("guard.py"))
    with _lock:
        if _ending.is_set():
            raise CADiffError(f"{command[-1]}: not started, because the run is ending")
        process = subprocess.Popen(
            [sys.executable, guard, str(os.getpid()), *command],
            cwd=root,
            env={**os.environ, **SILENT, "PATH": python_first, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=_held_fds(),
        )
        _running.add(process)
    try:
        threading.Thread(target=_bury, args=(process,), daemon=True).start()
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        with _lock:
            _running.discard(process)


def _bury(process: subprocess.Popen[str]) -> None:
    """Should the guard itself be killed, its group would live on, and its output never end."""
    process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end_all() -> None:
    """Ends every stage that this process started; the guards take their groups along."""
    _ending.set()
    with _lock:
        processes = list(_running)
    for process in processes:
        process.terminate()


_checkout: int | None = None  # the lock file of the checkout that this process works on


def _held_fds() -> tuple[int, ...]:
    """Guards hold the checkout's lock too: a new run then waits until a killed one's last stage is over."""
    return () if _checkout is None else (_checkout,)


@contextmanager
def checkout_lock(root: Path, say: Callable[[str], None] = print, patience: float = 20.0) -> Iterator[None]:
    """One pipeline at a time on a checkout; one that ends within ``patience`` seconds is waited for.

    Raises:
        CADiffError: if another one is at work there.
    """
    import fcntl

    global _checkout
    path = root / ".cadiff" / "pipeline.lock"
    try:
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if (mine := refused(path, error)) is None:
            raise
        raise mine from error
    started, told = time.monotonic(), -SILENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                other = f"another pipeline run (process {path.read_text().strip()}) works on this checkout"
                waited = time.monotonic() - started
                if waited > patience:
                    raise CADiffError(f"{path}: {other}. Wait for it, or stop it.") from None
                if waited - told >= SILENCE:
                    say(f"{other}: waiting {patience - waited:.0f} s for it to end")
                    told = waited
                time.sleep(0.2)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        _checkout = handle
        _ending.clear()
        yield
    finally:
        _checkout = None
        os.close(handle)


@flow(name="cadiff-stage", flow_run_name="{address}")
def stage(address: str, root: Path = Path(), force: bool = False, environment: dict[str, str] | None = None) -> None:
    """One stage as a flow run of its own, with its log and its progress."""
    run_stage(address, root, force, environment)


@task(name="stage", task_run_name="{address}")
def stage_task(address: str, root: Path, force: bool = False, environment: dict[str, str] | None = None) -> None:
    """A stage within the pipeline's run: tagged, so that a limit of the server can hold it, with a flow run inside."""
    stage(address, root, force, environment)


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python -m flows.stage STAGE   (names: dvc stage list --name-only)", file=sys.stderr)
        return 2
    return exit_code(lambda: run_stage(sys.argv[1], Path()))


if __name__ == "__main__":
    sys.exit(main())
