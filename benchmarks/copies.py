"""Are copies of exemplars found, and nothing else? ``python benchmarks/copies.py [--products P ...]``, after a run.

Of each type, the exemplars' masked pixels are pasted onto other train normals: in the same place, mirrored, turned, moved, and
scaled. Prints how many of them the quality signal calls likely copies, how many of the held-out anomalies, which are none, and
how many of each method's images. The copies are drawn with a seed, so that two calls print the same.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8
from scipy import ndimage

from cadiff.data.images import load_samples
from cadiff.errors import exit_code
from cadiff.masks.shapes import Transform, apply_transform, transform_picture
from cadiff.metrics.copies import originals
from cadiff.params import load_params
from cadiff.records import GENERATED_SCHEMA, SAMPLE_SCHEMA, SampleRow, from_table
from cadiff.reporting.signals import COPY
from cadiff.seeds import numpy_generator
from cadiff.stages import MADE
from cadiff.storage import decode_image, read_table

MOVED = 0.15  # of the side, at most, from the middle
COPIES = {  # scale, turn in degrees, mirrored, moved
    "pasted": (1.0, 0, False, False), "mirrored": (1.0, 0, True, False), "turned 15": (1.0, 15, False, False),
    "turned 37": (1.0, 37, False, False), "moved": (1.0, 0, False, True), "scaled 1.2": (1.2, 0, False, False),
    "all of it": (1.2, 37, True, True),
}  # fmt: skip
Pictures = tuple[UInt8[np.ndarray, "n side side 3"], Bool[np.ndarray, "n side side"]]


def copies(name: str, exemplars: Pictures, normals: UInt8[np.ndarray, "m side side 3"], rng: np.random.Generator) -> Pictures:
    """Each exemplar's defect on some normal."""
    scale, turn, mirror, move = COPIES[name]
    pasted, moved = [], []
    for image, mask in zip(*exemplars, strict=True):
        side = len(mask)
        away = rng.uniform(-MOVED, MOVED, 2) * side
        row, column = np.array([side / 2, side / 2]) + away if move else ndimage.center_of_mass(mask)
        transform = Transform(scale, math.radians(turn), mirror, (float(row), float(column)))
        there = mask if name == "pasted" else apply_transform(mask, transform)
        colours = image if name == "pasted" else transform_picture(image, mask, transform).round().clip(0, 255)
        pasted.append(np.where(there[..., None], colours, normals[rng.integers(len(normals))]).astype(np.uint8))
        moved.append(there)
    return np.stack(pasted), np.stack(moved)


def made(path: Path) -> Pictures:
    rows = read_table(path, GENERATED_SCHEMA).to_pylist()
    images = [decode_image(row["image"]["bytes"], "RGB") for row in rows]
    return np.stack(images), np.stack([decode_image(row["mask"]["bytes"], "L") > 127 for row in rows])


def flagged(samples: Sequence[SampleRow], product: str, size: int) -> Iterator[dict[str, object]]:
    """Of each type and of each kind of pictures, the share that is called a likely copy."""
    normals, _ = load_samples([row for row in samples if row.role == "normal"], size)
    for kind in sorted({row.anomaly_type for row in samples if row.role == "exemplar" and row.anomaly_type}):
        own = [row for row in samples if row.anomaly_type == kind]
        exemplars, held = (load_samples([row for row in own if row.role == role], size) for role in ("exemplar", "held_out"))
        rng, known = numpy_generator(0, "copies", product, kind), originals(*exemplars)
        shown = {name: copies(name, exemplars, normals, rng) for name in COPIES} | {"held out": held}
        shown |= {path.parent.parent.name: made(path) for path in sorted(MADE.glob(f"generated/*/{product}/{kind}.parquet"))}
        nearest = {name: known.distances(*found).min(axis=1) for name, found in shown.items() if len(found[0])}
        shares = {name: float((each < COPY).mean()) if np.isfinite(each).all() else float("nan") for name, each in nearest.items()}
        yield {"product": product, "type": kind, **shares}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", nargs="+")
    chosen, params, rows = parser.parse_args(arguments), load_params(), []
    for product in chosen.products or params.products:
        samples = from_table(read_table(MADE / "samples" / f"{product}.parquet", SAMPLE_SCHEMA), SampleRow)
        rows += list(flagged(samples, product, params.for_product(product).base.size))
    table = pd.DataFrame(rows).set_index(["product", "type"])
    table.loc[("mean", ""), :] = table.mean()
    print(f"Below {COPY:g}, in %:\n{(100 * table).round().to_string(float_format='%.0f')}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
