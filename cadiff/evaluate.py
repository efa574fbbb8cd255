"""Any generator's folder of images and masks, scored as the pipeline scores its own shards: ``cadiff evaluate``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from cadiff.data import mvtec, read_samples
from cadiff.data.inspect import guess_layout
from cadiff.data.listing import Entry, Listing, folders, image_files
from cadiff.data.readers import verify_entry
from cadiff.detection import score, train_detector
from cadiff.errors import UsageError
from cadiff.metrics.generated import IC_LPIPS, IS, score_generated
from cadiff.params import DatasetParams, Layout, Params
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, MetricRow, SampleRow, to_table
from cadiff.storage import digest, encode_png, read_image, sha256_bytes, write_table

GOOD = "good"
MASK_END = "_mask"
SHOWN = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pro", "image_auroc", "image_ap", IS, IC_LPIPS)


def evaluate_folder(
    params: Params, folder: Path, root: Path, layout: Layout | None = None, products: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[MetricRow]:  # fmt: skip
    """Trains ``params.detector`` on each product of ``folder`` and the train normals of ``root``, and scores it on
    the held-out images of ``root``; scores the images themselves (IS, IC-LPIPS). The method is the folder's name.

    ``folder`` holds ``PRODUCT/<type>/*`` with ``<stem>_mask.png`` beside each image, or MVTec AD's
    ``PRODUCT/test/<type>`` and ``PRODUCT/ground_truth/<type>``; ``good`` holds normal images that took the
    generator's path, for the detector's normals. A type ``hole+scratch`` is an image with both.

    Raises:
        UsageError: if a folder, product, image or mask is not as it should be, or an image is a held-out one.
    """
    dataset = dataset_at(params, root, layout)
    chosen = list(dict.fromkeys(products)) or [path.name for path in folders(folder)]
    if not chosen:
        raise UsageError(f"{folder}: expected PRODUCT/<type>/ with images and masks here, found no folder")
    method = folder.resolve().name
    with tempfile.TemporaryDirectory(prefix="cadiff-") as name:
        scratch = Path(name)
        ready = []
        for product in chosen:  # all are read before the first is trained, so that a wrong file is named at once
            own = _params_of(params, dataset, product)
            samples = read_samples(dataset, product)
            write_shards(list_generated(folder, product), samples, product, own.base.size, scratch / "shards" / product)
            ready.append((own, product, samples))
        return [row for each in ready for row in _evaluate(*each, method, seeds, scratch)]


def _evaluate(
    params: Params, product: str, samples: list[SampleRow], method: str, seeds: Sequence[int], scratch: Path
) -> list[MetricRow]:
    """The stage ``detect`` on one product's shards."""
    shards, detectors = scratch / "shards" / product, scratch / "detectors" / product
    rows = score_generated(params, method, product, samples, shards)
    for seed in seeds or params.detector.seeds:
        train_detector(params, method, product, [shards], samples, seed, detectors, detectors / "checkpoints")
        rows += score(params, method, product, samples, seed, detectors)[0]
    return rows


def dataset_at(params: Params, root: Path, layout: Layout | None) -> DatasetParams:
    """The parameters' own data set if ``root`` is its root, else all of what is there."""
    if root.resolve() == Path(params.dataset.root).resolve() and layout in (None, params.dataset.layout):
        return params.dataset
    name = root.resolve().name
    return DatasetParams(name=name, layout=layout or guess_layout(root), root=str(root), max_normals=None)


def _params_of(params: Params, dataset: DatasetParams, product: str) -> Params:
    """With the product's own overrides where the parameters have it; any other product is welcome too."""
    known = {product: params.products.get(product, {})}
    return params.model_copy(update={"dataset": dataset, "products": known}).for_product(product)


def list_generated(folder: Path, product: str) -> list[Entry]:
    """The product's generated images with their masks, in whichever of the two layouts they are.

    Raises:
        UsageError: the first problem, or that there is no anomaly.
    """
    base = folder / product
    if (base / "test").is_dir():
        listing = mvtec.list_files(folder, product)
        listing.entries = [entry for entry in listing.entries if entry.split == "test"]
    else:
        listing = _list_plain(base)
    if listing.problems:
        others = f" (and {len(listing.problems) - 1} more)" if len(listing.problems) > 1 else ""
        raise UsageError(listing.problems[0] + others)
    if not any(entry.anomaly_type for entry in listing.entries):
        raise UsageError(f"{base}: expected anomalies in {base}/<type>/ or {base}/test/<type>/, found none")
    return listing.entries


def _list_plain(base: Path) -> Listing:
    """``base/<type>/<stem>.*`` with ``<stem>_mask.*`` beside it; ``base/good`` has no masks."""
    listing = Listing()
    for folder in folders(base):
        files = {path.stem: path for path in image_files(folder)}
        twice = (path for path in image_files(folder) if files[path.stem] != path)
        listing.problems += [f"{path}: a second image named {path.stem}; names are compared without suffix" for path in twice]
        masks = {stem: path for stem, path in files.items() if stem.endswith(MASK_END)}
        kind = None if folder.name == GOOD else folder.name
        for stem, path in files.items():
            if stem in masks:
                if kind is None or stem.removesuffix(MASK_END) not in files:
                    listing.problems.append(f"{path}: mask without an image; expected one in {folder}")
            elif kind and stem + MASK_END not in masks:
                listing.problems.append(f"{path}: image without a mask; expected {path.with_name(stem + MASK_END)}.png")
            else:
                listing.entries.append(Entry("test", kind, stem, path, masks.get(stem + MASK_END)))
    return listing


def write_shards(entries: Sequence[Entry], samples: Sequence[SampleRow], product: str, size: int, out: Path) -> None:
    """``out/<type>.parquet`` (GENERATED_SCHEMA), images and masks brought to ``size`` x ``size``.

    Raises:
        UsageError: if a pair is not whole, or an image is one that the detector is scored on.
    """
    scored_on = {row.image_sha256: row.image_path for row in samples if row.role in ("held_out", "test_good")}
    by_type: dict[str, list[Entry]] = {}
    made: list[tuple[str, str]] = []
    for entry in entries:
        sha256 = verify_entry(entry)[2]
        if sha256 in scored_on:
            raise UsageError(f"{entry.image}: this is {scored_on[sha256]}, which the detector is scored on; remove it")
        made.append((entry.key, sha256))
        by_type.setdefault(entry.anomaly_type or GOOD, []).append(entry)
    maker = digest(sorted(made))
    for kind, members in sorted(by_type.items()):
        rows = [_row(entry, product, size, maker) for entry in members]
        write_table(out / f"{kind}.parquet", to_table(rows, GENERATED_SCHEMA))


def _row(entry: Entry, product: str, size: int, maker: str) -> GeneratedRow:
    image = encode_png(read_image(entry.image, "RGB", size))
    mask = encode_png(read_image(entry.mask, "L", size) if entry.mask else np.zeros((size, size), np.uint8))
    return GeneratedRow(
        sample_id=f"{product}/{entry.key}", product=product,
        anomaly_types=entry.anomaly_type.split("+") if entry.anomaly_type else [],
        image={"bytes": image, "path": entry.image.name}, mask={"bytes": mask, "path": f"{entry.name}{MASK_END}.png"},
        mask_source="folder", prompt=None, intensity=None, seed=0, steps=None, guidance_scale=None, focus_step=None,
        base_digest=None, generator_digest=maker, params_digest="", image_sha256=sha256_bytes(image),
    )  # fmt: skip


def metrics_table(rows: Sequence[MetricRow]) -> Table:
    """Per product the mean over seeds of each figure in ``SHOWN``, and its standard deviation where there are several."""
    table = Table("product")
    table.add_column("metric", overflow="fold")
    for name in ("mean", "std", "seeds", "images"):
        table.add_column(name, justify="right")
    for product in dict.fromkeys(row.product for row in rows):
        for metric in SHOWN:
            found = [row for row in rows if (row.product, row.metric) == (product, metric)]
            values = np.array([row.value for row in found])
            std = f"{values.std(ddof=1):.4f}" if len(values) > 1 else "-"
            table.add_row(product, metric, f"{values.mean():.4f}", std, str(len(found)), str(found[0].n))
        table.add_section()
    return table
