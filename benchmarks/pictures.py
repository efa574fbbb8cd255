"""Draws the README's two pictures from a run's artefacts: ``python benchmarks/pictures.py OUT [--method cadiff]``.

``OUT/demo.jpg``: a row for each product and type, the first two exemplars to the left, four of the generated images, evenly taken,
to the right, masks outlined; as many px as the canvas has, so that one would see a seam. ``OUT/intensity.png``: the report's
ladders from w = 0 on, in two columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cadiff.pictures import fitted, read_picture
from cadiff.records import GENERATED_SCHEMA, SAMPLE_SCHEMA, SHOWCASE_SCHEMA, SampleRow, from_table
from cadiff.storage import decode_image, read_table

MADE, SIDE, GAP, REAL, GENERATED = Path("data/made"), 256, 6, 2, 4
LADDER_SIDE, HEAD = 96, 18
OUTLINE, AWAY = (220, 40, 40), 4


def enlarged(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The picture with this shorter side, as it is where it has that already."""
    shape = fitted(*image.shape[:2], side)
    return image if image.shape[:2] == shape else np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.LANCZOS))


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture at ``SIDE``, an outline around its mask, ``AWAY`` px from it: a seam would be at the mask's edge."""
    large, shape = enlarged(image).copy(), enlarged(mask.astype(np.uint8) * 255) > 127
    near = ndimage.binary_dilation(shape, iterations=AWAY)
    large[ndimage.binary_dilation(near) & ~near] = OUTLINE
    return large


def row(product: str, kind: str, method: str) -> np.ndarray:
    samples = from_table(read_table(MADE / "samples" / f"{product}.parquet", SAMPLE_SCHEMA), SampleRow)
    shown = [s for s in samples if s.role == "exemplar" and s.anomaly_type == kind][:REAL]
    shard = read_table(MADE / "generated" / method / product / f"{kind}.parquet", GENERATED_SCHEMA).to_pylist()
    made = [shard[k * len(shard) // GENERATED] for k in range(GENERATED)]
    left = [outlined(*read_picture(sample, SIDE)) for sample in shown]
    right = [outlined(decode_image(r["image"]["bytes"], "RGB"), decode_image(r["mask"]["bytes"], "L") > 127) for r in made]
    height = max(len(image) for image in left + right)
    empty = np.full((height, SIDE, 3), 255, np.uint8)
    cells = [*[empty] * (REAL - len(left)), *left, np.full((height, GAP, 3), 255, np.uint8), *right]
    return np.concatenate([np.pad(c, ((0, height - len(c)), (0, 0), (0, 0)), constant_values=255) for c in cells], 1)


def stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Rows below each other, the shorter ones with white behind them."""
    wide = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0)), constant_values=255) for row in rows])


def ladders(product: str, method: str) -> list[tuple[list[str], list[np.ndarray]]]:
    """Each type's labels and pictures, from w = 0 on."""
    shown = [r for r in read_table(MADE / "reported" / "showcase" / method / product / "pictures.parquet", SHOWCASE_SCHEMA).to_pylist()
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
    Image.fromarray(stacked(rows)).save(options.out / "demo.jpg", quality=88, subsampling=0, optimize=True)
    found = [one for folder in products for one in ladders(folder.name, options.method)]
    ladder_sheet(found).save(options.out / "intensity.png", optimize=True)


if __name__ == "__main__":
    main()
