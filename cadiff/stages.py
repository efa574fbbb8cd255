"""The imperative shell: parameters and paths in, artefacts out. ``python -m cadiff.stages STAGE`` runs one.

Each stage reads what dvc.yaml names as its dependencies, calls one function of a lower layer, and writes what
dvc.yaml names as its outputs. What varies between equal runs (time, memory) goes to ``.cadiff/times``, and
what lets a stopped run go on goes to ``.cadiff/work``; neither is an artefact.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from cadiff.errors import UsageError, exit_code
from cadiff.params import (
    EXTERNAL_IMAGES,
    EXTERNAL_MAPS,
    READS,
    SETTINGS,
    Params,
    kinds_of,
    load_params,
    parts_of,
    pick,
    write_settings,
)
from cadiff.progress import be_quiet, speaking
from cadiff.records import (
    METRIC_SCHEMA,
    QUALITY_SCHEMA,
    SAMPLE_SCHEMA,
    SCENE_SCHEMA,
    SCORED_SCHEMA,
    MetricRow,
    SampleRow,
    SceneRow,
    from_table,
    to_table,
)
from cadiff.storage import (
    digest,
    missing,
    read_json,
    read_metadata,
    read_table,
    sha256_file,
    table_writer,
    write_json,
    write_table,
)
from cadiff.task import Task
from cadiff.unchanged import Stamps, all_below, check_unchanged, files_of, stamps
from cadiff.visible import check_links

MADE = Path("data/made")
DEMO = MADE / "demo"  # dvc.yaml names it: nothing is ever drawn over a data set
REPORTS = Path("reports")
TIMES = Path(".cadiff/times")
WORK = Path(".cadiff/work")
PUBLISHED = "published.parquet"  # beside a method's metrics: those of the published evaluation, where it was asked for


@dataclass(frozen=True)
class Run:
    """One stage of one product (and method), with its parameters and the paths of what it reads and writes.

    ``params`` are those of the product where there is one; all paths are relative to the repository root.
    """

    stage: str
    params: Params
    product: str = ""
    method: str = ""
    parts: dict[str, float] = field(default_factory=dict)  # seconds of what is worth telling apart, for record_times
    seen: Stamps = field(default_factory=dict)  # pictures as they were when the stage began
    used: set[Path] = field(default_factory=set)  # folders of ``work``

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.product, self.method) if part)

    @property
    def raw(self) -> Path:
        return Path(self.params.dataset.root) / self.product

    @property
    def samples_path(self) -> Path:
        return MADE / "samples" / f"{self.product}.parquet"

    @property
    def scenes_path(self) -> Path:
        return MADE / "scenes" / self.method / f"{self.product}.parquet"

    @property
    def adapted(self) -> Path:
        return MADE / "adapted" / self.product

    @property
    def generator(self) -> Path:
        return MADE / "generator" / self.method / self.product

    @property
    def validation(self) -> Path:
        return MADE / "reported" / "validation" / self.method / self.product

    @property
    def showcase(self) -> Path:
        return MADE / "reported" / "showcase" / self.method / self.product

    @property
    def quality_path(self) -> Path:
        return MADE / "reported" / "quality" / self.method / f"{self.product}.parquet"

    @property
    def detector(self) -> Path:
        return MADE / "detectors" / self.method / self.product

    @property
    def evaluated(self) -> Path:
        return MADE / "evaluated" / self.method / self.product

    @property
    def shipped(self) -> Path:
        return MADE / "shipped" / self.method / self.product

    @property
    def shipped_path(self) -> Path:
        return MADE / "reported" / "shipped" / self.method / f"{self.product}.json"

    @property
    def generated(self) -> Path:
        return MADE / "generated" / self.method / self.product

    @property
    def sources(self) -> list[Path]:
        """The shard folders that this method's detector is trained on.

        Raises:
            CADiffError: if one of them is absent or empty.
        """
        folders = [MADE / "generated" / method / self.product for method in parts_of(self.method)]
        for folder in folders:
            if not any(folder.glob("*.parquet")):
                raise missing(folder / "*.parquet")
        return folders

    @cached_property
    def samples(self) -> list[SampleRow]:
        rows = from_table(read_table(self.samples_path, SAMPLE_SCHEMA), SampleRow)
        self.seen.update(stamps(files_of(rows)))
        return rows

    @cached_property
    def task(self) -> Task:
        """What the run is asked for, with the product's rows."""
        return Task(self.params, self.product, self.method, self.samples)

    @cached_property
    def scenes(self) -> list[SceneRow]:
        return from_table(read_table(self.scenes_path, SCENE_SCHEMA), SceneRow)

    def work(self, *inputs: Path) -> Path:
        """The folder of this run's resumable state; its name changes with all that the result depends on."""
        spec = STAGES[self.stage]
        params = {name: pick(self.params, name) for name in READS[self.stage]}
        if "detector" in params:  # what is set after training would have it trained anew
            later = ("false_alarms", "threshold", "published")
            params["detector"] = {name: value for name, value in params["detector"].items() if name not in later}
        key = {
            "params": params,
            "code": [content_digest(Path(__file__).parent / part) for part in spec.code],
            "inputs": [content_digest(path) for path in (self.samples_path, *inputs)],
        }
        folder = WORK / self.stage / f"{self.name}-{digest(key)}"
        folder.mkdir(parents=True, exist_ok=True)
        self.used.add(folder)
        return folder


