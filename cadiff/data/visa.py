"""VisA's layout: ``ROOT/split_csv/1cls.csv`` (object, split, label, image, mask) and ``ROOT/PRODUCT/Data``.

VisA labels every anomaly ``anomaly``, so that a product has that one type.
"""

from __future__ import annotations

from pathlib import Path

from cadiff.data.listing import SPLITS, Entry, Listing, Reader, image_files, read_csv

COLUMNS = ("object", "split", "label", "image", "mask")
ANOMALY = "anomaly"


def split_table(root: Path) -> Path:
    return root / "split_csv" / "1cls.csv"


def products(root: Path) -> list[str]:
    return sorted({row["object"] for row in read_csv(split_table(root), COLUMNS)})


def list_files(root: Path, product: str) -> Listing:
    """The product's rows of the one-class split; a row that contradicts itself is a problem."""
    table = split_table(root)
    listing = Listing()
    masks: set[Path] = set()
    for line, row in enumerate(read_csv(table, COLUMNS), start=2):
        if row["object"] != product:
            continue
        image, mask = root / row["image"], root / row["mask"] if row["mask"] else None
        masks |= {mask} if mask else set()
        problem = _problem(row)
        if problem:
            listing.problems.append(f"{table}: line {line} ({row['image']}): {problem}")
            continue
        anomaly_type = ANOMALY if row["label"] == ANOMALY else None
        split = next(s for s in SPLITS if s == row["split"])
        listing.entries.append(Entry(split, anomaly_type, image.stem, image, mask))
    for path in image_files(root / product / "Data" / "Masks" / "Anomaly"):
        if path not in masks:
            listing.problems.append(f"{path}: mask without an image; no row of {table} names it")
    return listing


def _problem(row: dict[str, str]) -> str | None:
    if not row["image"]:
        return "mask without an image" if row["mask"] else "no image is named"
    if row["split"] not in SPLITS:
        return f"split: expected train or test, found {row['split']!r}"
    if row["label"] not in ("normal", ANOMALY):
        return f"label: expected normal or anomaly, found {row['label']!r}"
    if row["label"] == "normal":
        return "normal image with a mask; empty the cell or correct the label" if row["mask"] else None
    if row["split"] == "train":
        return "anomaly in train; CADiff itself takes the first third of test as exemplars"
    return None if row["mask"] else "image without a mask"


READER = Reader(products, list_files)
