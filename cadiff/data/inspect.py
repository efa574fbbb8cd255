"""A look at a data set before anything is trained on it: what is there, and all that is wrong with it."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cadiff.data.cameras import camera_lines, depth_problems, is_deep, with_range
from cadiff.data.guess import guess_layout
from cadiff.data.levels import PROPOSED
from cadiff.data.listing import folders
from cadiff.data.problems import said_once
from cadiff.data.readers import READERS, list_products, scan_product
from cadiff.data.rectangles import box_lines
from cadiff.data.resaved import copy_lines
from cadiff.data.unread import left_in_product, left_in_root, told_paths
from cadiff.errors import CADiffError
from cadiff.names import check_products
from cadiff.params import METHODS, TABLES, DatasetParams, Layout, as_written
from cadiff.pictures import Size, fitted
from cadiff.records import Role, SampleRow
from cadiff.storage import mask_files, read_image

FEW_EXEMPLARS, FEW_HELD_OUT = 3, 6  # images of a type: to learn from, and to tell whether it helped
LARGE = 0.5  # of the image
CANVAS = 256  # dataset.size that is proposed where defects are large enough in it
SMALL = 6  # px of a defect's longer side at the canvas, in the median: of a smaller one the base hardly sees a shape
STEP = 64  # a larger canvas, and a larger scale for the detector, is proposed in steps of so many px
DETECTOR = 128  # detector.size that goes with CANVAS; a larger canvas has one that keeps the ratio
CALIBRATION = 0.2  # dataset.calibration that is proposed
MANY = 6  # shapes that are told one by one


class Defects(NamedTuple):
    """Of one type's masks: each one's pixels and the longer side of its bounding box, as stored, with the picture's height and width."""

    pixels: list[int]
    extents: list[int]
    shapes: list[tuple[int, int]]

    def at(self, size: Size) -> tuple[float, float]:
        """Median extent and median area, in px, at a canvas."""
        scales = [fitted(*shape, size)[0] / shape[0] for shape in self.shapes]
        extents = [extent * scale for extent, scale in zip(self.extents, scales, strict=True)]
        return float(np.median(extents)), float(np.median([n * scale**2 for n, scale in zip(self.pixels, scales, strict=True)]))

    @property
    def share(self) -> float:
        """Median share of the image."""
        return float(np.median([n / (h * w) for n, (h, w) in zip(self.pixels, self.shapes, strict=True)]))


@dataclass(frozen=True)
class ProductSummary:
    """Counts of one product's whole images: per role, per anomaly type and role, and per (width, height); ``copies``: lines of pictures
    that are there twice, where one must not be known of the other; ``defects``: how large each type's are; ``left``: a line of what is
    not read; ``several``: images with several masks; ``boxes``: remarks on masks that are no more than boxes; ``cameras``: on what took
    the pictures; ``deep``: they have more than 8 bits a channel."""

    product: str
    roles: Counter[Role]
    types: dict[str, Counter[Role]]
    sizes: Counter[tuple[int, int]]
    copies: tuple[str, ...]
    defects: dict[str, Defects]
    left: str = ""
    several: int = 0
    boxes: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    deep: bool = False


@dataclass(frozen=True)
class Inspection:
    """What a root holds. ``problems`` are all that were found, each one line that starts with its file; ``left``: lines of what is not
    read."""

    root: str
    layout: Layout
    products: list[ProductSummary]
    problems: list[str]
    size: Size
    base: int
    left: tuple[str, ...] = ()

    def text(self) -> str:
        """The inspection as lines for a terminal."""
        count = len(self.products)
        lines = [f"{self.root}: {count} product{'' if count == 1 else 's'}, layout {self.layout}"]
        for summary in self.products:
            lines += ["", *_product_lines(summary, self.size)]
        lines += ["", *self.left] if self.left else []
        lines += ["", f"{len(self.problems)} problems" if self.problems else "No problems found."]
        lines += [f"  {problem}" for problem in self.problems]
        if not self.problems:
            size, why = proposed_size(self.products)
            table = TABLES.get(self.layout, ".")
            dataset: dict[str, object] = {
                "layout": self.layout, "root": str(Path(self.root).resolve()), "table": table, "size": size, "calibration": CALIBRATION,
            }  # fmt: skip
            if any(summary.deep for summary in self.products):
                dataset["range"] = list(PROPOSED)
            values: dict[str, object] = {"dataset": dataset, "products": {summary.product: {} for summary in self.products}}
            lines += ["", "In params.yaml:", f"  # size: {why}"]
            if (sees := proposed_detector(self.products, size)) != DETECTOR:
                values["detector"] = {"size": sees}
                lines.append("  # detector.size: half of that, so that the same defects are seen; time and memory grow with its square")
            lines += [f"  {line}" for line in as_written(values)]
        return "\n".join(lines)


