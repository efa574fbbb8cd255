"""YOLO-seg: ``images/*.png``, ``labels/*.txt`` with a polygon a region, and ``data.yaml`` with the classes' names.

A line is one ring without holes; a region's hole is entered and left along the same line (``outlines.outline``), so that exactly the mask's
pixels have their centres inside. A normal image has an empty file: it is background. A label has no place for more, so images whose masks'
shapes stem from boxes are listed in ``approximate.txt``, a set as ``train`` may name one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cadiff.export.items import Items
from cadiff.export.outlines import outline, regions
from cadiff.params import as_written
from cadiff.storage import write_bytes, write_text


def write(items: Items, product: str, out: Path) -> None:
    numbers = {kind: number for number, kind in enumerate(items.kinds)}
    approximate = []
    for item in items:
        mask = item.mask
        lines = [_line(numbers[item.kind or ""], outline(region) / (mask.shape[1], mask.shape[0])) for region in regions(mask)]
        write_bytes(out / "images" / f"{item.stem}.png", item.row.image["bytes"])
        write_text(out / "labels" / f"{item.stem}.txt", "".join(lines))
        approximate += [f"./images/{item.stem}.png\n"] if item.approximate else []
    if approximate:
        write_text(out / "approximate.txt", "".join(approximate))
    said = as_written({"train": "images", "val": "images", "names": dict(enumerate(items.kinds))})
    advice = "# All of these are generated: let `val` name real pictures, with labels, which tell whether they help."
    write_text(out / "data.yaml", "\n".join([advice, *said]) + "\n")


def _line(number: int, shares: np.ndarray) -> str:
    return f"{number} {' '.join(f'{share:.8g}' for share in shares.ravel())}\n"
