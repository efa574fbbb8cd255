"""Pictures on disk, however many: found, counted and decoded a few at a time."""

from __future__ import annotations

import fnmatch
import glob
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cadiff.detection.inspector import pixels_of
from cadiff.errors import CADiffError, UsageError
from cadiff.records import Levels
from cadiff.storage import IMAGE_SUFFIXES
from cadiff.visible import is_passed_over

SUFFIXES = ", ".join(sorted(IMAGE_SUFFIXES))
TOGETHER, PIXELS = 8, 2**22  # pictures that go through the network together: so many, of so many pixels in all
AHEAD = 4  # pictures that are decoded while others are looked at; more would be gigabytes of large ones


@dataclass(frozen=True)
class Read:
    """A file, and either its pixels or why it has none."""

    path: str
    pixels: UInt8[np.ndarray, "h w 3"] | None
    seconds: float
    error: str | None


class Sources:
    """The pictures of a call, found as they are asked for. ``base`` is the folder that all have in common, ``left_alone`` the number of
    files in folders that are no pictures, known after ``count``."""

    def __init__(self, given: Sequence[str], out: Path) -> None:
        self.given, self.out, self.left_alone = list(given), out.resolve(), 0
        self.base = Path(os.path.commonpath([_root(one) for one in self.given]))

    def count(self) -> int:
        """How many there are.

        Raises:
            UsageError: if one of what was given is not there, or has no picture.
        """
        self.left_alone, total = 0, 0
        for one in self.given:
            found = sum(1 for _ in self._of(one))
            if not found:
                hint = "; in a pattern a name's own [ is written [[]" if "[" in one and not os.path.exists(one) else ""
                raise UsageError(f"{one}: expected pictures ({SUFFIXES}), found none{hint}")
            total += found
        return total

    def files(self) -> Iterator[str]:
        for one in self.given:
            yield from self._of(one)

    def name(self, path: str) -> str:
        """The path below ``base``, which no two pictures share."""
        return os.path.relpath(os.path.abspath(path), self.base)

    def _of(self, one: str) -> Iterator[str]:
        if os.path.isdir(one):
            yield from self._below(one)
        elif os.path.exists(one) or not glob.has_magic(one):
            if not os.path.exists(one):
                raise UsageError(f"{one}: expected a picture, a folder or a pattern, but there is no such file")
            yield one
        else:
            for path in _matches(one):
                if os.path.isfile(path) and not self._writes(path):
                    yield path

    def _writes(self, path: str) -> bool:
        """Whether a file lies in what this call writes. Asked of strings: a Path enters every name into Python's table of names."""
        return os.path.realpath(path).startswith(f"{self.out}{os.sep}")

    def _below(self, folder: str) -> Iterator[str]:
        """As the disk lists them: sorting would hold a folder's names. A folder that does not open is told by its own path, as a picture
        that cannot be read."""
        waiting = [folder]
        while waiting:
            current = waiting.pop()
            if Path(current).resolve() == self.out:
                continue
            try:
                entries = os.scandir(current)
            except OSError:
                yield current
                continue
            with entries:
                for entry in entries:
                    if is_passed_over(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file() and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                        yield entry.path
                    else:
                        self.left_alone += 1


def _matches(pattern: str) -> Iterator[str]:
    """What a pattern matches, as ``glob`` has it. That holds all names of a folder before it gives the first; where the last part alone
    is a pattern they are matched as the disk lists them."""
    folder, last = os.path.split(pattern)
    if glob.has_magic(folder) or "**" in last or not last:
        yield from glob.iglob(pattern, recursive=True)
        return
    try:
        entries = os.scandir(folder or os.curdir)
    except OSError:  # no such folder, or none that opens: there glob finds nothing
        return
    with entries:
        for entry in entries:
            if fnmatch.fnmatch(entry.name, last) and not (entry.name.startswith(".") and not last.startswith(".")):
                yield os.path.join(folder, entry.name)


def _root(given: str) -> str:
    """The folder below which all lie that is given: of a file its own, of a pattern what comes before its first sign."""
    path = os.path.abspath(given)
    if os.path.isdir(path):
        return path
    while glob.has_magic(os.path.dirname(path)) and not os.path.exists(path):
        path = os.path.dirname(path)
    return os.path.dirname(path)


def read(path: str, levels: Levels | None = None) -> Read:
    started = time.monotonic()
    try:
        pixels, error = pixels_of(path, levels), None
    except CADiffError as problem:
        pixels, error = None, str(problem)
    except Exception as problem:  # what a broken file makes of a decoder is of any type, and must not stop the rest
        pixels, error = None, f"{path}: expected an image, but it does not read ({type(problem).__name__}: {problem})."
    return Read(path, pixels, time.monotonic() - started, error)


def read_ahead(paths: Iterable[str], levels: Levels | None = None) -> Iterator[Read]:
    """Each file in its order, as a detector of these ``levels`` reads it, the next ones being decoded in other threads meanwhile."""
    waiting: deque[Future[Read]] = deque()
    pool = ThreadPoolExecutor(2)
    try:
        for path in paths:
            waiting.append(pool.submit(read, path, levels))
            if len(waiting) >= AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def together(found: Iterable[Read]) -> Iterator[list[Read]]:
    """Groups of at most ``TOGETHER`` files and ``PIXELS`` pixels; a larger picture is a group by itself."""
    group: list[Read] = []
    for each in found:
        if len(group) == TOGETHER or (group and sum(map(_size, (*group, each))) > PIXELS):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _size(found: Read) -> int:
    return 0 if found.pixels is None else found.pixels.shape[0] * found.pixels.shape[1]
