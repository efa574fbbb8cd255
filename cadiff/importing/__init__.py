"""``cadiff import``: labels as a tool left them, and the pictures that they speak of, as a data set in MVTec AD's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cadiff.data.new_root import check_new_root, staged
from cadiff.errors import UsageError
from cadiff.importing.order import Imported, Order, product_of
from cadiff.importing.placing import Placing
from cadiff.labels.classes import proposed, read_classes, write_classes
from cadiff.labels.formats import FORMATS, recognised
from cadiff.labels.model import Labelled
from cadiff.labels.pictures import PictureFolder
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
    with staged(order.out) as place:
        run = Placing(order, pictures, place, meanings, Imported(known.title))
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
    if not order.labels.exists():
        raise UsageError(f"{order.labels}: expected a label file or a folder of such, but it is not there")
    check_new_root(order.out, (order.images, order.labels))
