"""What a larger canvas costs: ``python benchmarks/canvas.py [--canvases 256 1024 4096] [--images 16] [--detector-size 256]``.

The same drawn pictures enlarged, the same windows: masks of ``MASK`` px, whatever the canvas, on the embedded base with an untrained
control (speed does not depend on what it learnt). Prints a table: images a second as they are drawn (pictures in memory), and as
the stage generate does it (pictures read, images and masks written as PNG); seconds and pictures of a detector's scoring; peak memory
of both in processes of their own.
"""

from __future__ import annotations

import os

from cadiff.task import Task

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before torch is imported

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from bench.peak import own_peak
from jaxtyping import Bool
from PIL import Image

from cadiff.data import read_samples
from cadiff.data.demo import SIDE, draw_product
from cadiff.detection import score, train_detector
from cadiff.errors import CADiffError, exit_code
from cadiff.generator import adapt_base, draw_scenes, generate_shards, load_generator, settings_of, train_generator
from cadiff.generator.setting import reader
from cadiff.params import DrawParams, Params, load_params
from cadiff.progress import be_quiet
from cadiff.records import SampleRow
from cadiff.scene import Anomaly, Outline, Scene
from cadiff.storage import write_image

ROOT = Path(__file__).resolve().parents[1]
PRODUCT, METHOD = "nut", "cadiff"
MASK = 40  # px of a mask's side: a window of 80 px with the usual context
WARM = 4  # images that are drawn before time is taken


def parameters(folder: Path, canvas: int, images: int, detector_size: int) -> Params:
    """The smoke preset on this canvas's pictures as they are."""
    values = load_params(ROOT / "presets" / "smoke.yaml").model_dump()
    changes: dict[str, dict[str, object]] = {
        "dataset": {"root": str(folder / str(canvas)), "size": "native"}, "adapt": {"steps": 0}, "train": {"steps": 1},
        "generate": {"steps": 20, "start": "background", "per_type": images, "redraw": False},
        "detector": {"size": min(detector_size, canvas), "tile": min(detector_size, 256)},
    }  # fmt: skip
    for section, own in changes.items():
        values[section] |= own
    return Params(**{**values, "products": {PRODUCT: {}}, "draw": {**values["draw"], "products": [PRODUCT]}}).for_product(PRODUCT)


def draw_pictures(folder: Path, canvases: list[int]) -> None:
    """The product once, then enlarged to each canvas."""
    draw_product(DrawParams(normals=2, test_good=1, anomalies_per_type=3), PRODUCT, 0, folder / "drawn" / PRODUCT)
    for path in sorted((folder / "drawn").rglob("*.png")):
        image = Image.open(path)
        resample = Image.Resampling.NEAREST if "ground_truth" in path.parts else Image.Resampling.BICUBIC
        for canvas in canvases:
            large = image if canvas == SIDE else image.resize((canvas, canvas), resample)
            write_image(folder / str(canvas) / path.relative_to(folder / "drawn"), np.asarray(large))


