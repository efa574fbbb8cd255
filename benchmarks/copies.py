"""Are copies of exemplars found, and nothing else? ``python benchmarks/copies.py [--products P ...]``, after a run.

Of each type, the exemplars' masked pixels are pasted onto other train normals: in the same place, mirrored, turned, moved, and
scaled. Prints how many of them the quality signal calls likely copies, how many of the held-out anomalies, which are none, and
how many of each method's images. The copies are drawn with a seed, so that two calls print the same.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8
from scipy import ndimage

from cadiff.errors import exit_code
from cadiff.masks.shapes import move_mask, move_picture, shares
from cadiff.metrics.copies import Defect, Originals, originals
from cadiff.params import load_params
from cadiff.pictures import Pictures, Size
from cadiff.records import GENERATED_SCHEMA, SAMPLE_SCHEMA, SampleRow, from_table
from cadiff.reporting.signals import COPY
from cadiff.scene import Movement
from cadiff.seeds import numpy_generator
from cadiff.stages import MADE
from cadiff.storage import decode_image, read_batches, read_table

MOVED = 0.15  # of the side, at most, from the middle
COPIES = {  # scale, turn in degrees, mirrored, moved
    "pasted": (1.0, 0, False, False), "mirrored": (1.0, 0, True, False), "turned 15": (1.0, 15, False, False),
    "turned 37": (1.0, 37, False, False), "moved": (1.0, 0, False, True), "scaled 1.2": (1.2, 0, False, False),
    "all of it": (1.2, 37, True, True),
}  # fmt: skip
Shown = Iterable[tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]]


def copies(name: str, exemplars: Pictures, normals: Pictures, rng: np.random.Generator) -> Shown:
    """Each exemplar's defect on some normal, as large there in px and, where it is not moved, in the same relative place."""
    scale, turn, mirror, move = COPIES[name]
    for image, mask in exemplars:
        normal = normals[int(rng.integers(len(normals)))].image
        away = rng.uniform(-MOVED, MOVED, 2)
        centre = shares(ndimage.center_of_mass(mask), mask.shape) if not move else (0.5 + away[0], 0.5 + away[1])
        movement, canvas = Movement(scale, math.radians(turn), mirror, centre), (normal.shape[0], normal.shape[1])
        there = move_mask(mask, movement, canvas)
        colours = move_picture(image, mask, movement, canvas).round().clip(0, 255)
        yield np.where(there[..., None], colours, normal).astype(np.uint8), there


def made(path: Path) -> Shown:
    for batch in read_batches(path, GENERATED_SCHEMA):
        for row in batch.to_pylist():
            yield decode_image(row["image"]["bytes"], "RGB"), decode_image(row["mask"]["bytes"], "L") > 127


def flagged(samples: Sequence[SampleRow], product: str, size: Size) -> Iterator[dict[str, object]]:
    """Of each type and of each kind of pictures, the share that is called a likely copy."""
    normals = Pictures([row for row in samples if row.role == "normal"], size)
    for kind in sorted({row.anomaly_type for row in samples if row.role == "exemplar" and row.anomaly_type}):
        own = [row for row in samples if row.anomaly_type == kind]
        exemplars, held = (Pictures([row for row in own if row.role == role], size) for role in ("exemplar", "held_out"))
        rng, known = numpy_generator(0, "copies", product, kind), originals([e.image for e in exemplars], [e.mask for e in exemplars])
        shown: dict[str, Shown] = {name: copies(name, exemplars, normals, rng) for name in COPIES} | {"held out": held}
        shown |= {path.parent.parent.name: made(path) for path in sorted(MADE.glob(f"generated/*/{product}/{kind}.parquet"))}
        shares_of = {name: share_of(known, found) for name, found in shown.items()}
        yield {"product": product, "type": kind, **{name: share for name, share in shares_of.items() if share is not None}}


def share_of(known: Originals, shown: Shown) -> float | None:
    """The share that is called a copy; nan where nobody can tell, None where there is no picture."""
    defects = [Defect.of(image, mask) for image, mask in shown if mask.any()]
    if not defects:
        return None
    nearest = known.of(defects).min(axis=1)
    return float((nearest < COPY).mean()) if np.isfinite(nearest).all() else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", nargs="+")
    chosen, params, rows = parser.parse_args(arguments), load_params(), []
    for product in chosen.products or params.products:
        samples = from_table(read_table(MADE / "samples" / f"{product}.parquet", SAMPLE_SCHEMA), SampleRow)
        rows += list(flagged(samples, product, params.for_product(product).dataset.size))
    table = pd.DataFrame(rows).set_index(["product", "type"])
    table.loc[("mean", ""), :] = table.mean()
    print(f"Below {COPY:g}, in %:\n{(100 * table).round().to_string(float_format='%.0f')}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
