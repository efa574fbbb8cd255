"""A product that a small detector can learn in seconds: grey noise of three shapes, with bright blots and dark lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from parameters import BARE, bare, file_text

from cadiff.detection import train_seed
from cadiff.params import Params, load_params
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, Role, SampleRow, to_table
from cadiff.storage import encode_png, sha256_bytes, write_image, write_table
from cadiff.task import Task

SIZE = 32  # px of the shorter side
CALIBRATION = 15  # normals that set the threshold
SHAPES = ((32, 32), (32, 48), (44, 32))  # in turn


@dataclass(frozen=True)
class Toy:
    params: Params
    samples: list[SampleRow]
    generated: Path


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CADIFF_QUIET", "1")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    samples = [_sample(root, f"normal-{k}", "normal", None, *_draw(rng, None, k)) for k in range(8)]
    samples += [_sample(root, f"good-{k}", "test_good", None, *_draw(rng, None, k)) for k in range(4)]
    for name in ("blot", "line"):
        samples += [_sample(root, f"{name}-{k}", "held_out", name, *_draw(rng, name, k)) for k in range(4)]
    # Only train normals and, when scoring, test images may be read: an exemplar that is not there proves it.
    samples.append(SampleRow("x", "toy", "cube", "blot", "exemplar", str(root / "no.png"), None, 32, 32, "x"))
    for name, count in (("blot", 12), ("line", 3)):
        rows = [_generated(f"{name}-{k}", [name], *_draw(rng, name, k)) for k in range(count)]
        write_table(root / "generated" / f"{name}.parquet", to_table(rows, GENERATED_SCHEMA))
    params = bare(
        products={"cube": {}},
        dataset={"size": SIZE},
        base={"size": SIZE, "device": "cpu"},
        metrics={"size": SIZE},
        detector={"width": 4, "epochs": 12, "samples_per_epoch": 40, "learning_rate": 3e-3},
    )
    return Toy(params, samples, root / "generated")


@dataclass(frozen=True)
class Inspected:
    """A trained, calibrated toy, laid out as the pipeline lays it out below ``root``; ``training`` is its checkpoints' folder."""

    params: Params
    samples: list[SampleRow]
    generated: Path
    root: Path
    detector: Path
    training: Path


@pytest.fixture(scope="session")
def inspected(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    root = tmp_path_factory.mktemp("inspected")
    rng = np.random.default_rng(1)
    kept = [_sample(root, f"kept-{k}", "calibration", None, *_draw(rng, None, k)) for k in range(CALIBRATION)]
    values = {
        **BARE, "products": {"cube": {}, "ball": {}},
        "methods": {"generators": [], "synthesizers": ["exemplars"], "unions": [], "detectors": []},
        "dataset": {**BARE["dataset"], "size": SIZE, "root": str(root / "raw"), "calibration": 0.2}, "draw": {"products": []},
        "base": {**BARE["base"], "size": SIZE, "device": "cpu"}, "metrics": {"size": SIZE}, "detector": toy.params.detector.model_dump(),
        "classifier": {"epochs": 5, "learning_rate": 3e-4},
    }  # fmt: skip
    (root / "params.yaml").write_text(file_text(values))
    params, samples = load_params(root / "params.yaml").for_product("cube"), [*toy.samples, *kept]
    detector = root / "data" / "made" / "detectors" / "exemplars" / "cube"
    train_seed(Task(params, "cube", "exemplars", samples), [toy.generated], 0, detector, root / "work")
    return Inspected(params, samples, toy.generated, root, detector, root / "work")


@pytest.fixture
def good_row():
    """Builds the row of a normal image that took the generator's path: all of one colour, to be known by."""
    normal = np.zeros((SIZE, SIZE), bool)
    return lambda value: _generated(f"good-{value}", [], np.full((SIZE, SIZE, 3), value, np.uint8), normal)


@pytest.fixture
def make_row():
    """Builds a row from its name, types and PNG bytes of image and mask."""
    return _row


def _draw(rng: np.random.Generator, kind: str | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    shape = SHAPES[k % len(SHAPES)]
    image = rng.integers(100, 140, (*shape, 3), dtype=np.uint8)
    mask = np.zeros(shape, bool)
    row, column = rng.integers(2, SIZE - 12, 2)
    if kind == "blot":
        mask[row : row + 8, column : column + 8] = True
        image[mask] = rng.integers(215, 246, (64, 3))  # no blot is another's copy
    elif kind == "line":
        mask[row : row + 3, 2:-2] = True
        image[mask] = 20
    return image, mask


def _sample(
    root: Path, name: str, role: Role, kind: str | None, image: np.ndarray, mask: np.ndarray
) -> SampleRow:
    path, mask_path = root / f"{name}.png", root / f"{name}-mask.png"
    write_image(path, image)
    write_image(mask_path, (mask * 255).astype(np.uint8))
    shown = str(mask_path) if kind else None
    height, width = mask.shape
    return SampleRow(name, "toy", "cube", kind, role, str(path), shown, width, height, sha256_bytes(image.tobytes()))


def _generated(name: str, kinds: list[str], image: np.ndarray, mask: np.ndarray) -> GeneratedRow:
    png, mask_png = encode_png(image), encode_png((mask * 255).astype(np.uint8))
    return _row(name, kinds, png, mask_png)


def _row(name: str, kinds: list[str], png: bytes, mask_png: bytes) -> GeneratedRow:
    return GeneratedRow(
        sample_id=name, product="cube", anomaly_types=kinds, image={"bytes": png, "path": "image.png"},
        mask={"bytes": mask_png, "path": "mask.png"}, mask_source="drawn", prompt=None, intensity=None, seed=0, steps=None,
        guidance_scale=None, focus_step=None, normal_id=None, exemplar_ids=[None] * len(kinds), base_digest=None,
        generator_digest=None, params_digest="none", image_sha256=sha256_bytes(png),
    )  # fmt: skip
