"""Which layout a root has, told from its files."""

from __future__ import annotations

import os
from pathlib import Path

from cadiff.data import folder, loco, mvtec, visa
from cadiff.data.listing import folders
from cadiff.data.tables import read_csv
from cadiff.errors import UsageError
from cadiff.params import Layout


def guess_layout(root: Path) -> Layout:
    """The layout that the most products in ``root`` are of; of as many VisA's (its split table), then one with tables (``table.csv``),
    MVTec LOCO AD's (its anomaly folders), MVTec AD's.

    Raises:
        UsageError: if the root is not there, or has no product of any.
    """
    if not os.path.isdir(root):
        raise UsageError(f"{root}: expected a data set's folder, but it is not there")
    in_folders = len(mvtec.products(root))
    counts: dict[Layout, int] = {
        "visa": _listed(root),
        "folder": _tabled(root),
        "loco": in_folders if any(map(loco.is_product, folders(root))) else 0,
        "mvtec": in_folders,
    }
    best = max(counts, key=counts.__getitem__)
    # One product's own folder is told so by list_products.
    if counts[best] or os.path.isdir(root / "train") or os.path.isfile(root / folder.TABLE):
        return best if counts[best] else "mvtec"
    raise UsageError(
        f"{root}: no known layout; expected PRODUCT/train/good (mvtec), PRODUCT/test/logical_anomalies (loco), "
        "split_csv/1cls.csv (visa) or "
        "PRODUCT/table.csv (folder)"
    )


def _tabled(root: Path) -> int:
    """Products with a table; in one that has MVTec AD's folders too, a table without the columns is somebody's own."""
    own = set(mvtec.products(root))
    return sum(name not in own or is_table(root / name / folder.TABLE) for name in folder.products(root))


def is_table(table: Path) -> bool:
    """Whether a file is a table of images (``cadiff.data.folder``): one with its columns."""
    try:
        next(iter(read_csv(table, folder.COLUMNS)), None)
    except UsageError:
        return False
    return True


def _listed(root: Path) -> int:
    """Products of VisA's split table; one where it does not read, so that this is told."""
    if not os.path.isfile(visa.split_table(root)):
        return 0
    try:
        return len(visa.products(root))
    except UsageError:
        return 1
