"""Signals of quality for every generated image: a copy of an exemplar? a change where the mask says? a change at all?

None of them looks at held-out images, and none needs to know how an image was made, so that they serve any method's
shards. They are hints for a reader, not figures to compare papers by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_cdt

from cadiff.errors import CADiffError
from cadiff.metrics.copies import Defect, Originals, originals
from cadiff.metrics.windows import ELSEWHERE, PLACED, Normals
from cadiff.pictures import Pictures, Size, read_picture
from cadiff.records import GENERATED_SCHEMA, QualityRow, SampleRow
from cadiff.storage import decode_image, read_batches
from cadiff.task import Task

VISIBLE = 8  # of 255: smaller changes are not counted
MARGIN = 50  # a change counts as inside of a mask up to one part in so many of the shorter side beside it
CHUNK = 16  # rows in memory at a time


class Shown(NamedTuple):
    """A generated image as the signals see it."""

    sample_id: str
    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    normal_id: str | None
    approximate: bool


@dataclass(frozen=True)
class Reference:
    """The real images of one product at the canvas: its normals by id, and the exemplars' defects by type."""

    size: Size
    by_id: dict[str, SampleRow]
    normals: Normals
    exemplars: dict[str, list[SampleRow]]

    @cached_property
    def originals(self) -> dict[str, Originals]:
        return {kind: originals(*self.pictures_of(kind)) for kind in self.exemplars}

    def approximate(self, kind: str) -> bool:
        """Whether one of a type's exemplars has an approximate mask."""
        return any(row.approximate for row in self.exemplars.get(kind, ()))

    def pictures_of(self, kind: str) -> tuple[list[UInt8[np.ndarray, "_ _ 3"]], list[Bool[np.ndarray, "_ _"]]]:
        """A type's exemplars, their images and their masks."""
        found = [read_picture(row, self.size) for row in self.exemplars[kind]]
        return [picture.image for picture in found], [picture.mask for picture in found]

    def normal(self, shown: Shown) -> UInt8[np.ndarray, "h w 3"] | None:
        """The picture that is outside of an image's mask.

        Raises:
            CADiffError: if it is none of the product's, or of another canvas.
        """
        if shown.normal_id is None:
            return None
        if shown.normal_id not in self.by_id:
            raise CADiffError(f"{shown.sample_id}: its normal {shown.normal_id} is none of the samples. Generate it again.")
        image = read_picture(self.by_id[shown.normal_id], self.size).image
        if image.shape != shown.image.shape:
            (height, width), (found, across) = image.shape[:2], shown.image.shape[:2]
            raise CADiffError(
                f"{shown.sample_id}: expected {width}x{height} px, the canvas of its normal {shown.normal_id} (dataset.size: {self.size}), "
                f"found {across}x{found}. Generate it again."
            )
        return image


def assess(task: Task, shards: Path) -> list[QualityRow]:
    """A row for every anomalous image in ``shards``, and for every exemplar; pictures may be of any shapes.

    - ``exemplar_distance``: mean squared difference of the masked pixels from the nearest exemplar's of the type, over the
      median of that distance among the exemplars (cadiff/metrics/copies.py). Both are brought to one place and size, and the
      least over mirrored and turned views is taken. 0: the same defect again, wherever it lies; about 1: as usual. None for
      a type without exemplars, or whose exemplars differ by noise alone. A single exemplar stands for its type by its own pixels.
    - ``mask_agreement``: share of the visible change from the row's own normal (``normal_id``) that lies inside the mask. None
      where a row has none, or nothing changed visibly.
    - ``normal_distance``: mean distance of the mask's patches to the nearest patch of normal images, over the same among normal
      images, in a window around the mask (cadiff/metrics/windows.py). About 1: as usual as a normal image.

    Raises:
        CADiffError: if there are no shards of anomalies, or no normal images, or a row's normal is none of the samples.
    """
    paths = [path for path in sorted(Path(shards).glob("*.parquet")) if path.stem != "good"]
    if not paths:
        raise CADiffError(f"{shards}: expected shards of anomalies (*.parquet), found none. Generate them.")
    reference = read_reference(task)
    rows = [row for kind in reference.exemplars for row in _of_exemplars(reference, task.product, task.method, kind)]
    for path in paths:
        for shown in _chunks(path):
            rows += _signals(reference, task.product, task.method, path.stem, shown)
    return rows


