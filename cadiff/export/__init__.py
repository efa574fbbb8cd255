"""A product's generated images in other tools' layouts: ``cadiff export``. One module a format, each with ``write``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from cadiff.errors import UsageError
from cadiff.export import coco, hugging_face, mvtec, voc, yolo
from cadiff.export.items import Items
from cadiff.params import ExportFormat

WRITERS: dict[ExportFormat, Callable[[Items, str, Path], None]] = {
    "mvtec": mvtec.write, "coco": coco.write, "yolo": yolo.write, "voc": voc.write, "huggingface": hugging_face.write,
}  # fmt: skip


def export_product(shards: Path, out: Path, layout: ExportFormat = "mvtec") -> int:
    """Writes a product's folder of shards, named as the product is, into ``out``, each image at its own canvas and byte for byte the
    shards' own; ``out`` appears when all of it is written. Returns how many images it wrote.

    Raises:
        CADiffError: if there are no shards, one does not read, or an anomaly's mask is empty.
        UsageError: if ``out`` holds something already: an earlier export's images beside these would look like these; or if the format
            cannot hold a name or a mask.
    """
    items = Items(shards)
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out}: expected a new or empty folder, found files; remove it, or name another")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name[:64]}.") as scratch:
        made = Path(scratch) / "made"
        WRITERS[layout](items, shards.name, made)
        if out.is_dir():
            out.rmdir()
        made.rename(out)
    return len(items)


__all__ = ["WRITERS", "export_product"]
