"""How long a larger run takes: ``python benchmarks/scale.py [--products 15] [--types 73] [--per-type 1000] [--target FILE]``.

Reads what the stages of this checkout took (`.cadiff/times`, as `cadiff times` prints them) and the parameters that
they ran with, makes a rate of each kind of work, and multiplies. A stage's start (imports, loading the base) and a
detector's scoring are counted into the rates, so that small measured runs overestimate. Rates are this machine's and
this base's: measure a product on the machine, base and size in question (`python -m flows.pipeline --products P`) before
believing the table. Drawing a demo's images is left out: a larger run has its images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cadiff.detection.training import total_steps
from cadiff.params import WITHOUT_DEFECTS, Params, kinds_of, load_params
from cadiff.progress import duration
from cadiff.records import SAMPLE_SCHEMA, SCENE_SCHEMA
from cadiff.showcase import TYPES
from cadiff.stages import MADE, read_times
from cadiff.storage import missing, read_table

REALISM = "realism"  # of a method's own images; measured within its stage `detect`
TRAINED_PEER = "peer (trained)"  # of the stage peer, the detectors that are trained


@dataclass(frozen=True)
class Size:
    """A run's products, and the mean anomaly types, generated images and exemplars of one of them."""

    products: int
    types: float
    images: float
    exemplars: float


@dataclass(frozen=True)
class Work:
    """A kind of work, whose seconds are taken to be proportional to ``units``, each ``a unit``.

    ``units`` are those of one stage (a product and method); ``pieces`` is into how many parts a cluster cuts such a
    stage, None where it stays on the machine that runs the pipeline.
    """

    stage: str
    unit: str
    units: Callable[[Params, Size, str], float]
    pieces: Callable[[Params, Size], float] | None = None


def passes(params: Params) -> int:
    """How often the U-Net sees an image while it is drawn."""
    taken = max(1, round(params.generate.taken * params.generate.steps))
    return taken * (2 if params.generate.guidance_scale > 1 else 1)


def detector_images(params: Params, size: Size, method: str) -> float:
    """Images that the detectors and classifiers of all seeds are trained on, each as often as it is seen."""
    generated = size.images * (2 if params.kind_of(method) == "union" else 1)
    classifier = params.classifier.epochs * generated if size.types >= 2 else 0
    return len(params.detector.seeds) * (total_steps(params.detector.settled(round(size.exemplars))) * params.detector.batch + classifier)


def peer_images(params: Params, size: Size, method: str) -> float:
    return len(params.detector.seeds) * params.peers.steps * params.peers.batch


