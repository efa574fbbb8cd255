"""Whether pictures are still as they were: a data set that somebody writes into while a stage runs is of no one state."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cadiff.errors import CADiffError, TransientError
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


def check_unchanged(before: Stamps, stage: str, kept: Iterable[Path]) -> None:
    """That pictures are as they were when a stage began; else what was made of them, and the folders that are ``kept`` to go on from, are
    of no one state, and the latter are removed. DVC takes a stage that fails for not run.

    Raises:
        TransientError: of the stage that reads them: it may be run again at once.
        CADiffError: of any other, which has to wait for that one.
    """
    if (path := changed(before)) is None:
        return
    for folder in kept:
        shutil.rmtree(folder, ignore_errors=True)
    if stage == "samples":
        raise TransientError(f"{path}: changed while the data set was read. Run again when nothing is written there.")
    raise CADiffError(f"{path}: changed while {stage} ran. Run again (dvc repro), which reads the data anew.")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
