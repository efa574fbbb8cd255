"""``python guard.py PARENT COMMAND...``: runs a command that never outlives the process PARENT, its starter.

A stage is a tree of processes (DVC, a shell, Python). If the pipeline is killed, orphans would go on
computing and hold DVC's locks. The guard leads a process group of its own, is told by the kernel when its
parent dies, and then ends the whole group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 10.0


def die_with_parent(parent: int) -> None:
    """Asks Linux for a SIGTERM when the parent is gone; elsewhere the pipeline's own clean-up is all."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(128 + signal.SIGTERM)


def on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def main(arguments: list[str]) -> int:
    """Runs ``arguments[1:]``; ``arguments[0]`` is the process id of who started the guard."""
    signal.signal(signal.SIGTERM, on_sigterm)
    die_with_parent(int(arguments[0]))
    command = subprocess.Popen(arguments[1:])
    try:
        return command.wait()
    except SystemExit:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(GRACE_SECONDS)
        os.killpg(0, signal.SIGKILL)  # what did not listen, and this process
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
