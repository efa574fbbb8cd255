"""VisA's layout: ``ROOT/split_csv/1cls.csv`` (object, split, label, image, mask) and ``ROOT/PRODUCT/Data``.

VisA labels every anomaly ``anomaly``, so that a product has that one type. Its table lies beside the products: ``dataset.table`` names it,
so that DVC watches it.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from cadiff.data.listing import Listing, Reader
from cadiff.data.tables import Cells, list_rows, read_csv, sound_rows
from cadiff.params import VISA_TABLE
from cadiff.storage import image_files

COLUMNS = ("object", "split", "label", "image", "mask")
ANOMALY = "anomaly"


def split_table(root: Path) -> Path:
    return root / PurePosixPath(VISA_TABLE).relative_to("..")


def products(root: Path) -> list[str]:
    """The products of the split table whose folders are there; where none is, all, so that what is not there is told."""
    return [name for name in listed(root) if os.path.isdir(root / name)] or listed(root)


def listed(root: Path) -> list[str]:
    """The products that the split table names."""
    return sorted({row["object"] for _, row in read_csv(split_table(root), COLUMNS)} - {""})


def list_files(root: Path, product: str) -> Listing:
    """The product's rows of the one-class split; a row that contradicts itself is a problem, and so is a mask that no row names."""
    table, problems = split_table(root), list[str]()
    own = ((line, row) for line, row in read_csv(table, COLUMNS) if row["object"] == product)
    rows = sound_rows(table, own, _kind_of, "correct the label", problems)
    listing = list_rows(rows, root, product, lambda path: PurePosixPath(path).stem)
    listing.problems[:0] = problems
    named = {mask for entry in listing.entries for mask in entry.masks}
    alone = [path for path in image_files(root / product / "Data" / "Masks" / "Anomaly") if path not in named]
    if not problems:  # else the row that names it may be one of those
        listing.problems += [f"{path}: mask without an image; no row of {table} names it" for path in alone]
    return listing


def _kind_of(row: Cells) -> str | None:
    if row["label"] not in ("normal", ANOMALY):
        raise ValueError(f"label: expected normal or anomaly, found {row['label']!r}")
    return ANOMALY if row["label"] == ANOMALY else None


READER = Reader(products, list_files, f"rows of {PurePosixPath(VISA_TABLE).relative_to('..')}")
