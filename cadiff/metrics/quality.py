"""Signals of quality for every generated image: a copy of an exemplar? a change where the mask says? a change at all?

None of them looks at held-out images, and none needs to know how an image was made, so that they serve any method's
shards. They are hints for a reader, not figures to compare papers by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import binary_dilation
from torch import Tensor

from cadiff.errors import CADiffError
from cadiff.metrics.copies import Originals, originals
from cadiff.metrics.imagenet import features
from cadiff.params import Params
from cadiff.records import GENERATED_SCHEMA, REDRAWN, QualityRow, SampleRow
from cadiff.seeds import numpy_generator
from cadiff.storage import decode_image, read_image, read_table

NORMALS = 100  # real normal images that are compared with, at most
VISIBLE = 8  # of 255: smaller changes are not counted
SEARCH = 64  # pixels of the side at which the nearest normal image is looked for
CHUNK = 64  # rows in memory at a time
PATCH_SIDE = 28  # places a side at which an image is compared with normal ones
CELLS = 64  # places per normal image that say how far normal images are from each other


@dataclass(frozen=True)
class Reference:
    """The real images of one product, and how far they are from each other.

    ``bank`` are the normals' patch features, ``backgrounds`` normal images (real, and as the method's shards show
    them), ``originals`` the exemplars' defects by type.
    """

    bank: Float[Tensor, "patches d"]
    normal_spread: float
    backgrounds: UInt8[np.ndarray, "n h w 3"]
    background_spread: float
    exemplars: dict[str, list[SampleRow]]
    originals: dict[str, Originals]


def assess(params: Params, product: str, method: str, samples: Sequence[SampleRow], shards: Path) -> list[QualityRow]:
    """A row for every anomalous image in ``shards``, and for every exemplar.

    - ``exemplar_distance``: mean squared difference of the masked pixels from the nearest exemplar's of the type, over the
      median of that distance among the exemplars (cadiff/metrics/copies.py). Both are brought to one place and size, and the
      least over mirrored and turned views is taken. 0: the same defect again, wherever it lies; about 1: as usual. None for
      a type without exemplars, or whose exemplars differ by noise alone. A single exemplar stands for its type by its own pixels.
    - ``mask_agreement``: share of the visible change that lies inside the mask. The change is from the normal image
      that is nearest outside the mask; None where none is near enough to be the image's background.
    - ``normal_distance``: mean distance of the mask's patches to the nearest patch of any normal image, over the same
      among normal images. About 1: as usual as a normal image.

    Raises:
        CADiffError: if there are no shards of anomalies, or no normal images.
    """
    paths = [path for path in sorted(Path(shards).glob("*.parquet")) if path.stem != "good"]
    if not paths:
        raise CADiffError(f"{shards}: expected shards of anomalies (*.parquet), found none. Generate them.")
    reference = read_reference(params, product, samples, Path(shards) / "good.parquet")
    rows = [row for kind in reference.exemplars for row in _of_exemplars(reference, product, method, kind)]
    for path in paths:
        for ids, images, masks in _chunks(path):
            rows += _signals(reference, product, method, path.stem, ids, images, masks)
    return rows


def read_reference(params: Params, product: str, samples: Sequence[SampleRow], good: Path) -> Reference:
    """The product's normals and exemplars, and the method's own normal images where it has some (``good``)."""
    normals = sorted((row for row in samples if row.role == "normal"), key=lambda row: row.sample_id)[:NORMALS]
    if not normals:
        raise CADiffError(f"{product}: expected train normals to compare with, found none. Check dataset.root.")
    images, _ = _load(normals, params.base.size)
    found = patches(images)
    backgrounds = [images]
    if good.is_file():
        own = read_table(good, GENERATED_SCHEMA)
        table = own.filter(pc.not_equal(own["mask_source"], REDRAWN)).slice(0, 2 * NORMALS).to_pylist()
        backgrounds.append(np.stack([decode_image(row["image"]["bytes"], "RGB", row["sample_id"]) for row in table]))
    exemplars: dict[str, list[SampleRow]] = {}
    for row in samples:
        if row.role == "exemplar" and row.anomaly_type:
            exemplars.setdefault(row.anomaly_type, []).append(row)
    found_originals = {kind: originals(*_load(rows, params.base.size)) for kind, rows in exemplars.items()}
    return Reference(
        found.flatten(0, 1), normal_spread(found), np.concatenate(backgrounds), background_spread(images), exemplars, found_originals
    )


def patches(images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n cells d"]:
    """Features of PATCH_SIDE x PATCH_SIDE places: the levels at strides 8 and 16 side by side, each of unit length.

    Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (CVPR 2022), Sec. 3.1, without pooling.
    """
    return torch.cat([_patches(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)])


def _patches(images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n cells d"]:
    levels = [F.normalize(level, dim=1) for level in features(images)[1:3]]
    joined = torch.cat([F.interpolate(level, (PATCH_SIDE, PATCH_SIDE), mode="bilinear") for level in levels], dim=1)
    return joined.flatten(2).transpose(1, 2)


def normal_spread(found: Float[Tensor, "n cells d"]) -> float:
    """The median distance of a normal image's patch to the nearest patch of the other normal images.

    nan for a single normal image.
    """
    if len(found) < 2:
        return float("nan")
    rng, nearest = numpy_generator(0, "quality", "cells"), []
    for index in range(len(found)):
        cells = torch.from_numpy(rng.choice(found.shape[1], min(CELLS, found.shape[1]), replace=False))
        others = torch.cat([found[:index], found[index + 1 :]]).flatten(0, 1)
        nearest.append(_nearest(found[index, cells], others))
    return float(torch.cat(nearest).median())


def background_spread(images: UInt8[np.ndarray, "n h w 3"]) -> float:
    """The median over normal images of the mean absolute difference (of 255) to the nearest other one; nan for one."""
    small = _small(images)
    if len(small) < 2:
        return float("nan")
    nearest = []
    for index, image in enumerate(small):
        differences = np.abs(small - image).mean(axis=(1, 2, 3))
        differences[index] = np.inf
        nearest.append(differences.min())
    return float(np.median(nearest))


def mask_agreement(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], backgrounds: UInt8[np.ndarray, "n h w 3"], spread: float
) -> float | None:
    """The share of the visible change from the image's background that lies inside the mask, a margin of one part in
    fifty of the side included.

    None if no background is nearer, outside the mask, than half of ``spread``, or if nothing changed visibly.
    """
    outside = ~_small(mask[None, ..., None])[0, ..., 0].astype(bool)
    if not outside.any():
        return None
    differences = np.abs(_small(backgrounds) - _small(image[None])).mean(axis=3)[:, outside].mean(axis=1)
    nearest = int(differences.argmin())
    if not differences[nearest] <= spread / 2:
        return None
    change = np.abs(image.astype(int) - backgrounds[nearest]).mean(axis=2)
    change[change < VISIBLE] = 0
    if change.sum() == 0:
        return None
    allowed = binary_dilation(mask, iterations=max(1, mask.shape[0] // 50))
    return float(change[allowed].sum() / change.sum())


def _signals(
    reference: Reference, product: str, method: str, kind: str, ids: Sequence[str],
    images: UInt8[np.ndarray, "n h w 3"], masks: Bool[np.ndarray, "n h w"],
) -> list[QualityRow]:  # fmt: skip
    to_exemplars = _to_exemplars(reference, kind, images, masks)
    to_normals = _to_normals(reference, images, masks)
    agreement = [
        mask_agreement(image, mask, reference.backgrounds, reference.background_spread)
        for image, mask in zip(images, masks, strict=True)
    ]
    found = zip(ids, to_exemplars, agreement, to_normals, strict=True)
    return [
        QualityRow(name, product, method, kind, "generated", distance, nearest, share, unusual)
        for name, (distance, nearest), share, unusual in found
    ]


def _of_exemplars(reference: Reference, product: str, method: str, kind: str) -> Iterator[QualityRow]:
    """What the same signals say of the real exemplars, each against the others."""
    rows, own = reference.exemplars[kind], reference.originals[kind]
    unusual, distances = _to_normals(reference, own.images, own.masks), own.distances(own.images, own.masks)
    np.fill_diagonal(distances, np.inf)
    for index, (row, (value, nearest)) in enumerate(zip(rows, _nearest_of(distances, rows), strict=True)):
        yield QualityRow(row.sample_id, product, method, kind, "exemplar", value, nearest, None, unusual[index])


def _to_exemplars(
    reference: Reference, kind: str, images: UInt8[np.ndarray, "n h w 3"], masks: Bool[np.ndarray, "n h w"]
) -> list[tuple[float | None, str | None]]:
    if kind not in reference.originals:
        return [(None, None)] * len(images)
    return _nearest_of(reference.originals[kind].distances(images, masks), reference.exemplars[kind])


def _nearest_of(distances: Float[np.ndarray, "n e"], exemplars: Sequence[SampleRow]) -> list[tuple[float | None, str | None]]:
    """Each image's least distance and the exemplar that it is to; None where there is no distance."""
    least = zip(distances.min(axis=1).tolist(), distances.argmin(axis=1), strict=True)
    return [(value, exemplars[index].sample_id) if np.isfinite(value) else (None, None) for value, index in least]


