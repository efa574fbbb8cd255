"""Draws the README's picture from the generated shards: ``python benchmarks/pictures.py OUT.png [--product P ...]``.

One row per product and type: real exemplars to the left, generated images to the right, masks outlined.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from cadiff.data import load_samples
from cadiff.records import GENERATED_SCHEMA, SAMPLE_SCHEMA, SampleRow, from_table
from cadiff.storage import decode_image, read_table

MADE, SCALE, GAP = Path("data/made"), 2, 6


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture (s s 3) at ``SCALE``, its mask's outline in red."""
    large, shape = image.repeat(SCALE, 0).repeat(SCALE, 1), mask.repeat(SCALE, 0).repeat(SCALE, 1)
    edge = ndimage.binary_dilation(shape) & ~shape
    return np.where(edge[..., None], np.array([235, 40, 40], np.uint8), large)


def row(product: str, kind: str, method: str, real: int, made: int) -> np.ndarray:
    samples = from_table(read_table(MADE / "samples" / f"{product}.parquet", SAMPLE_SCHEMA), SampleRow)
    shown = [s for s in samples if s.role == "exemplar" and s.anomaly_type == kind][:real]
    shard = read_table(MADE / "generated" / method / product / f"{kind}.parquet", GENERATED_SCHEMA).to_pylist()[:made]
    images = [decode_image(r["image"]["bytes"], "RGB") for r in shard]
    masks = [decode_image(r["mask"]["bytes"], "L") > 127 for r in shard]
    photos, truths = load_samples(shown, images[0].shape[0])
    left = [outlined(image, mask) for image, mask in zip(photos, truths, strict=True)]
    right = [outlined(image, mask) for image, mask in zip(images, masks, strict=True)]
    space = np.full((left[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([*left, space, *right], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--product", action="append")
    parser.add_argument("--method", default="cadiff")
    parser.add_argument("--real", type=int, default=3)
    parser.add_argument("--made", type=int, default=8)
    options = parser.parse_args()
    folders = sorted((MADE / "generated" / options.method).iterdir())
    chosen = [folder for folder in folders if not options.product or folder.name in options.product]
    rows = [
        row(folder.name, shard.stem, options.method, options.real, options.made)
        for folder in chosen for shard in sorted(folder.glob("*.parquet")) if shard.stem != "good"
    ]  # fmt: skip
    width = min(r.shape[1] for r in rows)
    Image.fromarray(np.concatenate([r[:, :width] for r in rows])).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
