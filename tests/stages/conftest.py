"""A repository with a tiny data set of one's own, ready for `dvc repro`: all that the peers' stages need."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from parameters import file_text, values_of

from cadiff.storage import write_image

ROOT = Path(__file__).resolve().parents[2]


def draw_plates(root: Path, product: str, seed: int) -> None:
    """Grey plates in MVTec AD layout: 6 normals, 3 good ones for testing, 6 with a dark spot."""
    rng = np.random.default_rng(seed)
    for index in range(15):
        plate = rng.integers(120, 160, (64, 64, 3), dtype=np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        folder = "train/good" if index < 6 else "test/good" if index < 9 else "test/spot"
        if folder == "test/spot":
            y, x = rng.integers(10, 44, 2)
            mask[y : y + 10, x : x + 10] = 255
            plate[mask > 0] = 20
            write_image(root / product / "ground_truth" / "spot" / f"{index:03}_mask.png", mask)
        write_image(root / product / folder / f"{index:03}.png", plate)


@pytest.fixture
def repository(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: dvc.yaml and the package as they are, the smallest parameters, and raw data
    outside the repository."""
    root, raw = tmp_path / "repository", tmp_path / "raw"
    for seed, product in enumerate(("plate", "tray")):
        draw_plates(raw, product, seed)
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for folder in ("cadiff", "presets"):
        shutil.copytree(ROOT / folder, root / folder, ignore=skip)
    for name in ("dvc.yaml", ".dvcignore", "data/ablations/README.md", "data/masks/README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    (root / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    values = values_of("smoke")
    values["dataset"] |= {"name": "plates", "layout": "mvtec", "root": str(raw), "size": 32}
    values["draw"]["products"] = []
    values["products"] = {"plate": {}, "tray": {"detector": {"samples_per_epoch": 8}}}
    values["methods"] = {"generators": [], "synthesizers": ["exemplars"], "unions": [], "detectors": []}
    values["ship"]["methods"] = ["exemplars"]
    values["base"] |= {"path": str(tiny_base), "size": 32}
    values["metrics"]["size"] = 64
    (root / "params.yaml").write_text(file_text(values))
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".site"))
    monkeypatch.setenv("CADIFF_QUIET", "1")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return root
