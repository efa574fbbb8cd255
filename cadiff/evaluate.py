"""Any generator's folder of images and masks, scored as the pipeline scores its own shards, or any detector's folder of
anomaly maps: ``cadiff evaluate``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from cadiff.data import read_samples
from cadiff.data.guess import guess_layout
from cadiff.data.listing import folders
from cadiff.data.resaved import copy_lines
from cadiff.detection import detect_published, detect_seeds, filter_shards, score_maps
from cadiff.errors import UsageError
from cadiff.metrics.generated import score_generated
from cadiff.metrics.networks import find_networks
from cadiff.names import check_product
from cadiff.params import TABLES, DatasetParams, DrawParams, Layout, Params
from cadiff.records import MetricRow, SampleRow
from cadiff.synthesis import import_folder
from cadiff.synthesis.folder import GOOD
from cadiff.task import Task

SHOWN = (
    "images_kept", "pixel_auroc", "pixel_ap", "pixel_ap_types", "pixel_f1max", "pro", "image_auroc", "image_ap", "image_f1max",
    "false_alarm_rate", "miss_rate", "classification_accuracy", "is(", "ic_lpips(",
)  # fmt: skip


def evaluate_folder(
    params: Params, folder: Path, root: Path, layout: Layout | None = None, products: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[MetricRow]:  # fmt: skip
    """Trains ``params.detector`` on each product of ``folder`` and the train normals of ``root``, and scores it on
    the held-out images of ``root``; scores the images themselves (IS, IC-LPIPS). The method is the folder's name. With
    ``detector.published`` the published evaluation's rows follow (protocol ``legacy``).

    The folder's layouts: cadiff.synthesis.folder.

    Raises:
        UsageError: if a folder, product, image or mask is not as it should be, or an image is a held-out one.
    """
    dataset = dataset_at(params, root, layout)
    chosen = _products_in(folder, products, "PRODUCT/<type>/ with images and masks")
    find_networks(params)  # a file that is missing is named before the first is trained
    method = folder.resolve().name
    with tempfile.TemporaryDirectory(prefix="cadiff-") as name:
        scratch = Path(name)
        ready = []
        for product in chosen:  # all are read before the first is trained, so that a wrong file is named at once
            own = _params_of(params, dataset, product)
            samples = _read(dataset, product)
            import_folder(folder, product, samples, own.dataset.size, scratch / "shards" / product)
            if seeds:
                own = own.model_copy(update={"detector": own.detector.model_copy(update={"seeds": list(seeds)})})
            # in this process: workers elsewhere do not see its scratch folder
            ready.append(Task(own.model_copy(update={"cluster": None}), product, method, samples))
        return [row for task in ready for row in _evaluate(task, scratch)]


def _evaluate(task: Task, scratch: Path) -> list[MetricRow]:
    """The stage ``detect`` on one product's shards."""
    shards, detectors = scratch / "shards" / task.product, scratch / "detectors" / task.product
    kept, rows = filter_shards(task, {task.method: shards}, scratch / "kept" / task.product, foreign=True)
    rows += score_generated(task, kept[task.method])
    work, beside = detectors / "checkpoints", detectors / "published"
    rows += detect_seeds(task, [kept[task.method]], detectors, work, keep=lambda table: None)
    if task.params.detector.published:
        rows += detect_published(task, {task.method: shards}, beside, beside / "checkpoints")
    return rows


def evaluate_maps(
    params: Params, folder: Path, root: Path, layout: Layout | None = None, products: Sequence[str] = ()
) -> list[MetricRow]:
    """Scores a detector's anomaly maps, ``folder/PRODUCT/test/<type>/<name>.npy`` (or .tiff, .png), on the held-out
    images of ``root``. The method is the folder's name.

    Raises:
        UsageError: if a folder or product is not as it should be, or an image has no map.
    """
    dataset = dataset_at(params, root, layout)
    rows = []
    for product in _products_in(folder, products, "PRODUCT/test/<type>/ with anomaly maps"):
        own = _params_of(params, dataset, product)
        rows += score_maps(Task(own, product, folder.resolve().name, _read(dataset, product)), folder)
    return rows


