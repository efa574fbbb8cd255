"""Which values of a product's pictures are black and white, where they have more than 8 bits a channel (``dataset.range``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cadiff.decoding import is_deep
from cadiff.errors import CADiffError, UsageError
from cadiff.opening import opened
from cadiff.params import DatasetParams, Range, percentiles
from cadiff.records import Levels
from cadiff.storage import read_values

COUNTED = 2**23  # values of all normals together that percentiles are taken of
PROPOSED: Range = ("0.1%", "99.9%")


def levels_of(dataset: DatasetParams, normals: Sequence[Path]) -> Levels | None:
    """``dataset.range`` in values of the product's pictures; None: they have 8 bits a channel. Percentiles are those of ``normals``,
    of which every n-th row and column counts, as many as make ``COUNTED`` values. Files that do not read are left out: they are
    problems of their own.

    Raises:
        CADiffError: if none reads, the first one's.
        UsageError: if none has more than 8 bits a channel, or all of these have one value.
    """
    if dataset.range is None:
        return None
    shares = percentiles(dataset.range)
    if shares is None:
        return Levels(*map(float, dataset.range))
    read = [values for path in normals if (values := _some_values(path, COUNTED // max(1, len(normals)))) is not None]
    if normals and not read:
        read_values(normals[0])
    found = [values for values in read if values.dtype != np.uint8]
    if not found:
        where = f"{normals[0].parent}: " if normals else ""
        raise UsageError(
            f"{where}dataset.range: expected train normals of more than 8 bits a channel to take percentiles of, found none; set "
            "dataset.range: null for pictures of 8 bits"
        )
    low, high = (float(value) for value in np.percentile(np.concatenate(found), shares))
    if not low < high:
        raise UsageError(
            f"{normals[0].parent}: from {dataset.range[0]} to {dataset.range[1]} of these train normals there is the one value {low:g}; "
            "expected two in dataset.range: name them as numbers"
        )
    return Levels(low, high)


def _some_values(path: Path, most: int) -> np.ndarray | None:
    try:
        values = read_values(path)
    except CADiffError:
        return None
    step = math.ceil(math.sqrt(max(1.0, values.size / max(1, most))))
    return values[::step, ::step].reshape(-1)


def all_deep(paths: Sequence[Path]) -> bool:
    """Whether there are pictures, and all that open have more than 8 bits a channel."""
    found = []
    for path in paths:
        try:
            with opened(path, "an image") as file:
                found.append(is_deep(file, str(path)))
        except CADiffError:
            continue
        if not found[-1]:
            return False
    return bool(found)
