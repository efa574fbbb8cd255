"""What every layout's reader finds on disk: files become rows of a table before pixels become arrays."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from cadiff.errors import UsageError
from cadiff.storage import IMAGE_SUFFIXES, image_files

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
LITTER = frozenset({"thumbs.db", "desktop.ini"})  # what file managers leave


@dataclass(frozen=True)
class Entry:
    """One image of a product; ``anomaly_type`` None: normal. ``name`` is unique within its split and type.

    ``mask`` is a file, or a folder of files whose union is the mask (MVTec LOCO AD).
    """

    split: Split
    anomaly_type: str | None
    name: str
    image: Path
    mask: Path | None

    @property
    def key(self) -> str:
        """``<train|test>/<type>/<name>``, with ``good`` for normal images."""
        return f"{self.split}/{self.anomaly_type or 'good'}/{self.name}"


@dataclass
class Listing:
    """A product's images, and every problem met on the way, each starting with the file that it is about."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Reader(NamedTuple):
    """A layout: which products a root holds, and which files each has. Neither opens an image."""

    products: Callable[[Path], list[str]]
    list_files: Callable[[Path, str], Listing]


def folders(path: Path) -> list[Path]:
    """The visible folders in ``path`` by name; none if ``path`` is not there."""
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def unread(path: Path, read: Iterable[Path]) -> list[str]:
    """A problem for each visible file and folder in ``path`` that is not among ``read``: nothing is skipped without a word."""
    if not path.is_dir():
        return []
    known = set(read)
    there = sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.name.lower() not in LITTER)
    expected = f"expected images alone here ({', '.join(sorted(IMAGE_SUFFIXES))})"
    return [f"{p}: not read; {expected}: convert it, or move it away" for p in there if p not in known]


def misspelt(base: Path, expected: Sequence[str]) -> list[str]:
    """A problem for each folder in ``base`` that is one of ``expected`` in other letters, as ``Train`` or ``groundtruth``."""
    meant = {re.sub(r"[_ -]", "", name): name for name in expected}
    there = [(path, meant.get(re.sub(r"[_ -]", "", path.name.lower()))) for path in folders(base)]
    return [f"{path}: not read; expected the name {name}: rename it" for path, name in there if name and path.name != name]


def list_product(
    base: Path, training: Sequence[str], masks_in: Callable[[Path], list[Path]], pair: Callable[[Path, Path, Listing], None]
) -> Listing:
    """What MVTec's layouts share: ``base/<training>/good``, ``base/test/<type>`` and ``base/ground_truth/<type>``.

    ``masks_in`` lists a type's masks (files or folders); ``pair`` adds a type's images with theirs. What belongs to
    nothing is a problem.
    """
    listing = Listing(problems=misspelt(base, (*training, "test", "ground_truth")))
    for split in (*training, "test", "ground_truth"):
        listing.problems += [f"{path}: not read; move it into a folder of {split}/" for path in image_files(base / split)]
    for split in training:
        prefix = "" if split == "train" else f"{split}/"
        for folder in folders(base / split):
            if folder.name == "good":
                listing.entries += [Entry("train", None, prefix + p.stem, p, None) for p in image_files(folder)]
                listing.problems += unread(folder, image_files(folder))
            else:
                listing.problems.append(f"{folder}: expected only {split}/good; move anomalies to test/<type>")
    for folder in folders(base / "test"):
        listing.problems += unread(folder, image_files(folder))
        if folder.name != "good" and not image_files(folder) and not masks_in(base / "ground_truth" / folder.name):
            listing.problems.append(f"{folder}: no image of this type; remove the folder, or put some there")
        if folder.name == "good":
            listing.entries += [Entry("test", None, p.stem, p, None) for p in image_files(folder)]
        else:
            pair(folder, base / "ground_truth" / folder.name, listing)
    for folder in folders(base / "ground_truth"):
        images = base / "test" / folder.name
        if not images.is_dir():
            listing.problems += [mask_alone(mask, images) for mask in masks_in(folder)]
    return listing


def mask_alone(mask: Path, images: Path) -> str:
    """The problem of a mask (a file or a folder of them) that no image in ``images`` has."""
    return f"{mask}: mask without an image; expected one in {images}"


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with at least these columns; cells are stripped, absent ones empty.

    Raises:
        UsageError: if the file is absent, is no UTF-8 text, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            found = list(reader.fieldnames or [])
            lacking = ", ".join(name for name in columns if name not in found)
            if lacking:
                advice = "; separate columns with commas" if len(found) == 1 and re.search(r"[;\t]", found[0]) else ""
                told = ", ".join(found) if found else "an empty file"
                raise UsageError(f"{path}: expected the columns {', '.join(columns)}; {lacking} is not there, found {told}{advice}")
            return [{name: (row[name] or "").strip() for name in columns} for row in reader]
    except FileNotFoundError:
        raise UsageError(f"{path}: expected this table, but it is not there") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: expected UTF-8 text; save the table as UTF-8") from None
