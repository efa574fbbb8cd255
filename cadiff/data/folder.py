"""Anyone's images: ``ROOT/PRODUCT/table.csv`` with the columns image, mask, anomaly_type, split.

Paths are relative to the product's folder; an empty anomaly_type is a normal image; split is train or test.
"""

from __future__ import annotations

from pathlib import Path

from cadiff.data.listing import SPLITS, Entry, Listing, Reader, folders, read_csv

COLUMNS = ("image", "mask", "anomaly_type", "split")
TABLE = "table.csv"


def products(root: Path) -> list[str]:
    return [p.name for p in folders(root) if (p / TABLE).is_file()]


def list_files(root: Path, product: str) -> Listing:
    """The table's rows, named by path without suffix; a row that contradicts itself is a problem."""
    base = root / product
    listing = Listing()
    for line, row in enumerate(read_csv(base / TABLE, COLUMNS), start=2):
        problem = _problem(row)
        if problem:
            listing.problems.append(f"{base / TABLE}: line {line} ({row['image'] or row['mask']}): {problem}")
            continue
        image, mask = base / row["image"], base / row["mask"] if row["mask"] else None
        name = Path(row["image"]).with_suffix("").as_posix()
        split = next(s for s in SPLITS if s == row["split"])
        listing.entries.append(Entry(split, row["anomaly_type"] or None, name, image, mask))
    return listing


def _problem(row: dict[str, str]) -> str | None:
    if not row["image"]:
        return "mask without an image" if row["mask"] else "no image is named"
    if row["split"] not in SPLITS:
        return f"split: expected train or test, found {row['split']!r}"
    if row["anomaly_type"] == "good" or "/" in row["anomaly_type"]:
        return f"anomaly_type: {row['anomaly_type']!r} names no type; leave it empty for normals, no slash"
    if not row["anomaly_type"]:
        return "normal image with a mask; empty the cell or name the anomaly_type" if row["mask"] else None
    if row["split"] == "train":
        return "anomaly in train; CADiff itself takes the first third of test as exemplars"
    return None if row["mask"] else "image without a mask"


READER = Reader(products, list_files)