def _read(dataset: DatasetParams, product: str) -> list[SampleRow]:
    """The product's samples. Those that prove nothing are told on standard error, before anything is trained or scored."""
    samples = read_samples(dataset, product)
    for line in copy_lines(samples):
        print(f"{product}: {line}", file=sys.stderr)
    return samples


def lack_good(folder: Path, products: Sequence[str] = ()) -> list[str]:
    """The folder's products that bring no normal images that took the generator's path."""
    chosen = _products_in(folder, products, "PRODUCT/<type>/ with images and masks")
    return [name for name in chosen if not any((folder / name / part).is_dir() for part in (GOOD, f"test/{GOOD}"))]


def _products_in(folder: Path, products: Sequence[str], expected: str) -> list[str]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected {expected}, but it is not there")
    chosen = list(dict.fromkeys(products)) or [path.name for path in folders(folder)]
    if not chosen:
        raise UsageError(f"{folder}: expected {expected} here, found no folder")
    for name in chosen:
        try:
            check_product(name)
        except ValueError as error:
            raise UsageError(f"{folder}: {error}") from None
    return chosen


def dataset_at(params: Params, root: Path, layout: Layout | None) -> DatasetParams:
    """The parameters' own data set if ``root`` is its root, else all of what is there, read as those say: canvas, depth, share for
    calibration."""
    if root.resolve() == Path(params.dataset.root).resolve() and layout in (None, params.dataset.layout):
        return params.dataset
    name, layout = root.resolve().name, layout or guess_layout(root)
    own = params.dataset
    table = TABLES.get(layout, ".")
    return DatasetParams(
        name=name, layout=layout, root=str(root), table=table, max_normals=None, size=own.size, calibration=own.calibration, range=own.range
    )


def _params_of(params: Params, dataset: DatasetParams, product: str) -> Params:
    """With the product's own overrides where the parameters have it; any other product is welcome too."""
    known = {product: params.products.get(product, {})}
    # nothing is drawn: the demo's parameters may be those that score anyone's images
    return params.model_copy(update={"dataset": dataset, "draw": DrawParams(), "products": known}).for_product(product)


def metrics_tables(rows: Sequence[MetricRow]) -> list[Table]:
    """``metrics_table`` of what was measured by this project's protocols or elsewhere, and apart from it by the published evaluation."""
    parts = ([row for row in rows if (row.protocol == "legacy") == legacy] for legacy in (False, True))
    return [metrics_table(part) for part in parts if part]


def metrics_table(rows: Sequence[MetricRow]) -> Table:
    """Per product the mean over seeds of each figure that ``SHOWN`` names or begins, without per-type ones, and its
    standard deviation where there are several. The title is the detector's protocol."""
    protocols = {row.product: row.protocol for row in rows if row.metric == "pixel_ap"}  # a classifier's may be another
    said = ", ".join(f"{protocol} ({product})" for product, protocol in protocols.items())
    title = next(iter(protocols.values())) if len(set(protocols.values())) == 1 else said
    table = Table("product", title=f"protocol: {title}")
    table.add_column("metric", overflow="fold")
    for name in ("mean", "std", "seeds", "images"):
        table.add_column(name, justify="right")
    for product in dict.fromkeys(row.product for row in rows):
        measured = dict.fromkeys(row.metric for row in rows if row.product == product and "/" not in row.metric)
        for metric in sorted((name for name in measured if _place(name) < len(SHOWN)), key=_place):
            found = [row for row in rows if (row.product, row.metric) == (product, metric)]
            values = np.array([row.value for row in found])
            std = f"{values.std(ddof=1):.4f}" if len(values) > 1 else "-"
            table.add_row(product, metric, f"{values.mean():.4f}", std, str(len(found)), str(found[0].n))
        table.add_section()
    return table


def _place(metric: str) -> int:
    """Where a metric stands in the table; of the names with ( only the start is given, for what follows varies."""
    places = (i for i, name in enumerate(SHOWN) if metric == name or (name.endswith("(") and metric.startswith(name)))
    return next(places, len(SHOWN))
