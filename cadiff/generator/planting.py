"""What a mask's image is set in and starts from: a normal with the exemplar set into it, or the exemplar's own picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from cadiff.data.images import load_samples
from cadiff.errors import CADiffError
from cadiff.masks import mask_of
from cadiff.masks.exemplars import IN_PLACE
from cadiff.masks.shapes import Transform, transform_picture
from cadiff.params import Params
from cadiff.records import MaskRow, SampleRow


@dataclass(frozen=True)
class Cutting:
    """An exemplar's pixels (grey levels) where a mask has them to be."""

    anomaly_type: str
    mask: Bool[np.ndarray, "h w"]
    pixels: Float[np.ndarray, "h w 3"]


def cut(
    exemplar: UInt8[np.ndarray, "h w 3"], own: Bool[np.ndarray, "h w"], transform: Transform | None, mask: Bool[np.ndarray, "h w"],
    like: UInt8[np.ndarray, "h w 3"] | None, kind: str,
) -> Cutting:  # fmt: skip
    """The exemplar, moved as its ``own`` mask was moved to become ``mask`` (None: as it lies).

    ``like``: the normal image under whose light it is to be, by the gain of ``expose``.
    """
    moved = exemplar.astype(np.float32) if transform is None else transform_picture(exemplar, own, transform)
    if like is not None and not own.all():
        moved = moved * (like.mean() / max(float(exemplar[~own].mean()), 1.0))
    return Cutting(kind, mask, moved)


def cuttings(
    params: Params, picture: UInt8[np.ndarray, "h w 3"], rows: Sequence[MaskRow], samples: Mapping[str, SampleRow]
) -> list[Cutting]:
    """What is to be set into ``picture``: a cutting for each mask, none if that is not asked for or a mask has no exemplar.

    Raises:
        CADiffError: as ``cutting_of``.
    """
    if params.generate.start != "exemplar" or any(row.exemplar_id is None for row in rows):
        return []
    return [cutting_of(params, picture, row, samples) for row in rows]


def cutting_of(params: Params, picture: UInt8[np.ndarray, "h w 3"], row: MaskRow, samples: Mapping[str, SampleRow]) -> Cutting:
    """The exemplar of a mask, where the mask has it, in the light of ``picture`` where ``train.exposure`` asks for it.

    Raises:
        CADiffError: if it is not among ``samples``.
    """
    source = samples.get(str(row.exemplar_id))
    if source is None:
        raise CADiffError(f"masks: {row.exemplar_id} is not among the product's exemplars. Rerun the masks stage.")
    images, masks = load_samples([source], params.base.size)
    transform = Transform.of(row.transform) if row.transform else None
    like = picture if params.train.exposure == "normals" else None
    return cut(images[0], masks[0], transform, mask_of(row), like, row.anomaly_type)


def setting_of(
    params: Params, normal: UInt8[np.ndarray, "h w 3"], row: MaskRow, samples: Mapping[str, SampleRow]
) -> tuple[UInt8[np.ndarray, "h w 3"], list[Cutting]]:
    """The picture that a mask's image is set in, and the cuttings to start from.

    For a mask that stays in place it is the exemplar's own picture, in the light of ``normal`` where ``train.exposure`` asks for
    it, without its anomaly (``without``); else it is ``normal``.
    """
    if row.mask_source != IN_PLACE:
        return normal, cuttings(params, normal, [row], samples)
    own = cutting_of(params, normal, row, samples)
    whole = own.pixels.clip(0, 255).round().astype(np.uint8)
    return without(whole, own.mask), [own] if params.generate.start == "exemplar" else []


def without(picture: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as it may have been without what is under the mask: what lies around it, mirrored at the mask's edge.

    Mirrored, it keeps its grain and meets its surroundings without a step. Where the mirror shows more of the mask or lies beyond the
    picture, it is the nearest pixel outside.
    """
    if not mask.any() or mask.all():
        return picture
    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    mirrored = 2 * nearest - np.indices(mask.shape)
    edge = np.array(mask.shape)[:, None, None] - 1
    inside = ((mirrored >= 0) & (mirrored <= edge)).all(0)
    row, column = mirrored.clip(0, edge)
    seen = inside & ~mask[row, column]
    row, column = np.where(seen, row, nearest[0]), np.where(seen, column, nearest[1])
    return np.where(mask[..., None], picture[row, column], picture)


def plant(
    picture: UInt8[np.ndarray, "h w 3"], chosen: Sequence[Cutting], weights: Mapping[str, float]
) -> UInt8[np.ndarray, "h w 3"]:
    """``picture`` with each cutting in its mask, w times as far from what was there as it is (w of its type; below 0 as 0).

    So the start follows the intensity as the attention does (Eq. 11): 0 leaves the picture, 1 is the exemplar.
    """
    planted = picture.astype(np.float32)
    for cutting in chosen:
        w = max(weights[cutting.anomaly_type], 0.0)
        planted = np.where(cutting.mask[..., None], planted + w * (cutting.pixels - planted), planted)
    return planted.clip(0, 255).round().astype(np.uint8)
