"""Draws the README's two pictures from a run's artefacts: ``python benchmarks/pictures.py OUT [--method cadiff]``.

``OUT/demo.jpg``: a row for each product and type, the first three exemplars to the left, eight of the generated images, evenly taken,
to the right, masks outlined. ``OUT/intensity.png``: the report's ladders from w = 0 on, in two columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cadiff.data import load_samples
from cadiff.records import GENERATED_SCHEMA, SAMPLE_SCHEMA, SHOWCASE_SCHEMA, SampleRow, from_table
from cadiff.storage import decode_image, read_table

MADE, SIDE, GAP, REAL, GENERATED = Path("data/made"), 128, 6, 3, 8
LADDER_SIDE, HEAD = 96, 18
OUTLINE = (220, 40, 40)


def enlarged(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture at ``SIDE``, an outline around its mask."""
    large, shape = enlarged(image).copy(), enlarged(mask.astype(np.uint8) * 255) > 127
    large[ndimage.binary_dilation(shape) & ~shape] = OUTLINE
    return large


def row(product: str, kind: str, method: str) -> np.ndarray:
    samples = from_table(read_table(MADE / "samples" / f"{product}.parquet", SAMPLE_SCHEMA), SampleRow)
    shown = [s for s in samples if s.role == "exemplar" and s.anomaly_type == kind][:REAL]
    shard = read_table(MADE / "generated" / method / product / f"{kind}.parquet", GENERATED_SCHEMA).to_pylist()
    made = [shard[k * len(shard) // GENERATED] for k in range(GENERATED)]
    images = [decode_image(r["image"]["bytes"], "RGB") for r in made]
    masks = [decode_image(r["mask"]["bytes"], "L") > 127 for r in made]
    photos, truths = load_samples(shown, images[0].shape[0])
    left = [outlined(image, mask) for image, mask in zip(photos, truths, strict=True)]
    right = [outlined(image, mask) for image, mask in zip(images, masks, strict=True)]
    lacking = (REAL - len(left)) * SIDE
    return np.concatenate([np.full((SIDE, lacking, 3), 255, np.uint8), *left, np.full((SIDE, GAP, 3), 255, np.uint8), *right], 1)


def ladders(product: str) -> list[tuple[list[str], list[np.ndarray]]]:
    """Each type's labels and pictures, from w = 0 on."""
    shown = [r for r in read_table(MADE / "reported" / "showcase" / product / "pictures.parquet", SHOWCASE_SCHEMA).to_pylist()
             if r["figure"] == "ladder"]  # fmt: skip
    groups = dict.fromkeys(r["group"] for r in shown)
    found = []
    for group in groups:
        own = [r for r in shown if r["group"] == group]
        first = next(k for k, r in enumerate(own) if r["label"].replace(" ", "") == "w=0")
        found.append(([r["label"] for r in own[first:]], [decode_image(r["image"]["bytes"], "RGB") for r in own[first:]]))
    return found


def ladder_sheet(rows: list[tuple[list[str], list[np.ndarray]]]) -> Image.Image:
    half, wide = -(-len(rows) // 2), len(rows[0][0])
    column = wide * LADDER_SIDE + 2 * GAP
    sheet = Image.new("RGB", (2 * column - 2 * GAP, HEAD + half * LADDER_SIDE), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, (labels, pictures) in enumerate(rows):
        left, top = index // half * column, HEAD + index % half * LADDER_SIDE
        for step, (label, picture) in enumerate(zip(labels, pictures, strict=True)):
            sheet.paste(Image.fromarray(enlarged(picture, LADDER_SIDE)), (left + step * LADDER_SIDE, top))
            if index % half == 0:
                pen.text((left + step * LADDER_SIDE + LADDER_SIDE // 2, HEAD // 2), label, fill="black", anchor="mm", font=font)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder that is there")
    parser.add_argument("--method", default="cadiff")
    options = parser.parse_args()
    products = sorted((MADE / "generated" / options.method).iterdir())
    rows = [
        row(folder.name, shard.stem, options.method)
        for folder in products for shard in sorted(folder.glob("*.parquet")) if shard.stem != "good"
    ]  # fmt: skip
    Image.fromarray(np.concatenate(rows)).save(options.out / "demo.jpg", quality=88, subsampling=0, optimize=True)
    ladder_sheet([one for folder in products for one in ladders(folder.name)]).save(options.out / "intensity.png", optimize=True)


if __name__ == "__main__":
    main()