@dataclass(frozen=True)
class Stage:
    """What a stage does, and the parts of this package that its result depends on.

    dvc.yaml lists the same parts (a test compares them). What it reads of the parameters is in ``cadiff.params.READS``.
    """

    work: Callable[[Run], None]
    code: tuple[str, ...]


def content_digest(path: Path) -> str:
    """A digest of a file, or of a folder's files and their names (Python's byte code left out)."""
    if not path.exists():
        raise missing(path)
    if not path.is_dir():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return digest([(file.relative_to(path).as_posix(), sha256_file(file)) for file in files])


def settings(run: Run) -> None:
    shutil.rmtree(SETTINGS, ignore_errors=True)  # as DVC does with an out
    write_settings(run.params)


def draw(run: Run) -> None:
    from cadiff.data.demo import draw_product

    if run.raw.parent != DEMO:
        raise UsageError(f"dataset.root: the demo is drawn into {DEMO}, found {run.params.dataset.root}; set it, or draw.products: []")
    draw_product(run.params.draw, run.product, run.params.seed, run.raw)


def samples(run: Run) -> None:
    from cadiff.ahead import check_ahead
    from cadiff.data import read_samples

    run.seen.update(stamps([run.raw / run.params.dataset.table, *all_below(run.raw)]))
    rows = read_samples(run.params.dataset, run.product)
    check_ahead(Task(run.params, run.product, samples=rows))
    write_table(run.samples_path, to_table(rows, SAMPLE_SCHEMA))


def adapt(run: Run) -> None:
    from cadiff.generator import adapt_base

    if not pick(run.params, "methods.generators"):  # nothing draws on it, and the base's weights may not be there
        write_json(run.adapted / "adaptation.json", {"skipped": "no generator is among the methods"})
        return
    base = Path(run.params.base.path)
    work = run.work(*([base] if base.is_dir() else []))  # a base replaced in place is another base
    adapt_base(run.task, run.adapted, work)


def scenes(run: Run) -> None:
    from cadiff.masks import make_scenes

    rows = [scene.row() for scene in make_scenes(run.task)]
    write_table(run.scenes_path, to_table(rows, SCENE_SCHEMA))


def train(run: Run) -> None:
    from cadiff.generator import gather_validation, train_generator

    work = run.work(run.adapted)
    train_generator(run.task, run.adapted, run.generator, work)
    gather_validation(work, run.validation)


