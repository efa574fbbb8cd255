"""A look at a data set before anything is trained on it: what is there, and all that is wrong with it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cadiff.data import folder, loco, mvtec, visa
from cadiff.data.listing import folders
from cadiff.data.readers import list_products, scan_product
from cadiff.errors import UsageError
from cadiff.params import DatasetParams, Layout, as_written
from cadiff.pictures import Size, fitted
from cadiff.records import Role, SampleRow
from cadiff.storage import read_image

FEW_EXEMPLARS, FEW_HELD_OUT = 3, 6  # images of a type: to learn from, and to tell whether it helped
LARGE = 0.5  # of the image
CANVAS = 256  # dataset.size that is proposed where defects are large enough in it
SMALL = 6  # px of a defect's longer side at the canvas, in the median: of a smaller one the base hardly sees a shape
STEP = 64  # a larger canvas is proposed in steps of so many px
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
    """Counts of one product's whole images: per role, per anomaly type and role, and per (width, height); ``repeated`` and ``known``:
    of those that are scored, and of those that set the threshold, how many are byte for byte one that is learned from; ``defects``: how
    large each type's are."""

    product: str
    roles: Counter[Role]
    types: dict[str, Counter[Role]]
    sizes: Counter[tuple[int, int]]
    repeated: int
    known: int
    defects: dict[str, Defects]


@dataclass(frozen=True)
class Inspection:
    """What a root holds. ``problems`` are all that were found, each one line that starts with its file."""

    root: str
    layout: Layout
    products: list[ProductSummary]
    problems: list[str]
    size: Size
    base: int

    def text(self) -> str:
        """The inspection as lines for a terminal."""
        lines = [f"{self.root}: {len(self.products)} products, layout {self.layout}"]
        for summary in self.products:
            lines += ["", *_product_lines(summary, self.size)]
        lines += ["", f"{len(self.problems)} problems" if self.problems else "No problems found."]
        lines += [f"  {problem}" for problem in self.problems]
        if not self.problems:
            size, why = proposed_size(self.products)
            dataset = {"layout": self.layout, "root": str(Path(self.root).resolve()), "size": size, "calibration": CALIBRATION}
            values = {"dataset": dataset, "products": {summary.product: {} for summary in self.products}}
            lines += ["", "In params.yaml:", f"  # size: {why}", *(f"  {line}" for line in as_written(values))]
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
            rows, found = scan_product(dataset, product)
        except UsageError as error:  # a product whose own table does not read must not hide the others
            rows, found = [], [str(error)]
        summaries.append(_summarise(product, rows))
        problems += found + (_smaller_than_the_base(rows, base) if size == "native" else [])
    if layout in ("mvtec", "loco"):
        problems += _unseen(Path(root), {summary.product for summary in summaries})
    return Inspection(str(root), layout, summaries, problems, size, base)


def _smaller_than_the_base(rows: list[SampleRow], base: int) -> list[str]:
    return [
        f"{row.image_path}: {row.width}x{row.height}, smaller than base.size ({base}), which is what the base draws: remove it, or set "
        f"dataset.size to {base} or more, so that it is enlarged"
        for row in rows
        if min(row.width, row.height) < base
    ]


def _unseen(root: Path, products: set[str]) -> list[str]:
    """Folders that would be products if the folders in them were spelt so."""
    return [
        f"{path}: not read; expected train and test in small letters, found {', '.join(p.name for p in folders(path))}"
        for path in folders(root)
        if path.name not in products and {p.name.lower() for p in folders(path)} & {"train", "test"}
    ]


def guess_layout(root: Path) -> Layout:
    """The layout whose marks are in ``root``: VisA's split table, a product's table.csv, MVTec LOCO
    AD's anomaly folders, MVTec AD's folders.

    Raises:
        UsageError: if the root is not there, or has none of these marks.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: expected a data set's folder, but it is not there")
    if visa.split_table(root).is_file():
        return "visa"
    if folder.products(root):
        return "folder"
    if any(map(loco.is_product, folders(root))):
        return "loco"
    # One product's own folder is told so by list_products.
    if mvtec.products(root) or (root / "train").is_dir() or (root / folder.TABLE).is_file():
        return "mvtec"
    raise UsageError(
        f"{root}: no known layout; expected PRODUCT/train/good (mvtec), PRODUCT/test/logical_anomalies (loco), "
        "split_csv/1cls.csv (visa) or "
        "PRODUCT/table.csv (folder)"
    )


def _summarise(product: str, rows: list[SampleRow]) -> ProductSummary:
    types: dict[str, Counter[Role]] = {}
    for row in rows:
        if row.anomaly_type is not None:
            types.setdefault(row.anomaly_type, Counter())[row.role] += 1
    roles = Counter(row.role for row in rows)
    learned = {row.image_sha256 for row in rows if row.role in ("normal", "exemplar")}
    repeated = sum(row.image_sha256 in learned for row in rows if row.role in ("held_out", "test_good"))
    known = sum(row.image_sha256 in learned for row in rows if row.role == "calibration")
    defects = {name: _defects([row for row in rows if row.anomaly_type == name and row.mask_path]) for name in types}
    sizes = Counter((row.width, row.height) for row in rows)
    return ProductSummary(product, roles, types, sizes, repeated, known, {name: found for name, found in defects.items() if found.pixels})


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
    if summary.repeated:
        lines.append(f"  {summary.repeated} images to be scored are copies of train normals or exemplars: their scores prove nothing")
    if summary.known:
        lines.append(f"  {summary.known} of those that set the threshold are copies of ones that are learned from: it will be too low")
    if not summary.types:
        lines.append("  no anomaly of any type: nothing can be learned to generate")
    for name, roles in sorted(summary.types.items()):
        lone = "" if roles["held_out"] else "  (nothing is held out: its results cannot be measured)"
        if roles["held_out"] and (roles["exemplar"] < FEW_EXEMPLARS or roles["held_out"] < FEW_HELD_OUT):
            lone = f"  (few: give {FEW_EXEMPLARS} to learn from and {FEW_HELD_OUT} that tell whether it helped)"
        seen = _size_said(summary.defects.get(name), size)
        lines.append(f"  {name}: {roles['exemplar']} exemplars, {roles['held_out']} held out{seen}{lone}")
    return lines


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
