"""Anyone's images: ``ROOT/PRODUCT/table.csv`` with the columns image, mask, anomaly_type, split.

Paths are relative to the product's folder, in which they lie; an empty anomaly_type is a normal image; split is train or test. An image
of several rows is one, whose mask is that of all its rows.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from cadiff.data.listing import Listing, Reader, folders
from cadiff.data.tables import Cells, list_rows, read_csv, sound_rows
from cadiff.names import GOOD, composed

COLUMNS = ("image", "mask", "anomaly_type", "split")
TABLE = "table.csv"


def products(root: Path) -> list[str]:
    return [p.name for p in folders(root) if os.path.isfile(p / TABLE)]


def list_files(root: Path, product: str) -> Listing:
    """The table's rows, named by path without suffix; a row that contradicts itself is a problem."""
    base, problems = root / product, list[str]()
    rows = sound_rows(base / TABLE, read_csv(base / TABLE, COLUMNS), _kind_of, "name the anomaly_type", problems)
    listing = list_rows(rows, base, ".", lambda path: PurePosixPath(path).with_suffix("").as_posix())
    listing.problems[:0] = problems
    return listing


def _kind_of(row: Cells) -> str | None:
    if row["anomaly_type"] == GOOD or "/" in row["anomaly_type"]:
        raise ValueError(f"anomaly_type: {row['anomaly_type']!r} names no type; leave it empty for normals, no slash")
    return composed(row["anomaly_type"]) or None


READER = Reader(products, list_files, TABLE)
