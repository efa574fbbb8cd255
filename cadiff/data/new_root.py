"""A new data set's root: nothing is written over, beside or into anyone's pictures, and it is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cadiff.data import folder as tables
from cadiff.data import mvtec
from cadiff.data.guess import is_table
from cadiff.errors import CADiffError, UsageError
from cadiff.names import GOOD


def check_new_root(out: Path, read: Sequence[Path]) -> None:
    """
    Raises:
        UsageError: if something is in ``out``, or it lies in one of ``read``, or in another data set.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: expected a new or empty folder (--out), found something there; name another")
    for taken in read:
        if out.resolve().is_relative_to(taken.resolve()):
            raise UsageError(f"{out}: lies in {taken}, which is read; name a folder elsewhere (--out)")
    for above in list(out.resolve().parents)[:3]:
        if above.is_dir() and _is_data_set(above):
            raise UsageError(f"{out}: lies in {above}, which is a data set already; name a folder elsewhere (--out)")


def _is_data_set(folder: Path) -> bool:
    """Whether pictures of products lie there, or of one product. A folder of programs may well have a ``test`` below it."""
    places = [folder, *(folder / name for name in mvtec.products(folder))]
    tabled = any(is_table(folder / name / tables.TABLE) for name in tables.products(folder))
    return tabled or any((place / "train" / GOOD).is_dir() for place in places)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block ends well, and is removed when not."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name[:64]}.", suffix=".tmp"))
    except OSError as error:
        raise CADiffError(f"{out}: cannot be written ({error.strerror}); name another folder (--out)") from None
    try:
        yield place
        os.chmod(place, 0o755)
        os.replace(place, out)
    except OSError as error:
        raise CADiffError(f"{out}: not written ({error.strerror or error}); nothing is left of it. Make room, and run again") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