def proposed_size(products: list[ProductSummary]) -> tuple[Size, str]:
    """A canvas (``dataset.size``) for what was found, and why: 256 px, or as much as the smallest type of defect needs."""
    small = [(each.at(CANVAS)[0], kind, summary.product, each) for summary in products for kind, each in summary.defects.items()]
    if not small:
        return CANVAS, f"{CANVAS} px of the shorter side is the usual canvas; no mask says whether defects need more"
    extent, kind, product, defects = min(small, key=lambda found: found[0])
    if extent >= SMALL:
        return CANVAS, f"the smallest defects, {kind} of {product}, are {_px(extent)} px across at {CANVAS} px, in the median"
    told = f"{kind} of {product} is {_px(extent)} px across at {CANVAS} px, in the median; expected at least {SMALL}"
    needed = math.ceil(CANVAS * SMALL / extent / STEP) * STEP
    if needed < np.median([min(shape) for shape in defects.shapes]):
        return needed, told
    if defects.at("native")[0] > extent:
        return "native", f"{told}, so the pictures stay as they are"
    return CANVAS, f"{told}, and the pictures themselves have no more"


def proposed_detector(products: list[ProductSummary], canvas: Size) -> int:
    """A scale for the detector (``detector.size``) at a canvas: what is ``SMALL`` there is half of it to the detector, at every canvas.
    Of pictures that stay as they are the smallest shorter side counts, as a picture is not enlarged for a detector."""
    side = canvas if isinstance(canvas, int) else min(min(shape) for summary in products for shape in summary.sizes)
    return max(DETECTOR, side * DETECTOR // CANVAS // STEP * STEP)


def inspect_root(root: str | Path, layout: Layout | None = None, size: Size = CANVAS, base: int = 64) -> Inspection:
    """Reads every image and mask under ``root``; the layout is guessed from its files if not given. ``size`` is the canvas that
    images will be brought to (``dataset.size``), ``base`` the side of what the base draws in it (``base.size``).

    Raises:
        UsageError: if the root is not there, or holds no product in the layout.
    """
    layout = layout or guess_layout(Path(root))
    dataset = DatasetParams(name=Path(root).name, layout=layout, root=str(root), max_normals=None, calibration=CALIBRATION)
    summaries: list[ProductSummary] = []
    problems: list[str] = []
    for product in list_products(dataset):
        try:
            rows, found = scan_product(with_range(dataset, product), product)
        except CADiffError as error:  # a product whose own table does not read must not hide the others
            rows, found = [], [str(error)]
        found += _smaller_than_the_base(rows, base) if size == "native" else []
        files = [Path(path) for row in rows for path in (row.image_path, *(row.mask_path or "").split("\n")) if path]
        left = left_in_product(Path(root) / product, layout, {*files, *told_paths(found)}) if rows else ""
        summaries.append(_summarise(product, rows, left))
        problems += said_once(found)
    names = {summary.product for summary in summaries}
    problems += _unseen(Path(root), names) if layout in ("mvtec", "loco") else []
    problems += _unlike(names) + depth_problems(Path(root), {summary.product: summary.deep for summary in summaries if summary.sizes})
    beside = left_in_root(Path(root), layout, names, told_paths(problems), READERS)
    return Inspection(str(root), layout, summaries, problems, size, base, tuple(beside))


def _unlike(products: set[str]) -> list[str]:
    """Products whose stages could not be told from each other's."""
    try:
        check_products(sorted(products), METHODS)
    except ValueError as error:
        return [str(error)]
    return []


def _smaller_than_the_base(rows: list[SampleRow], base: int) -> list[str]:
    return [
        f"{row.image_path}: {row.width}x{row.height}, smaller than base.size ({base}), which is what the base draws: remove it, or set "
        f"dataset.size to {base} or more, so that it is enlarged"
        for row in rows
        if min(row.width, row.height) < base
    ]


def _unseen(root: Path, products: set[str]) -> list[str]:
    """Folders that would be products if the folders in them were spelt so. One that does not open is named as not read."""
    others = [path for path in folders(root) if path.name not in products and os.access(path, os.R_OK | os.X_OK)]
    there = {path: [p.name for p in folders(path)] for path in others}
    return [
        f"{path}: not read; expected train and test in small letters, found {', '.join(names)}"
        for path, names in there.items()
        if {name.lower() for name in names} & {"train", "test"}
    ]


def _summarise(product: str, rows: list[SampleRow], left: str) -> ProductSummary:
    types: dict[str, Counter[Role]] = {}
    for row in rows:
        if row.anomaly_type is not None:
            types.setdefault(row.anomaly_type, Counter())[row.role] += 1
    roles = Counter(row.role for row in rows)
    defects = {name: _defects([row for row in rows if row.anomaly_type == name and row.mask_path]) for name in types}
    sizes = Counter((row.width, row.height) for row in rows)
    measured = {name: found for name, found in defects.items() if found.pixels}
    several = sum(len(mask_files(row.mask_path)) > 1 for row in rows if row.mask_path)
    cameras = tuple(camera_lines(rows))
    return ProductSummary(
        product, roles, types, sizes, tuple(copy_lines(rows)), measured, left, several, box_lines(rows), cameras, is_deep(rows)
    )


def _defects(rows: list[SampleRow]) -> Defects:
    found = Defects([], [], [])
    for row in rows:
        assert row.mask_path is not None
        places = np.nonzero(read_image(row.mask_path, "L"))
        found.pixels.append(len(places[0]))
        found.extents.append(max(int(np.ptp(axis)) + 1 for axis in places))
        found.shapes.append((row.height, row.width))
    return found


def _product_lines(summary: ProductSummary, size: Size) -> list[str]:
    unscored = "" if summary.roles["test_good"] else "  (no test/good: image AUROC and the like cannot be measured)"
    normals, apart = summary.roles["normal"], summary.roles["calibration"]
    lines = [f"{summary.product}: {normals + apart} train normals, {summary.roles['test_good']} test normals{unscored}"]
    lines += [_apart_line(apart), *_shape_lines(summary.sizes, size)]
    lines += [f"  {line}" for line in summary.copies]
    if summary.several:
        lines.append(f"  {summary.several} images have several masks, whose union counts")
    for name, roles in sorted(summary.types.items()):
        lone = "" if roles["held_out"] else "  (nothing is held out: its results cannot be measured)"
        if roles["held_out"] and (roles["exemplar"] < FEW_EXEMPLARS or roles["held_out"] < FEW_HELD_OUT):
            lone = f"  (few: give {FEW_EXEMPLARS} to learn from and {FEW_HELD_OUT} that tell whether it helped)"
        seen = _size_said(summary.defects.get(name), size)
        lines.append(f"  {name}: {roles['exemplar']} exemplars, {roles['held_out']} held out{seen}{lone}")
    return [*lines, *summary.cameras, *summary.boxes, *([summary.left] if summary.left else [])]


def _apart_line(count: int) -> str:
    """How many train normals are kept to set the threshold, and what so many can promise."""
    if not count:
        return "  none of them sets the detector's threshold: that takes at least three train normals"
    promise = f"which promises false alarms on {1 / (count + 1):.2g} of good pictures at best"
    return f"  {count} of the train normals set the detector's threshold and are not learned from (dataset.calibration), {promise}"


def _shape_lines(sizes: Counter[tuple[int, int]], size: Size) -> list[str]:
    """Which shapes there are, and what the canvas does to them."""
    if not sizes:
        return ["  sizes: none"]
    told = ", ".join(f"{w}x{h} ({n})" for (w, h), n in sorted(sizes.items()))
    if len(sizes) > MANY:
        sides, aspects = [min(shape) for shape in sizes], [max(shape) / min(shape) for shape in sizes]
        told = f"{len(sizes)} shapes, the shorter side {min(sides)} to {max(sides)} px, {min(aspects):.3g} to {max(aspects):.3g} to 1"
    lines = [f"  sizes: {told}" + (" (each keeps its own shape)" if len(sizes) > 1 else "")]
    small = sum(n for shape, n in sizes.items() if size != "native" and min(shape) < size)
    if small:
        lines.append(f"  {small} images are enlarged to {size} px of the shorter side, which shows no more of them")
    return lines


def _px(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _size_said(defects: Defects | None, size: Size) -> str:
    """How large a type's defects are at the canvas, and what to do if that is next to nothing."""
    if defects is None:
        return ""
    extent, area = defects.at(size)
    remark = ""
    if extent < SMALL:
        larger = size != "native" and defects.at("native")[0] > extent
        remark = f"  (hardly to be seen: {'set a larger dataset.size' if larger else 'photograph the product from nearer'})"
    if defects.share > LARGE:
        remark = "  (more than half: a mask is white where the defect is; are these inverted?)"
    canvas = "as stored" if size == "native" else f"at {size} px of the shorter side"
    return f", a defect is {_px(extent)} px across and covers {_px(area)} px {canvas}, in the median{remark}"
