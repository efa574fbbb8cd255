"""What an import is asked for, and what came of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cadiff.errors import UsageError
from cadiff.labels.classes import Meaning, counted, proposed_product
from cadiff.labels.names import FormatName
from cadiff.names import GOOD, check_product

COMBINED = "combined"  # MVTec AD's type of pictures in which there are several


@dataclass(frozen=True)
class Order:
    """What is to be imported, and how. ``classes``: the table of the classes (None: as proposed); ``product``: what the proposal calls
    the product; ``normals``: patterns of pictures that are normal if nothing is marked in them; ``link``: hard links in place of copies."""

    labels: Path
    images: Path
    out: Path
    classes: Path | None = None
    product: str | None = None
    normals: Sequence[str] = ()
    link: bool = False
    format: FormatName | None = None


@dataclass
class Imported:
    """What came of it. ``placed``: pictures by product and type, ``good`` among them; ``approximate``: masks that stem from boxes, by how
    they were made; ``unlabelled``: pictures that were left out; ``ignored``: objects that were, by class."""

    title: str
    placed: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    meanings: dict[str, Meaning] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    approximate: Counter[str] = field(default_factory=Counter)
    unlabelled: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def lines(self, order: Order) -> list[str]:
        """The import as lines for a terminal."""
        told = [f"{self.title}: {counted(self.counts) or 'no class'}"]
        if not self.placed:
            return told
        for (product, kind), count in sorted(self.placed.items()):
            told.append(f"  {product}, {kind}: {count} pictures")
        if any(kind == COMBINED for _, kind in self.placed):
            told.append(f"  {COMBINED}: several types in one picture; to learn them as one, give the classes one anomaly_type (--classes)")
        if self.ignored:
            told.append(f"  left out, as the table of classes says: {counted(self.ignored)}, and pictures with nothing else marked in them")
        if total := sum(self.approximate.values()):
            how = counted(self.approximate)
            told.append(f"  {total} masks are approximate, as they stem from boxes: {how}; pixel figures rest on them")
        if self.unlabelled:
            example = f"{len(self.unlabelled)} pictures in which nothing is marked, such as {self.unlabelled[0]}"
            told.append(f"  left out: {example}; if they are normal, say so: --normals '*', or a narrower pattern of their paths")
        if not any(kind == GOOD for _, kind in self.placed):
            place = f"{order.out}/PRODUCT/train/good"
            told.append(f"  no normals: put at least one into {place}, or name those below {order.images} with --normals")
        return told


def product_of(order: Order) -> str:
    product = order.product or proposed_product(order.images)
    try:
        check_product(product)
    except ValueError as error:
        raise UsageError(f"--product: {error}") from None
    return product
