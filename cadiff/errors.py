"""The one error that a user may see: what was expected, what came, what to do."""

import errno
import os
import sys
import traceback
from collections.abc import Callable


class CADiffError(Exception):
    """The work failed or something does not verify (exit code 1). The message names the file or key."""

    exit_code = 1


class UsageError(CADiffError):
    """The call, the configuration or the input data is wrong (exit code 2)."""

    exit_code = 2


class TransientError(CADiffError):
    """The work failed for a reason that may pass, such as a lost connection (exit code 75, EX_TEMPFAIL of sysexits)."""

    exit_code = 75


ROOM, RIGHT = "Make room, and run again", "Give yourself the right to it, and run again"
REFUSED = {  # by the disk: what to do
    errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EFBIG: "Raise the limit on the size of files (ulimit -f), and run again",
    errno.EROFS: RIGHT, errno.EACCES: RIGHT, errno.EPERM: RIGHT,
}  # fmt: skip


def refused(path: object, error: OSError) -> CADiffError | None:
    """What the disk has refused, as an error with its remedy; None: it is a fault of another kind."""
    if error.errno not in REFUSED:
        return None
    what = "may not be used" if REFUSED[error.errno] == RIGHT else "not written"
    return CADiffError(f"{path}: {what} ({os.strerror(error.errno or 0)}); what was there is whole. {REFUSED[error.errno]}.")


def exit_code(work: Callable[[], object], debug: bool = False) -> int:
    """Runs ``work`` as a command does: 0 when it returns; otherwise one line on stderr (with ``debug`` the
    traceback too) and the error's exit code, 130 when the user interrupts."""
    try:
        work()
    except (CADiffError, OSError) as error:
        told = error if isinstance(error, CADiffError) else refused(error.filename or "a temporary file", error)
        if told is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"error: {told}", file=sys.stderr)
        return told.exit_code
    except KeyboardInterrupt:
        print("interrupted: finished artefacts and parts (.cadiff/work) are kept; run again", file=sys.stderr)
        return 130
    return 0
