"""What every layout's reader finds on disk: files become rows of a table before pixels become arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from cadiff.names import GOOD, composed
from cadiff.storage import IMAGE_SUFFIXES
from cadiff.visible import visible

Split = Literal["train", "test"]
LABELS = (".json", ".xml", ".txt")  # of LabelMe, of Pascal VOC, of YOLO
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Entry:
    """One image of a product; ``anomaly_type`` None: normal. ``name`` is unique within its split and type.

    ``masks`` are files, or folders of files, whose union is the mask.
    """

    split: Split
    anomaly_type: str | None
    name: str
    image: Path
    masks: tuple[Path, ...] = ()

    @property
    def key(self) -> str:
        """``<train|test>/<type>/<name>``, with ``good`` for normal images."""
        return f"{self.split}/{self.anomaly_type or GOOD}/{self.name}"

    @property
    def mask_path(self) -> str | None:
        """The masks as ``cadiff.storage.mask_files`` reads them; None: a normal has none."""
        return "\n".join(path.as_posix() for path in self.masks) or None


@dataclass
class Listing:
    """A product's images, and every problem met on the way, each starting with the file that it is about."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Reader(NamedTuple):
    """A layout: which products a root holds, and which files each has. Neither opens an image. ``marks`` is what tells a product."""

    products: Callable[[Path], list[str]]
    list_files: Callable[[Path, str], Listing]
    marks: str


def folders(path: Path) -> list[Path]:
    """The visible folders in ``path`` by name; none if ``path`` is not there."""
    return [p for p in visible(path) if p.is_dir()]


def unread(path: Path, read: Iterable[Path]) -> list[str]:
    """A problem for each visible file and folder in ``path`` that is not among ``read``: nothing is skipped without a word. What a
    labelling tool left beside an image, under its name, is none: `cadiff inspect` lists it as not read."""
    known = set(read)
    labels = {image.with_suffix(suffix) for image in known for suffix in LABELS}
    expected = f"expected images alone here ({', '.join(sorted(IMAGE_SUFFIXES))})"
    return [f"{p}: not read; {expected}: convert it, or move it away" for p in visible(path) if p not in known and p not in labels]


def alike(name: str) -> str:
    """What two spellings of one name have in common: letters, whatever their case and form, without dividing signs."""
    return re.sub(r"[_ -]", "", composed(name).casefold())


def misspelt(base: Path, expected: Sequence[str]) -> list[str]:
    """A problem for each folder in ``base`` that is one of ``expected`` in other letters, as ``Train`` or ``groundtruth``."""
    meant = {alike(name): name for name in expected}
    there = [(path, meant.get(alike(path.name))) for path in folders(base) if path.name not in expected]
    return [f"{path}: not read; expected the name {name}: rename it" for path, name in there if name]