WORK = (
    Work("samples", "product", lambda params, size, method: 1),
    Work("scenes", "scene", lambda params, size, method: size.images),
    Work("adapt", "trained image", lambda params, size, method: (params.adapt.steps + params.adapt.vae_steps) * params.adapt.batch or 1),
    Work("train", "trained image", lambda params, size, method: params.train.steps_for(round(size.exemplars)) * params.train.batch),
    Work("generate", "denoised image", lambda params, size, method: size.images * passes(params),
         lambda params, size: -(-size.images // params.generate.batch)),
    Work("synthesize", "image", lambda params, size, method: size.images),
    Work("import", "image", lambda params, size, method: size.images),
    Work("quality", "image", lambda params, size, method: size.images),
    Work(REALISM, "image", lambda params, size, method: size.images),
    Work("showcase", "denoised type", lambda params, size, method: min(size.types, TYPES) * passes(params)),
    Work("detect", "trained image", detector_images, lambda params, size: len(params.detector.seeds)),
    Work("peer", "seed", lambda params, size, method: len(params.detector.seeds)),
    Work(TRAINED_PEER, "trained image", peer_images),
    Work("maps", "product", lambda params, size, method: 1),
    Work("report", "product and method", lambda params, size, method: size.products * len(params.methods)),
)  # fmt: skip


def methods_of(stage: str, params: Params) -> list[str]:
    """The methods that a stage runs for; "" for one that has none."""
    if stage in ("peer", TRAINED_PEER):
        return [name for name in params.taking("peer") if (name == WITHOUT_DEFECTS) == (stage == "peer")]
    of = "quality" if stage == REALISM else stage
    return params.taking(of) if kinds_of(of) else [""]


def recorded(params: Params) -> list[dict]:
    """``read_times`` of these parameters' products and methods, with realism told apart from the rest of ``detect``."""
    rows = []
    for row in read_times():
        if row["product"] not in ("", *params.products) or row["method"] not in ("", *params.methods):
            continue  # times of earlier parameters stay
        if row["stage"] == "peer" and row["method"] != WITHOUT_DEFECTS:  # which only looks at each image
            row = {**row, "stage": TRAINED_PEER}
        if row["stage"] == "detect":
            if "parts" not in row:
                raise SystemExit(f".cadiff/times: detect {row['product']} {row['method']}: expected its parts, found none; run it again")
            realism = row["parts"][REALISM]
            rows.append({**row, "stage": REALISM, "seconds": realism})
            row = {**row, "seconds": row["seconds"] - realism}
        rows.append(row)
    return rows


def size_of(product: str, params: Params) -> Size:
    """Of a product that was run here; of the report (no product) only the number of products counts."""
    if not product:
        return Size(len(params.products), 0, 0, 0)
    tables = sorted((MADE / "scenes").glob(f"*/{product}.parquet"))  # of the method perturbed, the last by name, all are of one type
    if not tables:
        raise missing(MADE / "scenes" / "cadiff" / f"{product}.parquet")
    rows = read_table(tables[0], SCENE_SCHEMA, ["named", "anomaly_types"]).to_pylist()
    kinds = [row["anomaly_types"][0] for row in rows if row["named"]]
    roles = read_table(MADE / "samples" / f"{product}.parquet", SAMPLE_SCHEMA, ["role"])["role"].to_pylist()
    return Size(len(params.products), len(set(kinds)), len(kinds), roles.count("exemplar"))


def rates(params: Params) -> dict[str, float]:
    """Seconds a unit of each kind of work that was run here with these parameters."""
    rows, found = recorded(params), {}
    for work in WORK:
        own = [row for row in rows if row["stage"] == work.stage and row["method"] in methods_of(work.stage, params)]
        units = 0.0
        for row in own:
            settings = params.for_product(row["product"]) if row["product"] else params
            units += work.units(settings, size_of(row["product"], params), row["method"])
        if own:
            found[work.stage] = sum(row["seconds"] for row in own) / units
    return found


def predict(work: Work, rate: float, target: Params, size: Size, devices: int, cluster: bool) -> float:
    """Seconds of one kind of work: total / pieces x ceil(pieces / devices).

    A piece is a stage; where a cluster computes, what it does not cut stays on the pipeline's one device.
    """
    methods = methods_of(work.stage, target)
    stages = 1 if work.stage == "report" else size.products * len(methods)
    total = rate * sum(work.units(target, size, method) for method in methods) * stages / max(len(methods), 1)
    if cluster:
        stages, devices = (stages, 1) if work.pieces is None else (stages * int(work.pieces(target, size)), devices)
    return total / stages * -(-stages // devices) if stages else 0.0


def check_comparable(measured: dict[str, float], params: Params, target: Params) -> None:
    """Raises SystemExit where the larger run has work of which this checkout has no time."""
    needed = [work.stage for work in WORK if methods_of(work.stage, target)]
    if absent := [name for name in needed if name not in measured]:
        raise SystemExit(f".cadiff/times: expected times of {', '.join(needed)}; found none of {', '.join(absent)}. Run them here first")
    if bool(target.adapt.steps + target.adapt.vae_steps) != bool(params.adapt.steps + params.adapt.vae_steps):
        raise SystemExit("adapt.steps: expected them to be 0 in both or in neither of --params and --target; measure what you mean to run")


PLACES = (("one", 1, False), ("eight, a stage each", 8, False), ("a cluster of 32 workers", 32, True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=15)
    parser.add_argument("--types", type=int, default=73)
    parser.add_argument("--per-type", type=int, default=1000)
    parser.add_argument("--exemplars", type=int, default=390, help="of all types, which train.epochs counts; default: MVTec AD's")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="what the measured stages ran with")
    parser.add_argument("--target", type=Path, help="parameters of the larger run (methods, steps, epochs, seeds); default: the same")
    given = parser.parse_args()
    params = load_params(given.params)
    target = load_params(given.target) if given.target else params
    measured = rates(params)
    check_comparable(measured, params, target)
    size = Size(
        given.products, given.types / given.products, given.types * given.per_type / given.products, given.exemplars / given.products
    )
    print(f"{given.products} products, {given.types} types x {given.per_type} images, methods {', '.join(target.methods)}, "
          f"{len(target.detector.seeds)} seeds.")  # fmt: skip
    print(f"Rates measured on {params.base.path}, windows of {params.base.size} px, canvas {params.dataset.size}; the rest is computed.\n")
    print("| work | rate | " + " | ".join(name for name, _, _ in PLACES) + " |\n" + "| --- " * (2 + len(PLACES)) + "|")
    total = dict.fromkeys(PLACES, 0.0)
    for work in WORK:
        if not methods_of(work.stage, target):
            continue
        found = {place: predict(work, measured[work.stage], target, size, place[1], place[2]) for place in PLACES}
        total = {place: total[place] + found[place] for place in PLACES}
        cells = " | ".join(duration(seconds) for seconds in found.values())
        print(f"| {work.stage} | {measured[work.stage]:.3g} s a {work.unit} | {cells} |")
    print("| total | | " + " | ".join(duration(seconds) for seconds in total.values()) + " |")


if __name__ == "__main__":
    main()
