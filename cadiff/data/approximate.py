"""Which masks are only approximate: they stem from boxes, and a table beside them says so.

``PRODUCT/ground_truth/approximate.csv`` has the columns ``mask`` (a path below ``ground_truth``) and ``how``. ``cadiff import`` writes it.
Whoever draws a mask anew removes its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cadiff.data.tables import read_csv, write_csv

TABLE = "ground_truth/approximate.csv"
COLUMNS = ("mask", "how")


def approximate_masks(base: Path) -> tuple[set[Path], list[str]]:
    """The approximate masks of the product whose folder is ``base``, and a problem for each that is not there.

    Raises:
        UsageError: if the table is there and does not read.
    """
    table = base / TABLE
    if not table.is_file():
        return set(), []
    masks = [table.parent / row["mask"] for _, row in read_csv(table, COLUMNS)]
    return set(masks), [f"{table}: {mask} is not there; remove its line" for mask in masks if not mask.is_file()]


def write_approximate(base: Path, how: Mapping[str, str]) -> None:
    """The table: each approximate mask's path below ``ground_truth``, and how it was made."""
    write_csv(base / TABLE, COLUMNS, sorted(how.items()))
