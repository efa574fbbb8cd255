"""Which threshold transfers better to held-out pictures: that of good pictures alone, or one moved towards generated anomalies?

    python benchmarks/thresholds.py PRODUCT [METHOD ...]

Run it in a folder with params.yaml after `detect`. For each trained detector both rules (``detector.threshold``) are set from its
calibration normals and its training shards, and tried on the held-out pictures: false alarms among the good ones, misses among the others,
of all and of each type.
"""

from __future__ import annotations

import sys

import numpy as np

from cadiff.detection import rows_to_score
from cadiff.detection.calibration import Rule, calibrate
from cadiff.detection.measuring import at_threshold, batches
from cadiff.detection.scoring import load_segmenter
from cadiff.params import load_params
from cadiff.stages import resolve

RULES: tuple[Rule, ...] = ("good", "generated")


def main(product: str, methods: list[str]) -> None:
    params = load_params()
    print(f"{'method':<12}{'seed':>5} {'rule':<10}{'threshold':>10}{'promised':>10}{'false alarms':>14}{'misses':>9}  by type")
    for method in methods or params.taking("detect"):
        run = resolve("detect", params, product, method)
        rows = rows_to_score(run.samples, product)
        for seed in run.params.detector.seeds:
            segmenter, _ = load_segmenter(run.task, seed, run.detector)
            scores = np.concatenate([segmenter.score(batch).images for batch in batches(rows)])
            for rule in RULES:
                found = calibrate(run.task, segmenter, run.sources, rule)
                if found is None:
                    raise SystemExit("dataset.calibration: expected a share above 0, found 0: nothing sets a threshold")
                shares = {name: value for name, (value, _) in at_threshold(rows, scores, found.image).items()}
                by_type = (f"{name.partition('/')[2]} {value:.1%}" for name, value in shares.items() if "/" in name)
                print(
                    f"{method:<12}{seed:>5} {rule:<10}{found.image.value:>10.4f}{found.image.promised:>10.1%}"
                    f"{shares['false_alarm_rate']:>14.1%}{shares['miss_rate']:>9.1%}  {', '.join(by_type)}",
                    flush=True,
                )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2:])
