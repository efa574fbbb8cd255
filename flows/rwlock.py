"""What a killed DVC leaves behind: ``.dvc/tmp/rwlock``, cut off while it was written, which no later DVC can read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path


def mend_rwlock(root: Path, say: Callable[[str], None]) -> None:
    """Removes a checkout's rwlock file that is cut off, and says so.

    DVC writes it whole while it holds ``rwlock.lock``, so one that is not whole under that lock has a dead writer. It
    lists which process reads or writes which path. A living DVC that had itself listed there fails when it ends, as it would
    have failed over the cut-off file; its work is done again by the next run.
    """
    from dvc.lock import LockError, make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    folder = root / ".dvc" / "tmp"
    path = folder / RWLOCK_FILE
    if not path.is_file():
        return
    with contextlib.suppress(LockError), make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder)):  # held: somebody works with it
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except json.JSONDecodeError:
            path.unlink()
            say(f"{path}: removed, a DVC that was killed had left it cut off")
