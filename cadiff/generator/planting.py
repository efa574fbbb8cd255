"""Pictures to start from: a normal image with a mask's own exemplar set into it (``generate.start: exemplar``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from cadiff.data.images import load_samples
from cadiff.errors import CADiffError
from cadiff.masks.shapes import Transform, transform_picture
from cadiff.params import Params
from cadiff.records import MaskRow, SampleRow
from cadiff.storage import decode_image


def plant(
    normal: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], exemplar: UInt8[np.ndarray, "h w 3"],
    own: Bool[np.ndarray, "h w"], transform: Transform | None, relit: bool,
) -> UInt8[np.ndarray, "h w 3"]:  # fmt: skip
    """``normal``, and inside ``mask`` the exemplar, moved as its ``own`` mask was moved to become ``mask`` (None: as it lies).

    ``relit``: under one gain that makes exemplar and normal, each outside of its mask, equally bright.
    """
    moved = exemplar.astype(np.float32) if transform is None else transform_picture(exemplar, own, transform)
    if relit and not mask.all() and not own.all():
        moved = moved * (normal[~mask].mean() / max(float(exemplar[~own].mean()), 1.0))
    return np.where(mask[..., None], moved, normal).clip(0, 255).round().astype(np.uint8)


def planted(
    params: Params, picture: UInt8[np.ndarray, "h w 3"], rows: Sequence[MaskRow], samples: Mapping[str, SampleRow]
) -> UInt8[np.ndarray, "h w 3"] | None:
    """``picture`` with the exemplar of each mask set into it, in order; None: not asked for, or a mask has no exemplar.

    Raises:
        CADiffError: if an exemplar is not among ``samples``.
    """
    if params.generate.start != "exemplar" or not rows or any(row.exemplar_id is None for row in rows):
        return None
    for row in rows:
        source = samples.get(str(row.exemplar_id))
        if source is None:
            raise CADiffError(f"masks: {row.exemplar_id} is not among the product's exemplars. Rerun the masks stage.")
        images, masks = load_samples([source], params.base.size)
        transform = Transform.of(row.transform) if row.transform else None
        mask = decode_image(row.mask["bytes"], "L", row.mask_id) > 127
        picture = plant(picture, mask, images[0], masks[0], transform, params.train.exposure == "normals")
    return picture
