"""Masks that say no more than a box does: those that stem from boxes, and filled rectangles much larger than what differs in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import find_objects, label

from cadiff.records import SampleRow
from cadiff.storage import read_image

LOOKED_AT = 9  # masks of a type, and normals
FILLED = 0.98  # of its bounding box: a rectangle
MOSTLY = 0.75  # of a type's masks are rectangles: it was labelled with boxes
LOOSE = 0.5  # of a box's pixels differ: of a looser one, fewer do
DEVIATIONS, FLOOR = 4.0, 4.0  # of the normals, and grey levels that they are taken to vary by at least: what lies beyond differs


def box_lines(rows: Sequence[SampleRow]) -> tuple[str, ...]:
    """Remarks on a product's masks, a line each."""
    lines = []
    if approximate := sum(row.approximate for row in rows):
        lines.append(f"  {approximate} masks are approximate, as they stem from boxes: pixel figures rest on them")
    for name in sorted({row.anomaly_type for row in rows if row.anomaly_type}):
        share = _share_of_boxes([row for row in rows if row.anomaly_type == name], [row for row in rows if row.role == "normal"])
        if share is not None and share < LOOSE:
            lines.append(
                f"  {name}: the masks are filled rectangles, in which {100 * share:.0f} % of the pixels differ from the normals: pixel "
                "figures would rest on boxes. Draw what is defective, or import the boxes as boxes (cadiff import)"
            )
    return tuple(lines)


def _share_of_boxes(rows: Sequence[SampleRow], normals: Sequence[SampleRow]) -> float | None:
    """Of masks that are rectangles, the median share of pixels that differ from the normals; None: they are no rectangles, or no normal
    has the size of one."""
    first = [row for row in rows if not row.approximate][:LOOKED_AT]
    masks = [read_image(row.mask_path, "L") > 0 for row in first if row.mask_path]
    if not masks or sum(map(_is_of_rectangles, masks)) < MOSTLY * len(masks):
        return None
    shares = []
    for row, mask in zip(first, masks, strict=True):
        same = [one for one in normals if (one.width, one.height) == (row.width, row.height)][:LOOKED_AT]
        if same and _is_of_rectangles(mask):
            shares.append(float(_differs(row, same)[mask].mean()))
    return float(np.median(shares)) if shares else None


def _is_of_rectangles(mask: Bool[np.ndarray, "h w"]) -> bool:
    pieces, _ = label(mask)
    return all((pieces[place] > 0).mean() >= FILLED and (pieces[place] > 0).sum() > 1 for place in find_objects(pieces))


def _differs(row: SampleRow, normals: Sequence[SampleRow]) -> Bool[np.ndarray, "h w"]:
    """Where a picture lies beyond what the normals show in the same place."""
    shown: Float[np.ndarray, "n h w 3"] = np.stack([_read(one) for one in normals])
    usual = np.median(shown, axis=0)
    spread = 1.4826 * np.median(np.abs(shown - usual), axis=0) + FLOOR
    return np.asarray((np.abs(_read(row) - usual) > DEVIATIONS * spread).any(axis=-1))


def _read(row: SampleRow) -> Float[np.ndarray, "h w 3"]:
    return read_image(row.image_path, "RGB", levels=row.levels).astype(np.float32)