def square(canvas: int, index: int) -> Bool[np.ndarray, "h w"]:
    """A mask near the middle, where the part is, of the same px on each canvas."""
    mask, start = np.zeros((canvas, canvas), bool), canvas // 4 + 3 * (index % 8)
    mask[start : start + MASK, canvas // 2 : canvas // 2 + MASK] = True
    return mask


def scenes(samples: list[SampleRow], canvas: int, count: int) -> list[Scene]:
    normals = [row for row in samples if row.role == "normal"]
    kinds = sorted({row.anomaly_type for row in samples if row.anomaly_type})
    found = []
    for index in range(count):
        kind, normal = kinds[index % len(kinds)], normals[index % len(normals)]
        anomaly = Anomaly(kind, Outline.of(square(canvas, index)), 1.0, "drawn")
        found.append(Scene(f"{PRODUCT}/{kind}/{index:05d}", PRODUCT, (anomaly,), normal, normal, index, 0))
    return found


def generated(params: Params, folder: Path, canvas: int, images: int) -> dict[str, float]:
    samples, own = read_samples(params.dataset, PRODUCT), settings_of(METHOD, params)
    adapted, trained = folder / "adapted", folder / "generator"
    todo, out = scenes(samples, canvas, images), folder / f"generated-{canvas}"
    generator, read = load_generator(Task(params, PRODUCT, METHOD), adapted, trained), reader(params)

    def draw(chosen: list[Scene]) -> None:  # in batches as the stage does, so that not all images are in memory
        for start in range(0, len(chosen), params.generate.batch):
            draw_scenes(generator, own, chosen[start : start + params.generate.batch], read=read, again=False)

    draw(todo[:WARM])
    drawn = seconds_of(lambda: draw(todo))
    written = seconds_of(
        lambda: generate_shards(Task(params, PRODUCT, METHOD, samples), adapted, trained, todo, out, folder / f"generate-{canvas}")
    )
    normals = sum(row.role == "normal" for row in samples)
    return {"drawn": images / drawn, "written": (images + normals) / written}


def detected(params: Params, folder: Path, canvas: int, images: int) -> dict[str, float]:
    samples, out = read_samples(params.dataset, PRODUCT), folder / f"detector-{canvas}"
    train_detector(Task(params, PRODUCT, METHOD, samples), [folder / f"generated-{canvas}"], 0, out, folder / f"detect-{canvas}")
    seen = sum(row.role in ("held_out", "test_good") for row in samples)
    return {"scored": seen / seconds_of(lambda: score(Task(params, PRODUCT, METHOD, samples), 0, out))}


WORK: dict[str, Callable[[Params, Path, int, int], dict[str, float]]] = {"generate": generated, "detect": detected}


def seconds_of(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def in_process(name: str, folder: Path, canvas: int, images: int, detector_size: int) -> dict[str, float]:
    """What a piece of work measured in a process of its own, and that process's peak memory in MiB."""
    call = [sys.executable, __file__, "--work", name, "--folder", str(folder), "--canvases", str(canvas)]
    call += ["--images", str(images), "--detector-size", str(detector_size)]
    result = folder / f"{name}-{canvas}.json"
    done = subprocess.run(call, check=False)
    if done.returncode:
        raise CADiffError(f"{' '.join(call)}: ended with exit code {done.returncode}; its own message is above.")
    return dict(json.loads(result.read_text()))


COLUMNS = {
    "drawn": "drawn, images a second", "written": "generate, images a second", "generate MiB": "generate, peak MiB",
    "scored": "scored, pictures a second", "detect MiB": "detect, peak MiB",
}  # fmt: skip


def table(found: dict[int, dict[str, float]]) -> list[str]:
    """Markdown: a line a canvas."""
    lines = ["| canvas | " + " | ".join(COLUMNS.values()) + " |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for canvas, figures in found.items():
        told = [f"{figures[name]:.0f}" if "MiB" in name else f"{figures[name]:.3g}" for name in COLUMNS]
        lines.append(f"| {canvas} | " + " | ".join(told) + " |")
    return lines


def measure(folder: Path, canvases: list[int], images: int, detector_size: int) -> dict[int, dict[str, float]]:
    draw_pictures(folder, canvases)
    params = parameters(folder, canvases[0], images, detector_size)
    samples = read_samples(params.dataset, PRODUCT)
    adapt_base(Task(params, PRODUCT, samples=samples), folder / "adapted", folder / "work-adapt")
    train_generator(Task(params, PRODUCT, METHOD, samples), folder / "adapted", folder / "generator", folder / "work-train")
    return {
        canvas: {key: value for name in WORK for key, value in in_process(name, folder, canvas, images, detector_size).items()}
        for canvas in canvases
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canvases", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--detector-size", type=int, default=256, help="px of the shorter side that a detector sees pictures at")
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)  # what a process of this script's own does
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()

    def work() -> None:
        be_quiet()
        if given.work:
            (canvas,) = given.canvases
            params = parameters(given.folder, canvas, given.images, given.detector_size)
            figures = WORK[given.work](params, given.folder, canvas, given.images) | {f"{given.work} MiB": own_peak()}
            (given.folder / f"{given.work}-{canvas}.json").write_text(json.dumps(figures))
            return
        load = os.getloadavg()[0]
        print(f"load average before: {load:.1f} on {os.cpu_count()} cores{' (busy: speeds say little)' if load > 0.5 else ''}")
        with tempfile.TemporaryDirectory() as name:
            print("\n".join(table(measure(Path(name), given.canvases, given.images, given.detector_size))))

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
