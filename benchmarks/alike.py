"""Do held-out images show the exemplars' own pieces? ``python benchmarks/alike.py PRODUCT [--methods M ...]``, after a run.

Where the same piece was photographed several times, some pictures of it may be exemplars and others held out: then a detector
that remembers its exemplars scores well on what is no new piece. An image shows an exemplar's piece if their grain correlates
above ``SAME``. Prints how many do, and each method's pixel AP on those, and on the others, both with all good test images (from
the 8-bit maps that the report shows, so it may differ from the table in the last digit).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score

from cadiff.errors import exit_code
from cadiff.params import MetricParams, load_params
from cadiff.pictures import fitted, read_mask
from cadiff.records import SAMPLE_SCHEMA, SCORED_SCHEMA, SampleRow, from_table
from cadiff.stages import MADE
from cadiff.storage import decode_image, missing, read_image, read_table

SAME = 0.7
SIDE = 64  # px that pictures are brought to, whatever their shape: a piece's grain is known at that size
LIGHT = 6.0  # px of these: what is smoother is light and shade, which another exposure changes


def grain(image: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, " hw"]:
    """The picture without its slow changes, of zero mean and unit length: two grains' product is their correlation."""
    fine = image.astype(float) - gaussian_filter(image.astype(float), LIGHT * image.shape[0] / 64)
    fine -= fine.mean()
    return (fine / max(float(np.linalg.norm(fine)), 1e-9)).ravel()


def likeness(exemplars: Sequence[UInt8[np.ndarray, "h w"]], others: Sequence[UInt8[np.ndarray, "h w"]]) -> Float[np.ndarray, " n"]:
    """Each other picture's largest correlation with an exemplar, in the same place."""
    return (np.stack([grain(o) for o in others]) @ np.stack([grain(e) for e in exemplars]).T).max(1)


def grey(row: SampleRow) -> UInt8[np.ndarray, "h w"]:
    return read_image(row.image_path, "RGB", (SIDE, SIDE), levels=row.levels).mean(-1).round().astype(np.uint8)


def same_pieces(samples: Sequence[SampleRow]) -> dict[str, bool]:
    """Of each held-out anomaly, whether an exemplar of its type shows the same piece."""
    found: dict[str, bool] = {}
    for kind in sorted({row.anomaly_type for row in samples if row.role == "exemplar" and row.anomaly_type}):
        shown, held = ([row for row in samples if row.anomaly_type == kind and row.role == role] for role in ("exemplar", "held_out"))
        if held:
            values = likeness([grey(row) for row in shown], [grey(row) for row in held])
            found |= {row.sample_id: bool(value > SAME) for row, value in zip(held, values, strict=True)}
    return found


def split_ap(scored: pd.DataFrame, samples: dict[str, SampleRow], same: dict[str, bool], settings: MetricParams) -> dict[bool, float]:
    """Pixel AP of one seed's maps on the held-out images of the exemplars' pieces (True) and of others (False), with all good ones; at
    the size and by the rule that pixels are scored at (``metrics``)."""
    labels: dict[bool | None, list[np.ndarray]] = {True: [], False: [], None: []}
    scores: dict[bool | None, list[np.ndarray]] = {True: [], False: [], None: []}
    for shown in scored.itertuples():
        row = samples[shown.sample_id]
        shape = fitted(row.height, row.width, settings.size)
        mask = read_mask(row.mask_path, shape, settings.mask_rule) if row.mask_path else np.zeros(shape, bool)
        values = decode_image(shown.anomaly_map["bytes"], "L", row.sample_id)
        side = same.get(row.sample_id)
        labels[side].append(mask.ravel())
        scores[side].append(np.asarray(Image.fromarray(values).resize(shape[::-1])).ravel())
    together = {side: [np.concatenate(pool[side] + pool[None]) for pool in (labels, scores)] for side in (True, False)}
    return {side: float(average_precision_score(*pair)) if pair[0].any() else float("nan") for side, pair in together.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("product")
    parser.add_argument("--methods", nargs="+", default=["exemplars", "cadiff", "both"])
    options = parser.parse_args()

    def work() -> None:
        settings = load_params(Path("params.yaml")).for_product(options.product).metrics
        samples = from_table(read_table(MADE / "samples" / f"{options.product}.parquet", SAMPLE_SCHEMA), SampleRow)
        same = same_pieces(samples)
        shown = sum(same.values())
        print(f"{options.product}: {shown} of {len(same)} held-out anomalies show an exemplar's piece (correlation above {SAME})")
        for method in options.methods:
            path = MADE / "evaluated" / method / options.product / "scored.parquet"
            if not path.is_file():
                raise missing(path)
            frame = read_table(path, SCORED_SCHEMA).to_pandas()
            found = [split_ap(part, {row.sample_id: row for row in samples}, same, settings) for _, part in frame.groupby("seed")]
            for side, name in ((True, "same pieces"), (False, "other pieces")):
                values = [100 * each[side] for each in found]
                spread = f" +- {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
                print(f"{method}, {name}: pixel AP {np.mean(values):.1f}{spread}", flush=True)

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