def generate(run: Run) -> None:
    from cadiff.generator import generate_shards
    from cadiff.scene import Scene

    work = run.work(run.adapted, run.generator, run.scenes_path)
    by_id = {row.sample_id: row for row in run.samples if row.role in ("normal", "exemplar")}
    found = [Scene.of(row, by_id) for row in run.scenes]
    generate_shards(run.task, run.adapted, run.generator, found, run.generated, work)


def showcase(run: Run) -> None:
    from cadiff.showcase import make_showcase

    make_showcase(run.task, run.adapted, run.generator, run.showcase)


def quality(run: Run) -> None:
    from cadiff.metrics.quality import assess

    rows = assess(run.task, run.generated)
    write_table(run.quality_path, to_table(rows, QUALITY_SCHEMA))


def synthesize(run: Run) -> None:
    from cadiff.synthesis import synthesize as synthesize_shards

    synthesize_shards(run.task, run.generated)


def import_images(run: Run) -> None:
    from cadiff.synthesis import import_folder

    root = Path(EXTERNAL_IMAGES) / run.method
    check_links(root / run.product)
    import_folder(root, run.product, run.samples, run.params.dataset.size, run.generated)


def detect(run: Run) -> None:
    """Trains and scores one detector and one classifier per seed, on the images that the filter keeps."""
    from cadiff.detection import detect_published, detect_seeds, filter_shards, rows_to_score
    from cadiff.metrics.generated import score_generated
    from cadiff.metrics.networks import find_networks

    find_networks(run.params)  # a file that is missing is named before hours of training
    rows_to_score(run.samples, run.product)  # and so is an image
    sources = {source.parent.name: source for source in run.sources}
    work = run.work(*sources.values())
    kept, metrics = filter_shards(run.task, sources, work / "kept")
    started = time.monotonic()
    if run.method in kept:  # a union's images are its parts', scored there
        metrics += score_generated(run.task, kept[run.method])
    run.parts["realism"] = round(time.monotonic() - started, 2)
    with table_writer(run.evaluated / "scored.parquet", SCORED_SCHEMA) as keep:
        metrics += detect_seeds(run.task, list(kept.values()), run.detector, work, keep)
    write_table(run.evaluated / "metrics.parquet", to_table(metrics, METRIC_SCHEMA))
    if run.params.detector.published:
        own = (run.detector / "published", work / "published")
        metrics = detect_published(run.task, sources, *own)
        write_table(run.evaluated / PUBLISHED, to_table(metrics, METRIC_SCHEMA))


def peer(run: Run) -> None:
    """Fits and scores one peer per seed."""
    from cadiff.detection import fit_peer, rows_to_score, score_peer

    rows_to_score(run.samples, run.product)  # an image that is missing is named before hours of training
    metrics: list[MetricRow] = []
    as_published: list[MetricRow] = []
    work = run.work()
    with table_writer(run.evaluated / "scored.parquet", SCORED_SCHEMA) as keep:
        for seed in run.params.detector.seeds:
            fit_peer(run.task, seed, run.detector, work)
            metrics += score_peer(run.task, seed, run.detector, keep)
            if run.params.detector.published:
                as_published += score_peer(run.task, seed, run.detector, as_published=True)
    write_table(run.evaluated / "metrics.parquet", to_table(metrics, METRIC_SCHEMA))
    if run.params.detector.published:
        write_table(run.evaluated / PUBLISHED, to_table(as_published, METRIC_SCHEMA))


def maps(run: Run) -> None:
    from cadiff.detection import score_maps

    folder = Path(EXTERNAL_MAPS) / run.method
    check_links(folder / run.product)
    with table_writer(run.evaluated / "scored.parquet", SCORED_SCHEMA) as keep:
        metrics = score_maps(run.task, folder, keep)
    write_table(run.evaluated / "metrics.parquet", to_table(metrics, METRIC_SCHEMA))


