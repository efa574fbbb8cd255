"""MVTec AD's layout: ``test/<type>/NNNN.png`` and ``ground_truth/<type>/NNNN_mask.png``; ``good`` has no masks.

The bytes are the shards' own: nothing is decoded or encoded again. ``ground_truth/approximate.csv`` names the masks whose shapes stem from
boxes, where there are such, as ``cadiff import`` does.
"""

from __future__ import annotations

from pathlib import Path

from cadiff.data.approximate import write_approximate
from cadiff.export.items import Items
from cadiff.names import GOOD
from cadiff.storage import write_bytes


def write(items: Items, product: str, out: Path) -> None:
    approximate: dict[str, str] = {}
    for item in items:
        kind = item.shard.stem
        write_bytes(out / "test" / kind / f"{item.index:04}.png", item.row.image["bytes"])
        if kind != GOOD:
            write_bytes(out / "ground_truth" / kind / f"{item.index:04}_mask.png", item.row.mask["bytes"])
        if item.approximate:
            approximate[f"{kind}/{item.index:04}_mask.png"] = "of an approximate exemplar"
    if approximate:
        write_approximate(out, approximate)