def _to_normals(
    reference: Reference, images: UInt8[np.ndarray, "n h w 3"], masks: Bool[np.ndarray, "n h w"]
) -> list[float | None]:
    cells = F.adaptive_max_pool2d(torch.from_numpy(masks)[:, None].float(), PATCH_SIDE).flatten(1) > 0
    values: list[float | None] = []
    for places, inside in zip(patches(images), cells, strict=True):
        defined = bool(inside.any()) and reference.normal_spread > 0
        values.append(float(_nearest(places[inside], reference.bank).mean()) / reference.normal_spread if defined else None)
    return values


def _load(rows: Sequence[SampleRow], size: int) -> tuple[UInt8[np.ndarray, "n size size 3"], Bool[np.ndarray, "n size size"]]:
    """The rows' images and masks; a normal image's mask is all False."""
    images = np.stack([read_image(row.image_path, "RGB", size) for row in rows])
    masks = [np.zeros((size, size), bool) if row.mask_path is None else read_image(row.mask_path, "L", size) > 0 for row in rows]
    return images, np.stack(masks)


def _chunks(path: Path) -> Iterator[tuple[list[str], UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, "n h w"]]]:
    """A shard's ids, images and masks, CHUNK rows at a time."""
    for batch in pq.ParquetFile(path).iter_batches(CHUNK, columns=["sample_id", "image", "mask"]):
        rows = batch.to_pylist()
        images = np.stack([decode_image(row["image"]["bytes"], "RGB", row["sample_id"]) for row in rows])
        masks = np.stack([decode_image(row["mask"]["bytes"], "L", row["sample_id"]) > 127 for row in rows])
        yield [row["sample_id"] for row in rows], images, masks


def _small(images: np.ndarray) -> np.ndarray:
    step = max(1, images.shape[1] // SEARCH)
    return images[:, ::step, ::step].astype(np.float32)


def _nearest(cells: Float[Tensor, "n d"], bank: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    return torch.cdist(cells, bank).amin(dim=1)
