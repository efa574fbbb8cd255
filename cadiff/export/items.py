"""A product's generated shards as one series of images, with what every format asks of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from cadiff.errors import CADiffError
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, from_table
from cadiff.storage import decode_image, missing, read_batches, read_table


def kind_of(types: list[str]) -> str | None:
    """The class of an image's anomalies: ``hole+scratch`` where it has both, since its one mask does not tell them apart."""
    return "+".join(types) or None


@dataclass(frozen=True)
class Item:
    """One generated image: ``number`` among all of the product's, ``index`` within its shard."""

    number: int
    shard: Path
    index: int
    row: GeneratedRow

    @property
    def stem(self) -> str:
        """The stem of its files, where all of a product's lie in one folder: digits, which every tool reads."""
        return f"{self.number:06}"

    @property
    def kind(self) -> str | None:
        return kind_of(self.row.anomaly_types)

    @property
    def approximate(self) -> bool:
        """Whether it has an anomaly whose mask's shape stems from a box."""
        return self.kind is not None and self.row.approximate

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{self.shard}: {self.row.sample_id}"

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """True where its anomaly is. A normal has none, whatever its row's mask says (where it was drawn anew).

        Raises:
            CADiffError: if an anomaly's mask marks nothing: its image would pass for a normal one.
        """
        mask = decode_image(self.row.mask["bytes"], "L", self.name) > 127
        if self.kind is None:
            return np.zeros_like(mask)
        if not mask.any():
            raise CADiffError(f"{self.name}: expected a mask of {self.kind}, but it marks nothing; run the stage that makes it again")
        return mask


class Items:
    """The images of a folder of shards, read anew each time that they are gone through, a few in memory at a time.

    Raises:
        CADiffError: if there are no shards, or one does not read.
    """

    def __init__(self, shards: Path) -> None:
        self.shards = sorted(shards.glob("*.parquet"))
        if not self.shards:
            raise missing(shards / "*.parquet")
        types = [read_table(path, GENERATED_SCHEMA, ["anomaly_types"])["anomaly_types"].to_pylist() for path in self.shards]
        self.counts = [len(of_shard) for of_shard in types]
        self.kinds = sorted({kind for of_shard in types for each in of_shard if (kind := kind_of(each))})

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[Item]:
        number = 0
        for path in self.shards:
            index = 0
            for batch in read_batches(path, GENERATED_SCHEMA):
                for row in from_table(batch, GeneratedRow):
                    yield Item(number, path, index, row)
                    number, index = number + 1, index + 1
