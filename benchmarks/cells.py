"""The steps of the pipeline for one product, one seed and one variant of the parameters, each made once and kept.

A step lies in ``<work>/<step>/<product>-<digest>``; the digest covers the parameters, the code and the steps that it
depends on, as a stage's does. So variants that differ in their intensities alone share one training, a stopped run goes
on where it was, and what is there is not made again. What a script measures on a cell is kept in the same way.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from cadiff.data import read_samples
from cadiff.data.demo import draw_product
from cadiff.detection import score, train_detector
from cadiff.generator import Generator, adapt_base, generate_shards, load_generator, train_generator
from cadiff.masks import make_scenes
from cadiff.masks.folder import FOLDER, SOURCE
from cadiff.metrics.generated import score_generated
from cadiff.params import READS, Params, pick
from cadiff.records import METRIC_SCHEMA, SCENE_SCHEMA, MetricRow, SampleRow, SceneRow, from_table, to_table
from cadiff.scene import Scene
from cadiff.stages import CODE, content_digest
from cadiff.storage import digest, read_json, read_table, write_json, write_table
from cadiff.task import Task

PACKAGE = Path(__file__).resolve().parents[1] / "cadiff"
DONE = "done.json"
METHOD = "cadiff"


def draw_if_demo(params: Params, products: list[str]) -> None:
    """The demo's images, drawn with the parameters' own seed whatever seeds are measured; other data is there."""
    for product in products:
        root = Path(params.dataset.root) / product
        if params.dataset.layout == "demo" and not root.is_dir():
            unfinished = root.with_name(root.name + ".work")
            shutil.rmtree(unfinished, ignore_errors=True)
            draw_product(params.draw, product, params.seed, unfinished)
            unfinished.rename(root)  # a stopped drawing must not pass for the whole data set


@dataclass(frozen=True)
class Cell:
    """``params`` are one product's, with the variant applied and the measured seed as their seed."""

    params: Params
    product: str
    work: Path

    @cached_property
    def samples(self) -> list[SampleRow]:
        return read_samples(self.params.dataset, self.product)

    @cached_property
    def task(self) -> Task:
        return Task(self.params, self.product, METHOD, self.samples)

    @cached_property
    def adapted(self) -> Path:
        return self._made("adapt", None, lambda out, work: adapt_base(self.task, out, work))

    @cached_property
    def trained(self) -> Path:
        def make(out: Path, work: Path) -> None:
            train_generator(self.task, self.adapted, out, work)

        return self._made("train", [self.adapted.name], make)

    @cached_property
    def generator(self) -> Generator:
        return load_generator(self.task, self.adapted, self.trained)

    @cached_property
    def planned(self) -> Path:
        def make(out: Path, work: Path) -> None:
            rows = [scene.row() for scene in make_scenes(self.task)]
            write_table(out / "scenes.parquet", to_table(rows, SCENE_SCHEMA))

        drawn = content_digest(FOLDER) if self.params.masks.source == SOURCE else None  # no parameter says what is in it
        return self._made("scenes", drawn, make)

    @cached_property
    def scenes(self) -> list[Scene]:
        by_id = {row.sample_id: row for row in self.samples if row.role in ("normal", "exemplar")}
        return [Scene.of(row, by_id) for row in from_table(read_table(self.planned / "scenes.parquet", SCENE_SCHEMA), SceneRow)]

    @cached_property
    def generated(self) -> Path:
        def make(out: Path, work: Path) -> None:
            generate_shards(self.task, self.adapted, self.trained, self.scenes, out, work)

        return self._made("generate", [self.trained.name, self.planned.name], make)

    @cached_property
    def metrics(self) -> list[MetricRow]:
        """Realism and diversity of the images; the detector's figures, its seed being the cell's."""

        def make(out: Path, work: Path) -> None:
            rows = score_generated(self.task, self.generated)
            # Not detect_seeds, which trains a classifier too: Tables 4 and 5 print no figure of one.
            for seed in self.params.detector.seeds:
                train_detector(self.task, [self.generated], seed, out, work)
                rows += score(self.task, seed, out)
            write_table(out / "metrics.parquet", to_table(rows, METRIC_SCHEMA))

        folder = self._made("detect", [self.generated.name], make)
        return from_table(read_table(folder / "metrics.parquet", METRIC_SCHEMA), MetricRow)

    def figures(self, what: object, code: Sequence[Path], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What ``measure`` finds, in its order. Where it was found before, it is read from ``<work>/figures``: with the same parameters,
        pictures and package, the same ``what`` and the same files of ``code``, those outside of the package that the measure lies in."""
        read = [content_digest(path) for path in (PACKAGE, *code)]
        key = {"params": self.params.model_dump(mode="json"), "what": what, "code": read, "inputs": [self.planned.name, self._pictures()]}
        file = self.work / "figures" / f"{self.product}-{digest(key)}.json"
        if not file.is_file():
            write_json(file, list(measure().items()))  # pairs: a mapping's keys would be sorted
        return dict(read_json(file))

    def _pictures(self) -> list[tuple[str, str | None]]:
        return [(row.image_sha256, row.mask_sha256) for row in self.samples]

    def _made(self, stage: str, inputs: object, make: Callable[[Path, Path], None]) -> Path:
        base = Path(self.params.base.path)
        files = [base] if base.is_dir() else []
        key = {
            "params": {name: pick(self.params, name) for name in READS[stage]},
            "code": [content_digest(PACKAGE / part) for part in CODE[stage]],
            "inputs": [inputs, self._pictures(), [content_digest(path) for path in files]],
        }
        out = self.work / stage / f"{self.product}-{digest(key)}"
        if not (out / DONE).is_file():
            started, unfinished = time.monotonic(), out.with_name(out.name + ".work")
            with torch.enable_grad():  # who asks first may be measuring without gradients; what is asked for may be a training
                make(out, unfinished)
            write_json(out / DONE, {"seconds": round(time.monotonic() - started, 1), **key["params"]})
            shutil.rmtree(unfinished, ignore_errors=True)
        return out


def cell_for(params: Params, product: str, seed: int, work: Path, variant: str | None = None) -> Cell:
    """The cell of a product, a seed and a variant (None: the parameters as they are)."""
    chosen = params.for_variant(variant) if variant else params
    own = chosen.for_product(product)
    detector = own.detector.model_copy(update={"seeds": [seed]})
    return Cell(own.model_copy(update={"seed": seed, "detector": detector}), product, work)
