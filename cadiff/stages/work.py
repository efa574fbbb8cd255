"""What each stage does: it reads what dvc.yaml names as its dependencies, calls one function of a lower layer, and writes what dvc.yaml
names as its outputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cadiff.errors import UsageError
from cadiff.params import EXTERNAL_IMAGES, EXTERNAL_MAPS, SETTINGS, pick, write_settings
from cadiff.records import METRIC_SCHEMA, QUALITY_SCHEMA, SAMPLE_SCHEMA, SCENE_SCHEMA, SCORED_SCHEMA, MetricRow, to_table
from cadiff.stages.run import MADE, Run
from cadiff.storage import table_writer, write_json, write_table
from cadiff.task import Task
from cadiff.unchanged import all_below, stamps
from cadiff.visible import check_links

DEMO = MADE / "demo"  # dvc.yaml names it: nothing is ever drawn over a data set
REPORTS = Path("reports")
PUBLISHED = "published.parquet"  # beside a method's metrics: those of the published evaluation, where it was asked for


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
    the report finds what it depends on: there may be no other shipped detector, and DVC wants every dependency to be there. How long a
    picture takes is told beside, where no output lies."""
    from cadiff.shipping import pace_of, ship_detector

    shutil.rmtree(run.shipped, ignore_errors=True)  # as DVC does with an out; a folder of someone's own is never written over
    said = ship_detector(run.product, run.samples, run.params.detector.seeds[0], run.detector, run.evaluated, run.shipped)
    write_json(run.shipped_path, said)
    if pace := pace_of(run.shipped, run.product, run.samples):
        write_json(run.pace_path, pace)


def report(run: Run) -> None:
    from cadiff.reporting import write_report

    conclusion = write_report(run.params, Path(), REPORTS, partial=False)
    print(f"report: {REPORTS / 'index.html'}: {conclusion}")


STAGES: dict[str, Callable[[Run], None]] = {
    "settings": settings,
    "draw": draw,
    "samples": samples,
    "adapt": adapt,
    "scenes": scenes,
    "train": train,
    "generate": generate,
    "showcase": showcase,
    "synthesize": synthesize,
    "import": import_images,
    "detect": detect,
    "peer": peer,
    "maps": maps,
    "quality": quality,
    "ship": ship,
    "report": report,
}
