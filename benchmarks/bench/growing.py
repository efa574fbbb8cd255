"""How cost grows: one size a call, each in a process of its own, whose peak memory is told beside."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from cadiff.params import file_form, load_params
from cadiff.records import SampleRow
from cadiff.storage import write_table
from cadiff.task import Task

from .place import METHOD, PRODUCT, ROOT, Setting, generated
from .rows import Row, row, seconds_of

PART = "growth"
sys.path.append(str(ROOT / "benchmarks"))  # for those that measure one thing each


def written(setting: Setting, count: int) -> list[Row]:
    """The end of the stage generate: parts that are drawn already, of ``count`` images, become one shard.

    All parts of one length are one file under many names: the disk need not hold them all.
    """
    from cadiff.generator import generate_shards
    from cadiff.generator.shards import plan_parts
    from cadiff.records import GENERATED_SCHEMA, to_table

    params = setting.params()
    samples, size = setting.samples(params), params.generate.batch
    kind, rows = next(iter(generated(params, samples, 3 * size).items()))
    scenes, nothing = same_scenes(samples, kind, count, setting.scale.canvas), setting.folder / "nothing"
    with tempfile.TemporaryDirectory(dir=setting.folder) as name:
        work = Path(name)
        for part in plan_parts(params, PRODUCT, [sample for sample in samples if sample.role == "normal"], scenes):
            if not (alike := work / f"{part.size}-alike").exists():
                write_table(alike, to_table(rows[: part.size], GENERATED_SCHEMA))
            os.link(alike, work / part.name)
        seconds = seconds_of(
            lambda: generate_shards(Task(params, PRODUCT, METHOD, samples), nothing, nothing, scenes, shard_folder(setting, count), work)
        )
    return [row(PART, "shard put together of its parts", [count / seconds], "images/s")]


def shard_folder(setting: Setting, count: int) -> Path:
    return setting.folder / f"written-{count}"


def same_scenes(samples: list[SampleRow], kind: str, count: int, canvas: int) -> list:
    """The same scene under many names."""
    import numpy as np

    from cadiff.scene import Anomaly, Outline, Scene

    mask, normal = np.zeros((canvas, canvas), bool), next(sample for sample in samples if sample.role == "normal")
    mask[canvas // 4 : canvas // 2, canvas // 4 : canvas // 2] = True
    anomaly = Anomaly(kind, Outline.of(mask), 1.0, "drawn")
    return [Scene(f"{PRODUCT}/{kind}/{index:05d}", PRODUCT, (anomaly,), normal, normal, index, 0) for index in range(count)]


def loaded(setting: Setting, count: int) -> list[Row]:
    """What a detector's training does with such a shard before its first step; written where it is not there."""
    from cadiff.detection.batches import load_training_data
    from cadiff.detection.tiles import View

    if not shard_folder(setting, count).is_dir():
        written(setting, count)
    params = setting.params()
    samples = setting.samples(params)
    seconds = seconds_of(lambda: load_training_data(PRODUCT, samples, [shard_folder(setting, count)], View.of(params)))
    return [row(PART, "shard loaded for a detector's training", [count / seconds], "images/s")]


def ranked(setting: Setting, count: int) -> list[Row]:
    """Exact pixel metrics of maps at half of the canvas: that of four times as many pixels follows by arithmetic (sorting, n log n)."""
    import pixels

    side = setting.scale.canvas // 2
    with contextlib.redirect_stdout(sys.stderr):
        seconds = seconds_of(lambda: pixels.main(count, side))
    return [row(PART, f"pixel metrics, maps of {side} px", [count / seconds], "images/s")]


def judged(setting: Setting, count: int) -> list[Row]:
    """Quality signals; of 10,000 images they take what the arithmetic says: each is looked at by itself."""
    from cadiff.metrics.quality import assess
    from cadiff.records import GENERATED_SCHEMA, to_table

    params = setting.params()
    samples, out = setting.samples(params), setting.folder / f"judged-{count}"
    for kind, rows in generated(params, samples, count).items():
        write_table(out / f"{kind}.parquet", to_table(rows, GENERATED_SCHEMA))
    del rows
    seconds = seconds_of(lambda: assess(Task(params, PRODUCT, METHOD, samples), out))
    return [row(PART, "quality signals", [count / seconds], "images/s")]


def beside_exemplars(setting: Setting, count: int) -> list[Row]:
    """Masks placed, and images judged, of types that have so many exemplars each."""
    from cadiff.masks import make_scenes
    from cadiff.metrics.quality import assess

    params = setting.params()
    samples, shards = setting.samples(params, 3 * count), setting.shards(params, setting.samples(params))  # a third are exemplars
    scenes: list[object] = []
    placing = seconds_of(lambda: scenes.extend(make_scenes(Task(params, PRODUCT, METHOD, samples))))
    assessing = seconds_of(lambda: assess(Task(params, PRODUCT, METHOD, samples), shards))
    return [
        row(PART, "scenes made, masks placed", [len(scenes) / placing], "scenes/s"),
        row(PART, f"quality signals of {setting.scale.pictures} images and of the exemplars", [1 / assessing], "times/s"),
    ]


def of_products(setting: Setting, count: int) -> list[Row]:
    """The graph of so many products read; each product's stages are processes of its own, so that their time is a sum and their memory
    no larger for many than for one."""
    import yaml
    from dvc.repo import Repo
    from orchestration import new_project

    root = setting.folder / f"products-{count}"
    new_project(root)
    values = file_form(load_params(ROOT / "presets" / "demo.yaml"))
    values["products"] = {f"part{index:02d}": {} for index in range(count)}
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    (root / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    found: list[object] = []

    def read() -> None:
        with Repo(str(root)) as repo:
            found.extend(repo.index.stages)

    seconds = seconds_of(read)
    return [row(PART, "graph read by DVC", [len(found) / seconds], "stages/s", f"{len(found)} stages, {seconds:.2f} s")]


def on_canvases(setting: Setting, _: object) -> list[Row]:
    """benchmarks/canvas.py at ``scale.canvases``, on one thread whatever else is measured on."""
    import canvas

    scale = setting.scale
    with tempfile.TemporaryDirectory(dir=setting.folder) as name:
        return canvas_rows(canvas.measure(Path(name), list(scale.canvases), scale.canvas_images, min(256, scale.canvas)), canvas.COLUMNS)


def canvas_rows(found: dict[int, dict[str, float]], columns: dict[str, str]) -> list[Row]:
    """A row for each figure and canvas, then what the largest canvas has over the smallest."""
    from .rows import growth

    told, (least, most) = [], (min(found), max(found))
    for key, what in columns.items():
        what, unit = what.rsplit(", ", 1)
        unit = unit.replace(" a second", "/s").replace("peak ", "")
        what = f"canvas: {what}{' peak memory' if unit == 'MiB' else ''}"
        told += [row(PART, f"{what}, {side:,} px", [figures[key]], unit) for side, figures in found.items()]
        told.append(growth(PART, what, (least, found[least][key]), (most, found[most][key]), unit))
    return told
