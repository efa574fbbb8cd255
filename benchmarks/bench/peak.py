"""A process's own peak memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def own_peak() -> float:
    """This program's peak memory in MiB. ``getrusage`` would count what its parent held before it was started."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
