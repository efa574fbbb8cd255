"""Masks for synthesis, from whichever source the parameters name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from cadiff.errors import UsageError
from cadiff.masks import folder
from cadiff.masks.exemplars import UNMOVED, ExemplarMasks, ProductFinder
from cadiff.masks.shapes import Transform
from cadiff.params import Params
from cadiff.progress import Progress
from cadiff.records import MaskRow, SampleRow
from cadiff.seeds import numpy_generator
from cadiff.storage import decode_image, encode_png


def make_masks(params: Params, product: str, samples: Sequence[SampleRow]) -> list[MaskRow]:
    """``generate.per_type`` masks at ``base.size`` for each anomaly type that has exemplars, types by name.

    Args:
        params: the product's own, as ``Params.for_product`` gives them.
        samples: the product's images; exemplars and train normals are used, held-out images never.

    Raises:
        UsageError: if there are no exemplars, no normals to place masks on, or no masks in ``masks.folder``.
    """
    types = sorted({row.anomaly_type for row in samples if row.role == "exemplar" and row.anomaly_type})
    if not types:
        raise UsageError(f"{product}: expected at least one anomaly with its mask (an exemplar), found none")
    count, find = params.generate.per_type, ProductFinder(params.base.size)
    return [row for name in types for row in masks_of_type(params, product, samples, name, count, find)]


def masks_of_type(
    params: Params, product: str, samples: Sequence[SampleRow], anomaly_type: str, count: int,
    find: ProductFinder | None = None,
) -> list[MaskRow]:  # fmt: skip
    """The first ``count`` masks of one type; mask k depends on the seed, the product, the type and k alone.

    ``find`` may be shared between types, so that no normal image is read twice.

    Raises:
        UsageError: as ``make_masks``.
    """
    if params.masks.source == "folder":
        return _from_folder(params, product, anomaly_type, count)
    exemplars = [row for row in samples if row.role == "exemplar" and row.anomaly_type == anomaly_type]
    normals = [row for row in samples if row.role == "normal"]
    if not exemplars or not normals:
        lacking = "train normals to place masks on" if exemplars else f"exemplars of {anomaly_type}"
        raise UsageError(f"{product}: expected {lacking}, found none")
    source = ExemplarMasks(exemplars, normals, find or ProductFinder(params.base.size), params)
    names = [(params.seed, "masks", product, anomaly_type, index) for index in range(count)]
    bar = Progress(f"masks {product} {anomaly_type}", count) if count > 1 else None  # one for a scene is no news
    placed = []
    for name in names:
        placed.append(source.draw(numpy_generator(*name)))
        if bar:
            bar.advance()
    unplaced = sum(p.source == UNMOVED for p in placed)
    if unplaced and count > 1:
        told = "see masks.max_cut, masks.edge and, with masks.registered, whether the normals show the exemplars' part"
        place = f"{unplaced} of {count} found no place and lie as in their exemplar's picture"
        print(f"masks {product} {anomaly_type}: {place}; {told}", file=sys.stderr)
    return [
        _row(product, anomaly_type, index, p.mask, p.source, p.exemplar_id, p.normal_id, p.transform)
        for index, p in enumerate(placed)
    ]


def placed_mask(
    params: Params, product: str, normals: Sequence[SampleRow], exemplars: Sequence[SampleRow], anomaly_type: str, find: ProductFinder
) -> MaskRow:
    """One mask on one of ``normals``, whatever share of the masks stays in place: that picture is to be seen."""
    moved = params.model_copy(update={"masks": params.masks.model_copy(update={"in_place": 0.0})})
    return masks_of_type(moved, product, [*normals, *exemplars], anomaly_type, 1, find)[0]


def mask_of(row: MaskRow) -> Bool[np.ndarray, "side side"]:
    return decode_image(row.mask["bytes"], "L", row.mask_id) > 127


def _from_folder(params: Params, product: str, anomaly_type: str, count: int) -> list[MaskRow]:
    """The folder's masks in a seeded order, again from the start when they run out."""
    files = folder.mask_files(params.masks.folder, product, anomaly_type)
    order = numpy_generator(params.seed, "masks", product, anomaly_type).permutation(len(files))
    masks = [folder.read_mask(files[k], params.base.size) for k in order[:count]]
    return [
        _row(product, anomaly_type, index, masks[index % len(masks)], folder.SOURCE, None, None)
        for index in range(count)
    ]


def _row(
    product: str, anomaly_type: str, index: int, mask: Bool[np.ndarray, "side side"], source: str,
    exemplar_id: str | None, normal_id: str | None, transform: Transform | None = None,
) -> MaskRow:  # fmt: skip
    mask_id = f"{product}/{anomaly_type}/{index:05d}"
    png = {"bytes": encode_png(mask.astype(np.uint8) * 255), "path": f"{mask_id}.png"}
    numbers = transform.numbers() if transform else None
    return MaskRow(mask_id, product, anomaly_type, index, png, source, exemplar_id, normal_id, numbers)
