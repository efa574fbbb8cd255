"""How long a larger run takes: ``python benchmarks/scale.py [--products 15] [--types 73] [--per-type 1000]``.

Reads what the stages of this checkout took (`.cadiff/times`, as `cadiff times` prints them) and the parameters that
they ran with, makes rates of them, and multiplies. Each stage's start (imports, loading the base) is counted into its
rate, so that small measured runs overestimate. Rates are this machine's and this base's: measure a product on the
machine, base and size in question (`python -m flows.pipeline --products P`) before believing the table.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

from cadiff.detection.training import total_steps
from cadiff.params import Params, load_params
from cadiff.progress import duration
from cadiff.records import MASK_SCHEMA
from cadiff.stages import MADE, read_times
from cadiff.storage import read_table


@dataclass(frozen=True)
class Rates:
    """Seconds, on one device: of a product's preparation, a training step, an image, a detector step, the report."""

    product: float
    step: float
    image: float
    detector_step: float
    methods: int
    report: float


def images_of(product: str) -> int:
    return read_table(MADE / "masks" / f"{product}.parquet", MASK_SCHEMA).num_rows


def measured(params: Params) -> Rates:
    """Means over the products that were run.

    Raises:
        SystemExit: if a stage has not been run here.
    """
    rows = read_times()

    def mean(stage: str, per: object) -> float:
        found = [row["seconds"] / per(row) for row in rows if row["stage"] == stage]  # type: ignore[operator]
        if not found:
            raise SystemExit(f".cadiff/times: expected the time of stage {stage}, found none; run the pipeline here first")
        return statistics.mean(found)

    def detector_steps(row: dict) -> int:
        settings = params.for_product(row["product"]).detector
        return len(settings.seeds) * total_steps(settings)

    small = sum(mean(stage, lambda row: 1) for stage in ("samples", "masks", "adapt", "synthesize"))
    return Rates(
        product=small,
        step=mean("train", lambda row: params.for_product(row["product"]).train.steps),
        image=mean("generate", lambda row: images_of(row["product"])),
        detector_step=mean("detect", detector_steps),
        methods=len(params.methods),
        report=mean("report", lambda row: 1),
    )


def predict(rates: Rates, given: argparse.Namespace, params: Params, devices: int, spread: bool) -> dict[str, float]:
    """Seconds of each kind of work on ``devices``.

    A stage is one product's, so no more devices than products train at a time; with ``spread`` (a cluster) generation and
    detectors are cut finer: into parts, and into seeds.
    """
    products, images = given.products, given.types * given.per_type
    seeds = len(params.detector.seeds)
    parts = -(-images // params.generate.part) if spread else products
    detectors = products * rates.methods * (seeds if spread else 1)

    def waves(pieces: int, total: float) -> float:
        return total / pieces * -(-pieces // devices)

    detector_total = products * rates.methods * seeds * total_steps(params.detector) * rates.detector_step
    return {
        "prepare": waves(products, products * rates.product),
        "train": waves(products, products * params.train.steps * rates.step),
        "generate": waves(parts, images * rates.image),
        "detect": waves(detectors, detector_total),
        "report": rates.report,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=15)
    parser.add_argument("--types", type=int, default=73)
    parser.add_argument("--per-type", type=int, default=1000)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="what the measured stages ran with")
    parser.add_argument("--target", type=Path, help="parameters of the larger run (steps, epochs, seeds); default: the same")
    given = parser.parse_args()
    params = load_params(given.params)
    target = load_params(given.target) if given.target else params
    rates = measured(params)
    print(f"measured on {params.base.path}, {params.base.size} px: {rates.step:.3f} s a training step, {rates.image:.3f} s an image, "
          f"{rates.detector_step:.3f} s a detector step, {rates.product:.1f} s to prepare a product")  # fmt: skip
    print(f"{given.products} products, {given.types} types x {given.per_type} images, {rates.methods} methods, "
          f"{len(target.detector.seeds)} seeds; computed, not measured:")  # fmt: skip
    print(f"{'devices':<26}{'prepare':>14}{'train':>14}{'generate':>14}{'detect':>14}{'total':>14}")
    for name, devices, spread in (("one", 1, False), ("eight, a stage each", 8, False), ("cluster of 32 workers", 32, True)):
        found = predict(rates, given, target, devices, spread)
        if spread:  # preparation and training stay on this machine's device
            here = predict(rates, given, target, 1, False)
            found |= {"prepare": here["prepare"], "train": here["train"]}
        cells = [*(found[key] for key in ("prepare", "train", "generate", "detect")), sum(found.values())]
        print(f"{name:<26}" + "".join(f"{duration(seconds):>14}" for seconds in cells))


if __name__ == "__main__":
    main()
