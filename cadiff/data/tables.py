"""Tables that list a product's images: their cells become paths below the product's folder, their rows images with all of their masks."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cadiff.data.listing import SPLITS, Entry, Listing, Split
from cadiff.errors import UsageError
from cadiff.opening import opened
from cadiff.storage import write_text
from cadiff.visible import is_passed_over

Cells = dict[str, str]  # a row's, by column
REMEDY = "put the files there, where DVC sees that they change, and write their paths from there"


@dataclass(frozen=True)
class TableRow:
    """One row that says what it must: ``where`` names it; ``image`` and ``mask`` are cells as they are, ``mask`` empty for a normal."""

    where: str
    split: Split
    anomaly_type: str | None
    image: str
    mask: str


def sound_rows(
    table: Path, rows: Iterable[tuple[int, Cells]], kind_of: Callable[[Cells], str | None], remedy: str, problems: list[str]
) -> Iterator[TableRow]:
    """The rows of a table with the columns image, mask and split, by line, that say what they must; of any other a line is put into
    ``problems``.

    ``kind_of`` says a row's anomaly type, None for a normal, and raises a ValueError where it has none; ``remedy`` is what makes an
    anomaly of a normal with a mask.
    """
    for line, row in rows:
        where = f"{table}: line {line} ({row['image'] or row['mask']})"
        try:
            split, kind = _stated(row, kind_of, remedy)
        except ValueError as error:
            problems.append(f"{where}: {error}")
        else:
            yield TableRow(where, split, kind, row["image"], row["mask"])


def _stated(row: Cells, kind_of: Callable[[Cells], str | None], remedy: str) -> tuple[Split, str | None]:
    if not row["image"]:
        raise ValueError("mask without an image" if row["mask"] else "no image is named")
    split = next((name for name in SPLITS if name == row["split"]), None)
    if split is None:
        raise ValueError(f"split: expected train or test, found {row['split']!r}")
    kind = kind_of(row)
    if kind is None and row["mask"]:
        raise ValueError(f"normal image with a mask; empty the cell or {remedy}")
    if kind is not None and split == "train":
        raise ValueError("anomaly in train; write test: CADiff itself takes the first third of test as exemplars")
    if kind is not None and not row["mask"]:
        raise ValueError("image without a mask")
    return split, kind


def list_rows(rows: Iterable[TableRow], root: Path, product: str, name: Callable[[str], str]) -> Listing:
    """The images that rows list, whose paths are relative to ``root`` and lead into ``root / product``; rows of one image are its
    instances, and their masks one mask. ``name`` makes an image's name of its path.

    What DVC does not watch with the product's folder would change without a rerun: such a path is a problem.
    """
    listing, by_image = Listing(), dict[str, tuple[TableRow, list[str]]]()
    for row in rows:
        try:
            image = located(row.image, root, product)
            masks = [located(row.mask, root, product)] if row.mask else []
        except ValueError as error:
            listing.problems.append(f"{row.where}: {error}")
            continue
        first, own = by_image.setdefault(image, (row, masks))
        if first is row:
            continue
        if row.split != first.split:
            listing.problems.append(f"{row.where}: listed in train and in test; what is learned from must not be scored on: keep one row")
        elif row.anomaly_type != first.anomaly_type:
            both = f"{first.anomaly_type or 'normal'} and as {row.anomaly_type or 'normal'}"
            listing.problems.append(f"{row.where}: listed as {both}; an image has one type: name it in all its rows")
        elif set(masks) <= set(own):
            listing.problems.append(f"{row.where}: listed twice; remove one row")
        else:
            own += masks
    for image, (row, masks) in by_image.items():
        listing.entries.append(Entry(row.split, row.anomaly_type, name(image), root / image, tuple(root / mask for mask in masks)))
    return listing


def located(cell: str, root: Path, product: str) -> str:
    """A cell as a path relative to ``root``, spelt as the file on disk is: ``\\`` is read as ``/``, a name in the Unicode form that is
    there.

    Raises:
        ValueError: if the path is absolute, or leads out of the product's folder.
    """
    base = root / product
    slashed = cell if os.path.exists(root / cell) else cell.replace("\\", "/")
    if slashed.startswith("/") or re.match(r"[A-Za-z]:", slashed):
        raise ValueError(f"expected a path below {base}, found an absolute one; {REMEDY}")
    path = os.path.normpath(slashed)
    parts = PurePosixPath(path).parts
    if parts[:1] == ("..",) or not PurePosixPath(path).is_relative_to(product):
        raise ValueError(f"expected a path below {base}, found one that leads elsewhere; {REMEDY}")
    if litter := [part for part in parts if is_passed_over(part)]:
        raise ValueError(f"{litter[0]} is passed over, being hidden or litter of other programs; rename it")
    forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((form for form in (path, *forms) if os.path.lexists(root / form)), path)


def read_csv(path: Path, columns: Iterable[str]) -> Iterator[tuple[int, Cells]]:
    """The rows of a CSV file with at least these columns, each with the number of its (last) line; cells are stripped, absent ones empty.
    A row in which no cell of these says anything, as spreadsheets leave them, is none.

    Raises:
        UsageError: if the file is absent, does not open, is no UTF-8 text, or lacks a column.
    """
    try:
        with opened(path, "a table") as file:
            reader = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
            found = list(reader.fieldnames or [])
            lacking = ", ".join(name for name in columns if name not in found)
            if lacking:
                advice = "; separate columns with commas" if len(found) == 1 and re.search(r"[;\t]", found[0]) else ""
                told = ", ".join(found) if found else "an empty file"
                raise UsageError(f"{path}: expected the columns {', '.join(columns)}; {lacking} is not there, found {told}{advice}")
            for row in reader:
                cells = {name: (row[name] or "").strip() for name in columns}
                if any(cells.values()):
                    yield reader.line_num, cells
    except UnicodeDecodeError:
        raise UsageError(f"{path}: expected UTF-8 text; save the table as UTF-8") from None
    except csv.Error as error:
        raise UsageError(f"{path}: expected a table of comma-separated values, but it does not read ({error})") from None


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table that ``read_csv`` reads."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
    write_text(path, buffer.getvalue())
