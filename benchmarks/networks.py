"""What a detector learns in equal time, by its network and the size that it sees pictures at.

    python benchmarks/networks.py PRODUCT [--seeds 0 1 2] [--networks unet efficientnet-lite0] [--sizes 64 128 256]

Run it in a folder with params.yaml after `synthesize --method exemplars`: detectors are trained on augmented exemplars alone, so that
no generator's images choose between them, or on those of another ``--method``, ``--beside`` those of one more. Each network has as many
steps at each size (``STEPS``) as take about the time of the pretrained one's 150 at 128 px, half of the demo's; the seconds that they
took here, beside whatever else ran, are printed. ``--times`` multiplies the steps. Each cell is kept in ``.cadiff/networks`` and made
once, so a stopped run goes on.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import dataclasses
import itertools
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from cadiff.detection import score, train_detector
from cadiff.errors import exit_code
from cadiff.params import EXEMPLARS, load_params
from cadiff.stages import content_digest, resolve
from cadiff.stages.run import Run
from cadiff.storage import digest, read_json, write_json

STEPS = {  # by network and size; of one thread with AMX, in bfloat16
    "unet": {64: 260, 128: 130, 256: 39},
    "efficientnet-lite0": {64: 355, 128: 150, 256: 44},
}
SHOWN = {"pixel_ap": "pixel AP", "pixel_ap_types": "mean over types", "image_auroc": "image AUROC", "pro": "PRO"}
KEPT = Path(".cadiff/networks")
PACKAGE = Path(__file__).resolve().parents[1] / "cadiff"


def cell(run: Run, sources: list[Path], network: str, size: int, seed: int, times: int) -> dict[str, float]:
    """A detector's figures and the seconds of its training on the images of ``sources``."""
    steps, detector = times * STEPS[network][size], run.params.detector
    own = {"network": network, "size": size, "epochs": 1, "samples_per_epoch": steps * detector.batch, "protocol": "strict"}
    params = run.params.model_copy(update={"detector": detector.model_copy(update=own)})
    task = dataclasses.replace(run.task, params=params)
    made_from = digest([params.model_dump(mode="json"), *map(content_digest, (PACKAGE, *sources))])
    file = KEPT / f"{task.product}-{task.method}-{network}-{size}-{seed}-{made_from}.json"
    if not file.is_file():
        with tempfile.TemporaryDirectory(prefix="cadiff-") as name:
            folder, started = Path(name), time.monotonic()
            train_detector(task, sources, seed, folder, folder / "work")
            found = {"steps": float(steps), "seconds": time.monotonic() - started}
            write_json(file, found | {row.metric: row.value for row in score(task, seed, folder) if row.metric in SHOWN})
    return dict(read_json(file))


def shown(frame: pd.DataFrame) -> str:
    """A Markdown table: mean over seeds, +- standard deviation; figures in per cent."""
    lines = ["| network | px | steps | seconds | " + " | ".join(SHOWN.values()) + " |", "| --- " * (4 + len(SHOWN)) + "|"]
    for (network, size), rows in frame.groupby(["network", "size"], sort=False):
        figures = [f"{100 * rows[name].mean():.1f} +- {100 * rows[name].std():.1f}" for name in SHOWN]
        lines.append(f"| {network} | {size} | {rows['steps'].iloc[0]:.0f} | {rows['seconds'].mean():.0f} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("product")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(STEPS["unet"]), default=list(STEPS["unet"]))
    parser.add_argument("--times", type=int, default=1, help="as many steps")
    parser.add_argument("--method", default=EXEMPLARS, help="whose images they are trained on")
    parser.add_argument("--beside", help="a method whose images they are trained on too, as `both` is on cadiff's and exemplars'")
    options = parser.parse_args()

    def work() -> None:
        params = load_params()
        run = resolve("detect", params, options.product, options.method)
        sources = run.sources
        if options.beside:
            sources = [*sources, *resolve("detect", params, options.product, options.beside).sources]
        rows = []
        for seed, network, size in itertools.product(options.seeds, options.networks, options.sizes):
            found = cell(run, sources, network, size, seed, options.times)
            rows.append({"network": network, "size": size, **found})
            print(f"seed {seed} {network} {size} px: pixel AP {100 * found['pixel_ap']:.1f}, {found['seconds']:.0f} s", flush=True)
        print(shown(pd.DataFrame(rows)))

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
