"""The one error that a user may see: what was expected, what came, what to do."""


class CADiffError(Exception):
    """The work failed or something does not verify (exit code 1). The message names the file or key."""

    exit_code = 1


class UsageError(CADiffError):
    """The call, the configuration or the input data is wrong (exit code 2)."""

    exit_code = 2
