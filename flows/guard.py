"""``python guard.py PARENT COMMAND...``: runs a command that never outlives the process PARENT, its starter.

A stage is a tree of processes (DVC, a shell, Python, perhaps Dask workers). If the pipeline is killed, orphans would go
on computing and hold DVC's locks. The guard leads a process group of its own, is told by the kernel when its parent
dies, adopts what its command leaves behind, and ends the whole group before it ends itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0


def die_with_parent(parent: int) -> None:
    """Asks Linux for a SIGTERM when the parent is gone, and for the parentage of orphans below this process; elsewhere
    the pipeline's own clean-up is all."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(128 + signal.SIGTERM)


def on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def has_children() -> bool:
    """Whether a process below this one is alive; the dead ones are buried."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def end_group() -> None:
    """Ends every process below this one: politely, then not."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not has_children():
        return
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while has_children() and time.monotonic() < deadline:
        time.sleep(0.02)
    while has_children():
        import psutil

        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


def main(arguments: list[str]) -> int:
    """Runs ``arguments[1:]``; ``arguments[0]`` is the process id of who started the guard."""
    signal.signal(signal.SIGTERM, on_sigterm)
    die_with_parent(int(arguments[0]))
    try:  # from the first moment: a signal may come while the command starts
        status = subprocess.Popen(arguments[1:]).wait()
    finally:
        end_group()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
