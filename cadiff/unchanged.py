"""Whether pictures are still as they were: a data set that somebody writes into while a stage runs is of no one state."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cadiff.records import SampleRow
from cadiff.storage import mask_files
from cadiff.visible import visible

Stamps = dict[Path, tuple[int, int] | None]  # size and time of change in ns; None: not there


def stamps(paths: Iterable[Path]) -> Stamps:
    """What tells that a file has changed, or of a folder that something came or went."""
    return {path: _stamp(path) for path in paths}


def files_of(rows: Sequence[SampleRow]) -> list[Path]:
    """All that the rows' pictures and masks are read from."""
    masks = (file for row in rows if row.mask_path for file in mask_files(row.mask_path))
    return [*(Path(row.image_path) for row in rows), *masks]


def all_below(folder: Path) -> list[Path]:
    """A folder with all that is visible below it."""
    found = [folder]
    for path in visible(folder):
        found += all_below(path) if path.is_dir() and not path.is_symlink() else [path]
    return found


def changed(before: Mapping[Path, tuple[int, int] | None]) -> Path | None:
    """The first that is not as it was; None: all are."""
    return next((path for path, stamp in before.items() if _stamp(path) != stamp), None)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
