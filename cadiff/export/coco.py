"""COCO: ``images/*.png`` and ``annotations.json``, each region of a mask an annotation with its runs (compressed RLE).

Runs and no polygons, since they alone hold every mask: holes, single pixels, regions that touch. ``approximate``, a key of our own that
readers pass over, says of an annotation whether its mask's shape stems from a box.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cadiff.export.items import Items
from cadiff.export.outlines import Region, regions
from cadiff.labels.rle import pack_coco, to_runs
from cadiff.storage import write_bytes, write_json


def write(items: Items, product: str, out: Path) -> None:
    numbers = {kind: number for number, kind in enumerate(items.kinds, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for item in items:
        mask, name = item.mask, f"{item.stem}.png"
        write_bytes(out / "images" / name, item.row.image["bytes"])
        image = {"id": item.number + 1, "file_name": name, "height": mask.shape[0], "width": mask.shape[1]}
        images.append({**image, "sample_id": item.row.sample_id})
        for region in regions(mask):
            own = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": numbers[item.kind or ""]}
            annotations.append({**own, **_shape(region, mask.shape), "approximate": item.approximate})
    categories = [{"id": number, "name": kind, "supercategory": product} for kind, number in numbers.items()]
    told = {"description": f"{product}: generated anomalies"}
    write_json(out / "annotations.json", {"info": told, "images": images, "annotations": annotations, "categories": categories})


def _shape(region: Region, shape: tuple[int, ...]) -> dict[str, Any]:
    left, top, right, bottom = region.box
    whole = np.zeros(shape, bool)
    whole[top:bottom, left:right] = region.pixels
    runs = {"size": list(shape), "counts": pack_coco(to_runs(whole, by_columns=True).counts)}
    box = [left, top, right - left, bottom - top]
    return {"segmentation": runs, "area": int(region.pixels.sum()), "bbox": box, "iscrowd": 0}
