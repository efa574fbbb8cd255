"""The one error that a user may see: what was expected, what came, what to do."""

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


def exit_code(work: Callable[[], object], debug: bool = False) -> int:
    """Runs ``work`` as a command does: 0 when it returns; otherwise one line on stderr (with ``debug`` the
    traceback too) and the error's exit code, 130 when the user interrupts."""
    try:
        work()
    except CADiffError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: finished artefacts and parts (.cadiff/work) are kept; run again", file=sys.stderr)
        return 130
    return 0