def ship(run: Run) -> None:
    """Makes the first seed's detector ready to be taken away. Its ``detector.json``, which has the digests of the rest, also goes where
    the report finds what it depends on: there may be no other shipped detector, and DVC wants every dependency to be there."""
    from cadiff.shipping import ship_detector

    shutil.rmtree(run.shipped, ignore_errors=True)  # as DVC does with an out; a folder of someone's own is never written over
    said = ship_detector(run.product, run.samples, run.params.detector.seeds[0], run.detector, run.evaluated, run.shipped)
    write_json(run.shipped_path, said)


def report(run: Run) -> None:
    from cadiff.reporting import write_report

    conclusion = write_report(run.params, Path(), REPORTS, partial=False)
    print(f"report: {REPORTS / 'index.html'}: {conclusion}")


STAGES = {
    "settings": Stage(settings, ("params",)),
    "draw": Stage(draw, ("data/demo.py", "data/drawing")),
    "samples": Stage(samples, ("data", "pictures.py", "decoding.py", "marking.py", "opening.py", "visible.py", "names.py")),
    "adapt": Stage(
        adapt,
        ("generator/adapt.py", "generator/steps.py", "generator/windows.py", "prompt", "backbone", "data", "scene.py", "pictures.py",
         "task.py"),
    ),
    "scenes": Stage(scenes, ("masks", "scene.py", "pictures.py", "task.py")),
    "train": Stage(
        train, ("generator", "intensity.py", "prompt", "control", "masks", "backbone", "data", "scene.py", "pictures.py", "task.py")
    ),
    "generate": Stage(
        generate, ("generator", "masks", "prompt", "control", "intensity.py", "backbone", "data", "scene.py", "pictures.py", "task.py")
    ),
    "showcase": Stage(
        showcase,
        ("showcase.py", "generator", "masks", "prompt", "control", "intensity.py", "backbone", "data", "scene.py", "pictures.py",
         "task.py"),
    ),
    "synthesize": Stage(synthesize, ("synthesis", "data", "masks", "pictures.py", "task.py")),
    "import": Stage(import_images, ("synthesis", "data", "masks", "pictures.py", "task.py")),
    "detect": Stage(detect, ("detection", "metrics", "data", "pictures.py", "task.py")),
    "peer": Stage(peer, ("detection", "metrics", "data", "pictures.py", "task.py")),
    "maps": Stage(maps, ("detection", "metrics", "data", "pictures.py", "task.py")),
    "quality": Stage(quality, ("metrics", "pictures.py", "task.py")),
    "ship": Stage(
        ship, ("shipping", "detection", "synthesis", "metrics", "data", "masks", "pictures.py", "task.py", "threshold_words.py")
    ),
    "report": Stage(report, ("reporting", "params/methods.py", "pictures.py", "threshold_words.py")),
}


def run_stage(stage: str, params: Params, product: str = "", method: str = "") -> None:
    """Runs one stage here and now, whether or not its result is up to date.

    Raises:
        UsageError: if the stage is unknown, or the product or method that it needs is missing or superfluous.
        CADiffError: if an input is absent or broken, or the work fails.
    """
    run = resolve(stage, params, product, method)
    started = time.monotonic()
    try:
        with speaking(" ".join(part for part in (stage, product, method) if part)):
            STAGES[stage].work(run)
            check_unchanged(run.seen, stage, run.used)
    except (KeyboardInterrupt, SystemExit):
        print(kept(run), file=sys.stderr, flush=True)
        raise
    record_times(run, time.monotonic() - started)
    prune_work(run)


