"""Where a user's files are opened: whatever the disk makes of that is an error that names the file."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cadiff.errors import UsageError

LARGEST = 2**31  # bytes of a file that is read whole: more than any picture has that is decoded


@contextlib.contextmanager
def opened(path: str | Path, what: str = "a file") -> Iterator[BinaryIO]:
    """A user's file as a stream of bytes; ``what`` is expected there, such as "an image". Within the block only this file is read.

    Raises:
        UsageError: names the file where it is absent, a folder, a pipe or a device, may not be read, or reading it fails.
    """
    try:
        kind = os.stat(path).st_mode  # a pipe would be waited for, a device has no end
        if stat.S_ISDIR(kind):
            raise UsageError(f"{path}: expected {what}, found a folder.")
        if not stat.S_ISREG(kind):
            raise UsageError(f"{path}: expected {what}, found no plain file (a pipe or a device).")
        with open(path, "rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: expected {what}, but there is no such file.") from None
    except OSError as error:
        if error.filename not in (None, path, str(path)):
            raise
        raise UsageError(f"{path}: expected {what}, but it does not open ({reason(error)}). {remedy(error)}") from None
    except ValueError as error:
        if "embedded null" not in str(error):  # of a name, and not of what the block read
            raise
        raise UsageError(f"{path!r}: expected {what}, but no file has such a name ({error}).") from None


def read_file(path: str | Path, what: str = "a file", most: int = LARGEST) -> bytes:
    """A user's file as it is.

    Raises:
        UsageError: as ``opened``, or if it has more than ``most`` bytes.
    """
    with opened(path, what) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UsageError(f"{path}: expected {what} of at most {most / 1e6:.0f} MB, found more. Cut it in pieces.")
    return data


def reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "Give the user that runs this the right to read it, or move it away."
    return "Copy it from where it came anew, or move it away."
