"""The demo data set: four drawn products in MVTec AD's layout, each picture from its own seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cadiff.data.drawing.products import DEMO, draw
from cadiff.errors import UsageError
from cadiff.params import DrawParams
from cadiff.progress import Progress
from cadiff.seeds import numpy_generator
from cadiff.storage import write_image

PRODUCTS = tuple(DEMO)
SIDE = 256


def draw_product(params: DrawParams, product: str, seed: int, out: Path, side: int = SIDE) -> None:
    """Writes ``out/{train/good,test/good,test/<type>,ground_truth/<type>}`` as PNG, ``side`` x ``side`` px.

    Raises:
        UsageError: if the product is none of the demo's.
    """
    if product not in DEMO:
        raise UsageError(f"draw.products: expected some of {', '.join(PRODUCTS)}, found {product!r}")
    counts: dict[tuple[str, str | None], int] = {("train", None): params.normals, ("test", None): params.test_good}
    counts |= {("test", kind): params.anomalies_per_type for kind in DEMO[product].kinds}
    bar = Progress(f"draw {product}", sum(counts.values()))
    for (split, kind), count in counts.items():
        for index in range(count):
            rng = numpy_generator(seed, "demo", product, split, kind or "good", index)
            image, mask = draw(DEMO[product], rng, side, kind)
            write_image(out / split / (kind or "good") / f"{index:03d}.png", image)
            if kind is not None:
                write_image(out / "ground_truth" / kind / f"{index:03d}_mask.png", mask.astype(np.uint8) * 255)
            bar.advance()