def resolve(stage: str, params: Params, product: str = "", method: str = "") -> Run:
    """The run that a call names, checked."""
    if stage not in STAGES:
        raise UsageError(f"{stage}: no such stage; one of {', '.join(STAGES)}")
    if stage in ("settings", "report"):
        if product or method:
            raise UsageError(f"{stage}: takes neither --product nor --method; it covers all of the parameters")
        return Run(stage, params)
    if not product:
        raise UsageError(f"{stage}: needs --product; products are {', '.join(params.products)}")
    if stage == "draw":
        return Run(stage, params, product)
    params_of_product = params.for_product(product)
    if kinds := kinds_of(stage):
        known = params.taking(stage)
        if method not in known:
            expected = f"one of {', '.join(known)}" if known else f"but the parameters have no {' or '.join(kinds)}"
            raise UsageError(f"{stage}: needs --method, {expected}; found {method!r}")
        return Run(stage, params_of_product, product, method)
    if method:
        raise UsageError(f"{stage}: is of the product, whatever the method; expected no --method, found {method}")
    return Run(stage, params_of_product, product)


def record_times(run: Run, seconds: float) -> None:
    """Wall time and peak memory, for people: ``cadiff times``."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "stage": run.stage,
        "product": run.product,
        "method": run.method,
        "seconds": round(seconds, 2),
        "parts": run.parts,
        "peak_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
        "device_peak_mib": device_peak_mib(),
    }
    name = "-".join(part for part in (run.stage, run.product, run.method) if part)
    write_json(TIMES / f"{name}.json", figures)


def device_peak_mib() -> int | None:
    """Peak memory that torch held on the CUDA device; None where it was not used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(torch.cuda.max_memory_allocated() / 2**20)


def read_times() -> list[dict[str, Any]]:
    """What ``record_times`` wrote, stages in the order of the pipeline."""
    order = list(STAGES)
    found = [read_json(path) for path in sorted(TIMES.glob("*.json"))]
    return sorted(found, key=lambda row: order.index(row["stage"]))


def work_folders(run: Run) -> list[Path]:
    """The folders that ``Run.work`` made for this run, one for each fingerprint; the latest last."""
    length = len(run.name) + 1 + 16  # other runs' names may begin with this one's
    folders = [path for path in (WORK / run.stage).glob(f"{run.name}-*") if len(path.name) == length]
    return sorted(folders, key=lambda path: (path in run.used, path.stat().st_mtime))  # a clock may have been set back


def prune_work(run: Run) -> None:
    """Removes the state that earlier parameters, inputs or code of this run left; the newest stays, so that a
    rerun that changes nothing in it costs no training."""
    for folder in work_folders(run)[:-1]:
        shutil.rmtree(folder)


def kept(run: Run) -> str:
    """What a stopped run of this stage left to go on from, in one line."""
    name = " ".join(part for part in (run.stage, run.product, run.method) if part)
    folders = work_folders(run)
    files = sorted(path for path in folders[-1].iterdir() if not path.name.startswith(".")) if folders else []
    parts = [path for path in files if path.suffix == ".parquet"]
    states = {path.stem: read_metadata(path).get("step") for path in files if path.suffix == ".safetensors"}
    found = [stem if step is None else f"{stem} up to step {step}" for stem, step in states.items()]  # without a step: finished
    found += [f"{len(parts)} finished parts"] if parts else []
    if not found:
        return f"{name}: stopped; it begins anew, what other stages finished is kept"
    return f"{name}: stopped; kept in {folders[-1]}: {', '.join(found)}"


def on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cadiff.stages", description="Run one stage.")
    parser.add_argument("stage", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--product", default="")
    parser.add_argument("--method", default="")
    parser.add_argument("--params", default="params.yaml", type=Path)
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    given = parser.parse_args(arguments)
    if given.quiet:
        be_quiet()
    signal.signal(signal.SIGTERM, on_sigterm)  # so that temporary files go, and what is kept is said
    return exit_code(
        lambda: run_stage(given.stage, load_params(given.params), given.product, given.method), given.debug
    )


if __name__ == "__main__":
    sys.exit(main())
