"""Generated shards as PNG folders in MVTec AD layout."""

from __future__ import annotations

from pathlib import Path

from cadiff.errors import UsageError
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, from_table
from cadiff.storage import missing, read_table, write_bytes

GOOD = "good"


def export_product(shards: Path, out: Path) -> int:
    """Writes ``out/test/<type>/NNNN.png`` and ``out/ground_truth/<type>/NNNN_mask.png`` from a folder of
    shards, each at its own canvas; ``good`` has no masks. Returns how many images it wrote.

    The bytes are the shards' own: nothing is decoded or encoded again.

    Raises:
        CADiffError: if there are no shards, or one does not read.
        UsageError: if ``out`` holds something already: an earlier export's images beside these would look like these.
    """
    paths = sorted(shards.glob("*.parquet"))
    if not paths:
        raise missing(shards / "*.parquet")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out}: expected a new or empty folder, found files; remove it, or name another")
    count = 0
    for path in paths:
        for index, row in enumerate(from_table(read_table(path, GENERATED_SCHEMA), GeneratedRow)):
            write_bytes(out / "test" / path.stem / f"{index:04}.png", row.image["bytes"])
            if path.stem != GOOD:
                write_bytes(out / "ground_truth" / path.stem / f"{index:04}_mask.png", row.mask["bytes"])
            count += 1
    return count
