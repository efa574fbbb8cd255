"""A look at a data set before anything is trained on it: what is there, and all that is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cadiff.data import folder, loco, mvtec, visa
from cadiff.data.listing import folders
from cadiff.data.readers import list_products, scan_product
from cadiff.errors import UsageError
from cadiff.params import DatasetParams, Layout, as_written
from cadiff.records import Role, SampleRow
from cadiff.storage import read_image

FEW_EXEMPLARS, FEW_HELD_OUT = 3, 6  # images of a type: to learn from, and to tell whether it helped
LARGE = 0.5  # of the image
SMALL = 12 / 64**2  # of the image: 12 pixels of 64 x 64, about what the latents of either base still show


@dataclass(frozen=True)
class ProductSummary:
    """Counts of one product's whole images: per role, per anomaly type and role, and per (width, height); ``repeated``:
    of those that are scored, how many are byte for byte one that is learned from; ``areas``: per type, the median mask's
    pixels at the size that everything is learned at."""

    product: str
    roles: Counter[Role]
    types: dict[str, Counter[Role]]
    sizes: Counter[tuple[int, int]]
    repeated: int
    areas: dict[str, float]


@dataclass(frozen=True)
class Inspection:
    """What a root holds. ``problems`` are all that were found, each one line that starts with its file."""

    root: str
    layout: Layout
    products: list[ProductSummary]
    problems: list[str]
    size: int

    def text(self) -> str:
        """The inspection as lines for a terminal."""
        lines = [f"{self.root}: {len(self.products)} products, layout {self.layout}"]
        for summary in self.products:
            lines += ["", *_product_lines(summary, self.size)]
        lines += ["", f"{len(self.problems)} problems" if self.problems else "No problems found."]
        lines += [f"  {problem}" for problem in self.problems]
        if not self.problems:
            dataset = {"layout": self.layout, "root": str(Path(self.root).resolve())}
            values = {"dataset": dataset, "products": {summary.product: {} for summary in self.products}}
            lines += ["", "In params.yaml:", *(f"  {line}" for line in as_written(values))]
        return "\n".join(lines)


def inspect_root(root: str | Path, layout: Layout | None = None, size: int = 64) -> Inspection:
    """Reads every image and mask under ``root``; the layout is guessed from its files if not given. ``size`` is the side
    that images will be brought to (``base.size``).

    Raises:
        UsageError: if the root is not there, or holds no product in the layout.
    """
    layout = layout or guess_layout(Path(root))
    dataset = DatasetParams(name=Path(root).name, layout=layout, root=str(root), max_normals=None)
    summaries: list[ProductSummary] = []
    problems: list[str] = []
    for product in list_products(dataset):
        try:
            rows, found = scan_product(dataset, product)
        except UsageError as error:  # a product whose own table does not read must not hide the others
            rows, found = [], [str(error)]
        summaries.append(_summarise(product, rows, size))
        problems += found
    if layout in ("mvtec", "loco"):
        problems += _unseen(Path(root), {summary.product for summary in summaries})
    return Inspection(str(root), layout, summaries, problems, size)


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


def _summarise(product: str, rows: list[SampleRow], size: int) -> ProductSummary:
    types: dict[str, Counter[Role]] = {}
    for row in rows:
        if row.anomaly_type is not None:
            types.setdefault(row.anomaly_type, Counter())[row.role] += 1
    roles = Counter(row.role for row in rows)
    learned = {row.image_sha256 for row in rows if row.role in ("normal", "exemplar")}
    repeated = sum(row.image_sha256 in learned for row in rows if row.role in ("held_out", "test_good"))
    masked = {name: [row.mask_path for row in rows if row.anomaly_type == name and row.mask_path] for name in types}
    areas = {
        name: float(np.median([np.count_nonzero(read_image(path, "L", size)) for path in paths])) for name, paths in masked.items() if paths
    }
    return ProductSummary(product, roles, types, Counter((row.width, row.height) for row in rows), repeated, areas)


def _product_lines(summary: ProductSummary, size: int) -> list[str]:
    sizes = ", ".join(f"{w}x{h} ({n})" for (w, h), n in sorted(summary.sizes.items()))
    unscored = "" if summary.roles["test_good"] else "  (no test/good: image AUROC and the like cannot be measured)"
    good = f"{summary.roles['normal']} train normals, {summary.roles['test_good']} test normals{unscored}"
    lines = [f"{summary.product}: {good}", f"  sizes: {sizes or 'none'}"]
    if any(width != height for width, height in summary.sizes):
        lines.append(f"  images that are not square are squeezed to {size}x{size}: if that matters, cut them square first")
    if summary.repeated:
        lines.append(f"  {summary.repeated} images to be scored are copies of train normals or exemplars: their scores prove nothing")
    if not summary.types:
        lines.append("  no anomaly of any type: nothing can be learned to generate")
    for name, roles in sorted(summary.types.items()):
        lone = "" if roles["held_out"] else "  (nothing is held out: its results cannot be measured)"
        if roles["held_out"] and (roles["exemplar"] < FEW_EXEMPLARS or roles["held_out"] < FEW_HELD_OUT):
            lone = f"  (few: give {FEW_EXEMPLARS} to learn from and {FEW_HELD_OUT} that tell whether it helped)"
        seen = _size_said(summary.areas.get(name), size)
        lines.append(f"  {name}: {roles['exemplar']} exemplars, {roles['held_out']} held out{seen}{lone}")
    return lines


def _size_said(area: float | None, size: int) -> str:
    """How large a defect is where everything is learned, and what to do if that is next to nothing."""
    if area is None:
        return ""
    advice = "  (hardly to be seen: cut the images closer around the product, or use a base for larger ones)"
    remark = advice if area < SMALL * size**2 else ""
    if area > LARGE * size**2:
        remark = "  (more than half: a mask is white where the defect is; are these inverted?)"
    return f", a defect covers {area:g} of {size}x{size} pixels in the median{remark}"
