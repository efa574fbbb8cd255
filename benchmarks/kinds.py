"""Is a generated hole a hole? ``python benchmarks/kinds.py [--products P ...] [--seeds 0 1 2]``, after a run of the demo.

The pipeline's own classifier learns a demo product's types from pictures drawn from other seeds than the demo's, and names
the types of other such pictures (how well it can tell them at all) and of the generated images, each type as it was asked for.
It sees close-ups of the mask, so that neither place nor product but the anomaly's look decides. What it was not trained on
it names by chance of its training too, so the mean over several is printed, +- their standard deviation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cadiff.data.demo import SIDE
from cadiff.data.drawing.products import DEMO, draw
from cadiff.detection import classify
from cadiff.errors import UsageError, exit_code
from cadiff.export import export_product
from cadiff.params import Params, load_params
from cadiff.records import MetricRow, SampleRow
from cadiff.seeds import numpy_generator
from cadiff.storage import read_image, sha256_file, write_image
from cadiff.synthesis.folder import import_folder
from cadiff.task import Task

LEARNT, NAMED = 300, 60  # pictures of a type
EPOCHS = 4
LEAST = 1 / 8  # of the side: half a close-up


def close_up(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square around the mask (s s) with as much again beside it, both brought back to the side s."""
    side, (rows, columns) = mask.shape[0], np.nonzero(mask)
    reach = max(round(LEAST * side), rows.max() - rows.min() + 1, columns.max() - columns.min() + 1)
    half = min(int(reach), side // 2)
    top, left = (int(np.clip((at.max() + at.min()) // 2 - half, 0, side - 2 * half)) for at in (rows, columns))
    box = (left, top, left + 2 * half, top + 2 * half)

    def enlarged(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box))

    return enlarged(image), enlarged(255 * mask.astype(np.uint8))


def drawn(product: str, kind: str, size: int, first: int, count: int, folder: Path) -> None:
    """Pictures ``first`` to ``first + count - 1`` of a type, and their masks, into ``folder/<kind>``."""
    for index in range(first, first + count):
        image, mask = draw(DEMO[product], numpy_generator(0, "types", product, kind, index), size, kind)
        keep(image, mask, folder / kind / f"{index:04d}.png")


def generated(shards: Path, kinds: Sequence[str], size: int, folder: Path) -> None:
    """The shards' images of each type into ``folder/<kind>``."""
    export_product(shards, folder / "whole")
    for path in (path for kind in kinds for path in sorted((folder / "whole" / "test" / kind).glob("*.png"))):
        mask = read_image(folder / "whole" / "ground_truth" / path.parent.name / f"{path.stem}_mask.png", "L", (size, size)) > 0
        keep(read_image(path, "RGB", (size, size)), mask, folder / path.parent.name / path.name)


def keep(image: np.ndarray, mask: np.ndarray, path: Path) -> None:
    image, mask = close_up(image, mask)
    write_image(path, image)
    write_image(path.with_name(f"{path.stem}_mask.png"), mask)


def asked(product: str, folder: Path, kinds: Sequence[str]) -> list[SampleRow]:
    """The images in ``folder/<kind>`` as rows whose type is to be named."""
    return [
        SampleRow(f"{product}/{kind}/{path.stem}", "demo", product, kind, "held_out", str(path), None, *shape_of(path), sha256_file(path))
        for kind in kinds
        for path in sorted((folder / kind).glob("*.png"))
        if not path.stem.endswith("_mask")
    ]


def shape_of(path: Path) -> tuple[int, int]:
    """Width and height."""
    with Image.open(path) as image:
        return image.size


def measure(params: Params, product: str, scratch: Path, shards: Path, seeds: Sequence[int] = (0,)) -> dict[str, list[MetricRow]]:
    """The rows of the drawn pictures and of the generated ones, of a classifier a seed."""
    kinds, size = list(DEMO[product].kinds), SIDE if params.dataset.size == "native" else params.dataset.size
    for kind in kinds:
        drawn(product, kind, size, 0, LEARNT, scratch / "learnt" / product)
        drawn(product, kind, size, LEARNT, NAMED, scratch / "named")
    import_folder(scratch / "learnt", product, [], size, scratch / "shards")
    generated(shards / product, kinds, size, scratch / "made")
    settings = params.classifier.model_copy(update={"epochs": EPOCHS})
    params = params.model_copy(update={"classifier": settings})
    folders = {"drawn": scratch / "named", "generated": scratch / "made"}
    work = scratch / "work"  # of a seed the second goes on from the first's end: one training

    def told(folder: Path, seed: int) -> list[MetricRow]:
        task = Task(params.for_product(product), product, "types", asked(product, folder, kinds))
        return classify(task, [scratch / "shards"], seed, work)

    return {name: [row for seed in seeds for row in told(folder, seed)] for name, folder in folders.items()}


def shown(rows: Sequence[MetricRow]) -> str:
    """Each share in %, mean over seeds and their standard deviation."""
    by_metric: dict[str, list[float]] = {}
    for row in rows:
        by_metric.setdefault(row.metric.rpartition("/")[2], []).append(100 * row.value)
    spread = {name: f" +- {np.std(values, ddof=1):.0f}" if len(values) > 1 else "" for name, values in by_metric.items()}
    return "  ".join(f"{name} {np.mean(values):.0f}{spread[name]}" for name, values in by_metric.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", nargs="+", default=list(DEMO), choices=list(DEMO))
    parser.add_argument("--method", default="cadiff")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()

    def work() -> None:
        params, shards = load_params(Path("params.yaml")), Path("data/made/generated") / options.method
        for product in options.products:
            if not (shards / product).is_dir():
                raise UsageError(f"{shards / product}: expected the shards of a run of the demo; run `dvc repro` first")
            with tempfile.TemporaryDirectory() as scratch:
                for name, rows in measure(params, product, Path(scratch), shards, options.seeds).items():
                    print(f"{product} {name}: {shown(rows)}", flush=True)

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
