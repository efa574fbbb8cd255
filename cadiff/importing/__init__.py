"""``cadiff import``: labels as a tool left them, and the pictures that they speak of, as a data set in MVTec AD's layout."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cadiff.data import folder as tables
from cadiff.data import mvtec
from cadiff.data.guess import is_table
from cadiff.errors import CADiffError, UsageError
from cadiff.importing.order import Imported, Order, product_of
from cadiff.importing.placing import Placing
from cadiff.labels.classes import proposed, read_classes, write_classes
from cadiff.labels.formats import FORMATS, recognised
from cadiff.labels.model import Labelled
from cadiff.labels.pictures import PictureFolder
from cadiff.names import GOOD
from cadiff.progress import Progress


def import_labels(order: Order) -> Imported:
    """Writes ``out/PRODUCT/{train,test}/good``, ``test/<type>`` and ``ground_truth/<type>``, whole or not at all.

    Where ``classes`` names a table that is not there, only that is written, as proposed, for its user to look through.

    Raises:
        UsageError: names every problem, up to ``SHOWN``, of the labels, their pictures or the call.
        CADiffError: if a picture does not open, or the disk does not take it.
    """
    _check_paths(order)
    pictures = PictureFolder(order.images)
    known = FORMATS[order.format or recognised(order.labels)]
    if order.classes and not order.classes.exists():
        return _propose(order, order.classes, known.read(order.labels, pictures), known.title)
    if order.classes and order.product:
        raise UsageError(f"--product {order.product}: {order.classes} says the products; leave one of the two out")
    meanings = read_classes(order.classes) if order.classes else None
    with _staged(order.out) as staged:
        run = Placing(order, pictures, staged, meanings, Imported(known.title))
        bar = Progress("import", len(pictures.files))
        for labelled in known.read(order.labels, pictures):
            run.add(labelled)
            bar.advance()
        run.add_normals()
        run.finish()
    return run.done


def _propose(order: Order, path: Path, found: Iterator[Labelled], title: str) -> Imported:
    done = Imported(title)
    for labelled in found:
        done.counts.update([*(one.name for one in labelled.objects), *labelled.classes])
    product = product_of(order)
    done.meanings = {name: proposed(name, product) for name in done.counts}
    write_classes(path, done.meanings, done.counts)
    return done


def _check_paths(order: Order) -> None:
    """An error where the labels are not there, or something would be written over, or beside pictures of other origin."""
    out = order.out
    if not order.labels.exists():
        raise UsageError(f"{order.labels}: expected a label file or a folder of such, but it is not there")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: expected a new or empty folder (--out), found something there; name another")
    for taken in (order.images, order.labels):
        if out.resolve().is_relative_to(taken.resolve()):
            raise UsageError(f"{out}: lies in {taken}, which is imported from; name a folder elsewhere (--out)")
    for above in list(out.resolve().parents)[:3]:
        if above.is_dir() and _is_data_set(above):
            raise UsageError(f"{out}: lies in {above}, which is a data set already; name a folder elsewhere (--out)")


def _is_data_set(folder: Path) -> bool:
    """Whether pictures of products lie there, or of one product. A folder of programs may well have a ``test`` below it."""
    places = [folder, *(folder / name for name in mvtec.products(folder))]
    tabled = any(is_table(folder / name / tables.TABLE) for name in tables.products(folder))
    return tabled or any((place / "train" / GOOD).is_dir() for place in places)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block ends well, and is removed when not."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name[:64]}.", suffix=".tmp"))
    except OSError as error:
        raise CADiffError(f"{out}: cannot be written ({error.strerror}); name another folder (--out)") from None
    try:
        yield staged
        os.chmod(staged, 0o755)
        os.replace(staged, out)
    except OSError as error:
        raise CADiffError(f"{out}: not written ({error.strerror or error}); nothing is left of it. Make room, and run again") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
