"""Which pictures are pieces or pages of one: they stay on one side of the split, as their pixels overlap and their part is one.

``PRODUCT/pieces.csv`` has the columns ``piece`` (a path below the product's folder) and ``of`` (any name of the whole). ``cadiff cut``
writes it. Where pages show different parts, whoever knows that removes their lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cadiff.data.listing import Entry
from cadiff.data.tables import read_csv, write_csv
from cadiff.names import GOOD

TABLE = "pieces.csv"
COLUMNS = ("piece", "of")


def whole_pictures(base: Path, entries: Sequence[Entry]) -> tuple[dict[Path, str], list[str]]:
    """What each piece in the product whose folder is ``base`` is a piece of, and a problem for each line of the table that would put one
    whole on both sides of the split, or that names no picture.

    Raises:
        UsageError: if the table is there and does not read.
    """
    table = base / TABLE
    if not table.is_file():
        return {}, []
    wholes = {base / row["piece"]: row["of"] for _, row in read_csv(table, COLUMNS)}
    known = {entry.image: f"{entry.split}/{entry.anomaly_type or GOOD}" for entry in entries}
    problems = [f"{table}: {piece} is no picture of {base.name}; remove its line" for piece in wholes if piece not in known]
    places: dict[str, set[str]] = {}
    for piece, whole in wholes.items():
        places.setdefault(whole, set()).update([known[piece]] if piece in known else [])
    problems += [
        f"{table}: pieces of {whole} are in {' and in '.join(sorted(there))}; expected them in one, as the others would be known when "
        "those are scored: remove the pictures of all but one, with their lines"
        for whole, there in places.items()
        if len(there) > 1
    ]
    return wholes, problems


def write_pieces(base: Path, wholes: Mapping[str, str]) -> None:
    """The table: each piece's path below ``base``, and what it is a piece of."""
    write_csv(base / TABLE, COLUMNS, sorted(wholes.items()))
