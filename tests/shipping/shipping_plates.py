"""A small product with a trained, calibrated and evaluated detector, ready to be shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from parameters import bare

from cadiff.detection import detect_seeds
from cadiff.params import Params
from cadiff.records import METRIC_SCHEMA, Role, SampleRow, to_table
from cadiff.storage import sha256_file, write_image, write_table
from cadiff.synthesis import synthesize
from cadiff.task import Task

COUNTS: dict[Role, int] = {"normal": 6, "calibration": 5, "test_good": 4, "exemplar": 3, "held_out": 5}
SETTINGS = {
    "width": 4, "size": 64, "tile": 32, "epochs": 1, "samples_per_epoch": 400, "learning_rate": 3e-3, "pooling": 9, "seeds": [0, 1],
}  # fmt: skip
SHAPES = ((90, 90), (90, 131), (117, 84))  # height and width, in turn


@dataclass(frozen=True)
class Product:
    params: Params
    samples: list[SampleRow]
    detector: Path
    evaluated: Path
    generated: Path


def of_role(samples: list[SampleRow], role: Role) -> list[SampleRow]:
    return [row for row in samples if row.role == role]


def draw_plates(root: Path) -> list[SampleRow]:
    """Grey plates of three shapes, good ones and those with a bright spot or a dark line."""
    rng, rows = np.random.default_rng(0), []
    for role, count in COUNTS.items():
        for kind in ("spot", "line") if role in ("exemplar", "held_out") else (None,):
            rows += [draw(root, rng, role, kind, k) for k in range(count)]
    return rows


def draw(root: Path, rng: np.random.Generator, role: Role, kind: str | None, k: int) -> SampleRow:
    height, width = SHAPES[k % len(SHAPES)]
    image, mask = rng.integers(100, 140, (height, width, 3), dtype=np.uint8), np.zeros((height, width), bool)
    row, column = rng.integers(10, 50, 2)
    if kind == "spot":
        mask[row : row + 24, column : column + 24] = True
        image[mask] = 240
    elif kind == "line":
        mask[row : row + 9, 5:-5] = True
        image[mask] = 15
    name = f"{role}-{kind}-{k}"
    path, mask_path = root / f"{name}.png", root / f"{name}-mask.png"
    write_image(path, image)
    if kind:
        write_image(mask_path, np.where(mask, 255, 0).astype(np.uint8))
    return SampleRow(name, "plates", "plate", kind, role, str(path), str(mask_path) if kind else None, width, height, sha256_file(path))


def train(samples: list[SampleRow], folder: Path, canvas: int | str = 80, per_type: int = 8, **detector: Any) -> Product:
    """Two detectors with classifiers, on augmented exemplars; pictures of 80 px are seen at 64 px, in tiles of 32."""
    params = bare(
        products={"plate": {}}, methods=["exemplars"], ship={"methods": ["exemplars"]}, dataset={"name": "plates", "size": canvas},
        base={"size": 32, "device": "cpu"}, metrics={"size": 80}, generate={"per_type": per_type}, classifier={"epochs": per_type // 2},
        detector={**SETTINGS, **detector},
    )  # fmt: skip
    generated, out, evaluated = (folder / name for name in ("generated", "detector", "evaluated"))
    synthesize(Task(params, "plate", "exemplars", samples), generated)
    metrics = detect_seeds(Task(params, "plate", "exemplars", samples), [generated], out, folder / "work", lambda table: None)
    write_table(evaluated / "metrics.parquet", to_table(metrics, METRIC_SCHEMA))
    return Product(params, samples, out, evaluated, generated)