def read_reference(task: Task) -> Reference:
    """The product's normals and exemplars; nothing is decoded yet."""
    normals = sorted((row for row in task.samples if row.role == "normal"), key=lambda row: row.sample_id)
    if not normals:
        raise CADiffError(f"{task.product}: expected train normals to compare with, found none. Check dataset.root.")
    exemplars: dict[str, list[SampleRow]] = {}
    for row in task.samples:
        if row.role == "exemplar" and row.anomaly_type:
            exemplars.setdefault(row.anomaly_type, []).append(row)
    size = task.params.dataset.size
    return Reference(size, {row.sample_id: row for row in normals}, Normals(Pictures(normals[: PLACED + ELSEWHERE], size)), exemplars)


def mask_agreement(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], normal: UInt8[np.ndarray, "h w 3"]
) -> float | None:
    """The share of the visible change from the normal that lies inside the mask, a margin of one part in fifty of the shorter
    side included; None if nothing changed visibly."""
    change = np.abs(image.astype(np.int16) - normal).mean(axis=2)
    change[change < VISIBLE] = 0
    if not change.any():
        return None
    if not mask.any():
        return 0.0
    beside = distance_transform_cdt(~mask, "taxicab")
    return float(change[beside <= max(1, min(mask.shape) // MARGIN)].sum() / change.sum())


def _signals(reference: Reference, product: str, method: str, kind: str, shown: Sequence[Shown]) -> list[QualityRow]:
    images, masks, shares = [each.image for each in shown], [each.mask for each in shown], []
    for each in shown:
        normal = reference.normal(each)
        shares.append(None if normal is None else mask_agreement(each.image, each.mask, normal))
    copies: list[tuple[float | None, str | None]] = [(None, None)] * len(shown)
    if kind in reference.originals:
        defects = [Defect.of(image, mask) for image, mask in zip(images, masks, strict=True)]
        copies = _nearest_of(reference.originals[kind].of(defects), reference.exemplars[kind])
    found = zip(shown, copies, shares, reference.normals.distances(images, masks), strict=True)
    rough = reference.approximate(kind)
    return [
        QualityRow(each.sample_id, product, method, kind, "generated", distance, nearest, share, unusual, rough or each.approximate)
        for each, (distance, nearest), share, unusual in found
    ]


def _of_exemplars(reference: Reference, product: str, method: str, kind: str) -> Iterator[QualityRow]:
    """What the same signals say of the real exemplars, each against the others."""
    rows, own = reference.exemplars[kind], reference.originals[kind]
    rough = reference.approximate(kind)
    unusual, distances = reference.normals.distances(*reference.pictures_of(kind)), own.of(own.defects)
    np.fill_diagonal(distances, np.inf)
    for index, (row, (value, nearest)) in enumerate(zip(rows, _nearest_of(distances, rows), strict=True)):
        yield QualityRow(row.sample_id, product, method, kind, "exemplar", value, nearest, None, unusual[index], rough)


def _nearest_of(distances: Float[np.ndarray, "n e"], exemplars: Sequence[SampleRow]) -> list[tuple[float | None, str | None]]:
    """Each image's least distance and the exemplar that it is to; None where there is no distance."""
    least = zip(distances.min(axis=1).tolist(), distances.argmin(axis=1), strict=True)
    return [(value, exemplars[index].sample_id) if np.isfinite(value) else (None, None) for value, index in least]


def _chunks(path: Path) -> Iterator[list[Shown]]:
    """A shard's images, CHUNK at a time."""
    for part in read_batches(path, GENERATED_SCHEMA, CHUNK):
        yield [
            Shown(
                row["sample_id"], decode_image(row["image"]["bytes"], "RGB", row["sample_id"]),
                decode_image(row["mask"]["bytes"], "L", row["sample_id"]) > 127, row["normal_id"], row["approximate"],
            )
            for row in part.select(["sample_id", "image", "mask", "normal_id", "approximate"]).to_pylist()
        ]  # fmt: skip
