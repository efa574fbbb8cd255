"""A product that a small detector can learn in seconds: grey noise, with bright blots and dark lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cadiff.params import Params
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, Role, SampleRow, to_table
from cadiff.storage import encode_png, sha256_bytes, write_image, write_table

SIZE = 32


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
    samples = [_sample(root, f"normal-{k}", "normal", None, *_draw(rng, None)) for k in range(8)]
    samples += [_sample(root, f"good-{k}", "test_good", None, *_draw(rng, None)) for k in range(4)]
    for name in ("blot", "line"):
        samples += [_sample(root, f"{name}-{k}", "held_out", name, *_draw(rng, name)) for k in range(4)]
    # Only train normals and, when scoring, test images may be read: an exemplar that is not there proves it.
    samples.append(SampleRow("x", "toy", "cube", "blot", "exemplar", str(root / "no.png"), None, 32, 32, "x"))
    for name, count in (("blot", 12), ("line", 3)):
        rows = [_generated(f"{name}-{k}", [name], *_draw(rng, name)) for k in range(count)]
        write_table(root / "generated" / f"{name}.parquet", to_table(rows, GENERATED_SCHEMA))
    params = Params(
        products={"cube": {}},
        base={"size": SIZE, "device": "cpu"},
        detector={"width": 4, "epochs": 12, "samples_per_epoch": 40, "learning_rate": 3e-3},
    )
    return Toy(params, samples, root / "generated")


@pytest.fixture
def good_row():
    """Builds the row of a normal image that took the generator's path: all of one colour, to be known by."""
    normal = np.zeros((SIZE, SIZE), bool)
    return lambda value: _generated(f"good-{value}", [], np.full((SIZE, SIZE, 3), value, np.uint8), normal)


def _draw(rng: np.random.Generator, kind: str | None) -> tuple[np.ndarray, np.ndarray]:
    image = rng.integers(100, 140, (SIZE, SIZE, 3), dtype=np.uint8)
    mask = np.zeros((SIZE, SIZE), bool)
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
    return SampleRow(
        name, "toy", "cube", kind, role, str(path), shown, SIZE, SIZE, sha256_bytes(image.tobytes())
    )


def _generated(name: str, kinds: list[str], image: np.ndarray, mask: np.ndarray) -> GeneratedRow:
    png, mask_png = encode_png(image), encode_png((mask * 255).astype(np.uint8))
    return GeneratedRow(
        name, "cube", kinds, {"bytes": png, "path": "image.png"}, {"bytes": mask_png, "path": "mask.png"},
        "drawn", None, None, 0, None, None, None, None, None, "none", sha256_bytes(png),
    )  # fmt: skip
