"""What `cadiff inspect` says of the cameras behind a product's pictures: their depth, and whether normals and defects are of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cadiff.data.levels import PROPOSED, all_deep
from cadiff.data.readers import READERS
from cadiff.params import DatasetParams
from cadiff.pictures import is_grey
from cadiff.records import SampleRow
from cadiff.storage import read_image

APART = 0.8  # share of the pictures, less that of chance, that one number tells right: normals and defects differ in it
FEWEST = 3  # pictures of each kind, at least, of which that can be said, unless all of a kind are alike
LOOKED_AT = 40  # pictures of each kind that are decoded once more to see whether they have colours
SHAPES = 3  # that are told one by one


def with_range(dataset: DatasetParams, product: str) -> DatasetParams:
    """The data set as it can be read: with the percentiles that are proposed for ``dataset.range`` where all of the product's pictures
    have more than 8 bits a channel."""
    entries = READERS[dataset.layout].list_files(Path(dataset.root), product).entries
    return dataset.model_copy(update={"range": PROPOSED}) if all_deep([entry.image for entry in entries]) else dataset


def is_deep(rows: Sequence[SampleRow]) -> bool:
    """Whether a product's pictures have more than 8 bits a channel; of one product all have, or none."""
    return any(row.levels is not None for row in rows)


def depth_problems(root: Path, deep: dict[str, bool]) -> list[str]:
    """A problem where ``dataset.range``, which holds for all products, would be for some only."""
    more, fewer = ([product for product, own in deep.items() if own is wanted] for wanted in (True, False))
    if not (more and fewer):
        return []
    return [
        f"{root / more[0]}: pictures of more than 8 bits a channel beside those of {fewer[0]} with 8; expected one depth, as dataset.range "
        "holds for all products: give each depth a root of its own"
    ]


def camera_lines(rows: Sequence[SampleRow]) -> list[str]:
    """How deep pictures are shown, and in what of their cameras normals and defects differ, so that a detector could learn that."""
    lines = []
    if rows and (levels := rows[0].levels):
        lines.append(
            f"  more than 8 bits a channel: values from {levels.low:g} to {levels.high:g} are shown as 0 to 255 "
            f"({PROPOSED[0]} and {PROPOSED[1]} of the train normals: dataset.range)"
        )
    normals = [row for row in rows if row.anomaly_type is None]
    defects = [row for row in rows if row.anomaly_type is not None]
    if normals and defects:
        lines += [*_shape_lines(normals, defects), *_colour_lines(normals, defects)]
    return lines


def _shape_lines(normals: Sequence[SampleRow], defects: Sequence[SampleRow]) -> list[str]:
    aspects, sides = ([[kind(row) for row in group] for group in (normals, defects)] for kind in (_aspect, _side))
    what = [name for name, (one, other) in (("proportions", aspects), ("size", sides)) if apart(one, other)]
    if not what:
        return []
    return [
        f"  normals and defects differ in {' and '.join(what)}: {_shapes(normals)} against {_shapes(defects)}. A detector can tell them by "
        "that alone: take both with one camera, or cut and scale both to one size"
    ]


def _colour_lines(normals: Sequence[SampleRow], defects: Sequence[SampleRow]) -> list[str]:
    grey = [looked_at_grey(group) for group in (normals, defects)]
    if not apart(*grey):
        return []
    told = " against ".join(f"{len(group) - sum(group)} of {len(group)}" for group in grey)
    return [
        f"  normals and defects differ in colour: {told} pictures that were looked at have any. A detector can tell them by that alone: "
        "take both with one camera, or save all as grey"
    ]


def apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a limit on one number tells two kinds of pictures apart (the Kolmogorov-Smirnov distance of its distributions)."""
    if min(len(one), len(other)) < FEWEST and (len(set(one)) > 1 or len(set(other)) > 1):
        return False
    limits = np.unique([*one, *other])
    shares = (np.searchsorted(np.sort(values), limits, side="right") / len(values) for values in (np.array(one), np.array(other)))
    return bool(np.abs(np.subtract(*shares)).max() >= APART)


def _aspect(row: SampleRow) -> float:
    return row.width / row.height


def _side(row: SampleRow) -> float:
    return min(row.width, row.height)


def looked_at_grey(rows: Sequence[SampleRow]) -> list[bool]:
    """Whether each of at most ``LOOKED_AT`` of these pictures, evenly taken, is without colours."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).round().astype(int))
    return [is_grey(read_image(rows[place].image_path, levels=rows[place].levels)) for place in chosen]


def _shapes(rows: Sequence[SampleRow]) -> str:
    """Which shapes there are, the most frequent first, with how many pictures have each."""
    found = Counter((row.width, row.height) for row in rows).most_common()
    told = ", ".join(f"{width}x{height} ({count})" for (width, height), count in found[:SHAPES])
    return told if len(found) <= SHAPES else f"{told} and {len(found) - SHAPES} more shapes"
