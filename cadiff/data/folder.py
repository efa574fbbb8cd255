"""Anyone's images: ``ROOT/PRODUCT/table.csv`` with the columns image, mask, anomaly_type, split.

Paths are relative to the product's folder, in which they lie; an empty anomaly_type is a normal image; split is train or test. An image
of several rows is one, whose mask is that of all its rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cadiff.data.listing import SPLITS, Listing, Reader, folders
from cadiff.data.tables import TableRow, list_rows, read_csv
from cadiff.names import GOOD, composed

COLUMNS = ("image", "mask", "anomaly_type", "split")
TABLE = "table.csv"


def products(root: Path) -> list[str]:
    return [p.name for p in folders(root) if os.path.isfile(p / TABLE)]


def list_files(root: Path, product: str) -> Listing:
    """The table's rows, named by path without suffix; a row that contradicts itself is a problem."""
    base, problems = root / product, list[str]()

    def sound() -> Iterator[TableRow]:
        for line, row in read_csv(base / TABLE, COLUMNS):
            where = f"{base / TABLE}: line {line} ({row['image'] or row['mask']})"
            if problem := _problem(row):
                problems.append(f"{where}: {problem}")
            else:
                split = next(s for s in SPLITS if s == row["split"])
                yield TableRow(where, split, composed(row["anomaly_type"]) or None, row["image"], row["mask"])

    listing = list_rows(sound(), base, ".", lambda path: PurePosixPath(path).with_suffix("").as_posix())
    listing.problems[:0] = problems
    return listing


def _problem(row: dict[str, str]) -> str | None:
    if not row["image"]:
        return "mask without an image" if row["mask"] else "no image is named"
    if row["split"] not in SPLITS:
        return f"split: expected train or test, found {row['split']!r}"
    if row["anomaly_type"] == GOOD or "/" in row["anomaly_type"]:
        return f"anomaly_type: {row['anomaly_type']!r} names no type; leave it empty for normals, no slash"
    if not row["anomaly_type"]:
        return "normal image with a mask; empty the cell or name the anomaly_type" if row["mask"] else None
    if row["split"] == "train":
        return "anomaly in train; write test: CADiff itself takes the first third of test as exemplars"
    return None if row["mask"] else "image without a mask"


READER = Reader(products, list_files, TABLE)
