"""The table that says what each class of the labels is here: of which product, and which anomaly type."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cadiff.errors import UsageError
from cadiff.labels.reading import read_text
from cadiff.names import CONTEXT, GOOD, check_product, check_type, composed
from cadiff.storage import write_text

COLUMNS = ("class", "product", "anomaly_type")
FOLDER = "{folder}"  # as a product: the first folder of the picture's path
NORMAL = frozenset({"good", "ok", "normal", "background", "no defect", "no_defect", "defect free", "defect-free"})


class Meaning(NamedTuple):
    """What a class stands for. ``anomaly_type`` ``good``: it marks no anomaly; empty: it is left out, and a picture with nothing else
    marked in it is no normal one."""

    product: str
    anomaly_type: str


def proposed(name: str, product: str) -> Meaning:
    """What a class most likely stands for: an anomaly type of its own name in small letters, or of none if the name says so."""
    if name.strip().casefold() in NORMAL:
        return Meaning(product, GOOD)
    kind = re.sub(r"[\W]+", "_", composed(name).casefold()).strip("_") or "defect"
    return Meaning(product, f"{kind}_defect" if kind in (CONTEXT, GOOD) else kind)


def proposed_product(folder: Path) -> str:
    """A product's name from that of the folder of pictures."""
    return re.sub(r"[^\w+-]+|^[\W_]+", "_", composed(folder.resolve().name)).strip("_") or "product"


def write_classes(path: Path, meanings: Mapping[str, Meaning], counts: Mapping[str, int]) -> None:
    """The table as CSV, with how often each class is in the labels."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, "count"])
    writer.writerows([name, *meaning, counts[name]] for name, meaning in sorted(meanings.items()))
    write_text(path, buffer.getvalue())


def read_classes(path: Path) -> dict[str, Meaning]:
    """The table as someone left it; its other columns are his own.

    Raises:
        UsageError: if it is no such table, has a class twice, or a name in it can be no product's or anomaly type's.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    found: dict[str, Meaning] = {}
    try:
        if lacking := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
            told = f"{', '.join(COLUMNS)}, with commas between them; {', '.join(lacking)} is not there"
            raise UsageError(f"{path}: expected the columns {told}")
        for row in reader:
            name, meaning = row["class"] or "", Meaning((row["product"] or "").strip(), (row["anomaly_type"] or "").strip())
            if name in found:
                raise UsageError(f"{path}: line {reader.line_num}: the class {name!r} is there twice; remove one line")
            _check(meaning, f"{path}: line {reader.line_num}")
            found[name] = meaning
    except csv.Error as error:
        raise UsageError(f"{path}: expected a table of comma-separated values, but it does not read ({error})") from None
    return found


def _check(meaning: Meaning, where: str) -> None:
    try:
        if meaning.anomaly_type and meaning.product != FOLDER:
            check_product(meaning.product)
        if meaning.anomaly_type not in ("", GOOD):
            check_type(meaning.anomaly_type)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def counted(names: Counter[str]) -> str:
    """``scratch (12), dent (3)``, the most frequent first."""
    return ", ".join(f"{name} ({count})" for name, count in names.most_common())
