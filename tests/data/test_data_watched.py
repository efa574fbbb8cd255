"""What a stage reads is what it names as a dependency: a change of any file makes something run again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from parameters import file_text, over, values_of
from PIL import Image

from cadiff.data import read_samples
from cadiff.params import TABLES, DatasetParams, Layout, load_params, write_settings
from cadiff.stages import content_digest
from cadiff.storage import mask_files

ROOT = Path(__file__).resolve().parents[2]
PRODUCTS: dict[Layout, str] = {"mvtec": "nut", "visa": "candle", "loco": "box", "folder": "gear"}
TRACED = """
import json, sys
opened = set()
sys.addaudithook(lambda event, args: opened.add(args[0]) if event == "open" and isinstance(args[0], str) else None)
from cadiff.params import load_params
from cadiff.stages import run_stage
for layout, product in json.loads(sys.argv[1]).items():
    run_stage("samples", load_params(f"{layout}.yaml"), product)
print(json.dumps(sorted(opened)))
"""


@pytest.fixture
def roots(mvtec_root: Path, visa_root: Path, loco_root: Path, folder_root: Path) -> dict[Layout, Path]:
    return {"mvtec": mvtec_root, "visa": visa_root, "loco": loco_root, "folder": folder_root}


def dataset(layout: Layout, root: Path) -> DatasetParams:
    return DatasetParams(layout=layout, root=str(root), table=TABLES.get(layout, "."), calibration=0.0)


def checkout(root: Path, roots: dict[Layout, Path]) -> None:
    """What DVC needs of a checkout to look at the stage ``samples``, with the parameters of each layout."""
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["samples"]["deps"]
    for name in ("dvc.yaml", ".dvcignore", ".dvc/config", *(dep for dep in deps if dep.startswith("cadiff/"))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    (root / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    for layout, product in PRODUCTS.items():
        own = {"layout": layout, "root": str(roots[layout]), "table": TABLES.get(layout, ".")}
        (root / f"{layout}.yaml").write_text(file_text(over(values_of("own-data"), {"dataset": own, "products": {product: {}}})))


def test_dvc_sees_a_change_of_every_file_that_was_opened(
    roots: dict[Layout, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    where = tmp_path / "checkout"
    checkout(where, roots)
    monkeypatch.chdir(where)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".site"))
    away = tmp_path / "away.png"  # a link to a file is followed, and so is the product's own folder
    first = roots["mvtec"] / "nut/train/good/000.png"
    first.rename(away)
    first.symlink_to(away)
    (roots["visa"] / "candle").rename(tmp_path / "candle")
    (roots["visa"] / "candle").symlink_to(tmp_path / "candle")
    done = subprocess.run([sys.executable, "-c", TRACED, json.dumps(PRODUCTS)], capture_output=True, text=True, check=True)
    opened = json.loads(done.stdout.splitlines()[-1])
    for layout, product in PRODUCTS.items():
        shutil.copy(f"{layout}.yaml", "params.yaml")
        write_settings(load_params())
        files = [Path(path) for path in opened if Path(path).is_relative_to(roots[layout])]
        tables = {path.name for path in files if path.suffix == ".csv"}
        assert tables == {"visa": {"1cls.csv"}, "folder": {"table.csv"}}.get(layout, set())
        assert len(files) > 5, layout
        with Repo() as repo:
            repo.commit(f"samples@{product}", force=True)
        with Repo() as repo, repo.lock:
            (stage,) = repo.stage.collect(f"samples@{product}")
            assert stage.status() == {}
            for file in files:
                content = file.read_bytes()
                file.write_bytes(content + b"\n")
                assert stage.status(), f"{layout}: {file} was read, and DVC does not see that it changed"
                file.write_bytes(content)
            assert stage.status() == {}


@pytest.mark.parametrize("layout", PRODUCTS)
def test_rows_change_with_every_image_and_mask(roots: dict[Layout, Path], layout: Layout) -> None:
    """So that stages which name the rows alone run again where what they read has changed."""
    values = dataset(layout, roots[layout])
    before = read_samples(values, PRODUCTS[layout])
    chosen = {row.role: row for row in before}.values()
    files = [file for row in chosen for path in (row.image_path, row.mask_path) if path for file in mask_files(path)]
    assert len(files) >= 4
    for file in files:
        content = file.read_bytes()
        with Image.open(file) as image:
            image.putpixel((7, 5), (1, 2, 3) if image.mode == "RGB" else 0)
            image.save(file)
        assert read_samples(values, PRODUCTS[layout]) != before, file
        file.write_bytes(content)
    assert read_samples(values, PRODUCTS[layout]) == before


def test_litter_changes_no_row(mvtec_root: Path) -> None:
    before = read_samples(dataset("mvtec", mvtec_root), "nut")
    for folder in [mvtec_root / "nut", *(path for path in (mvtec_root / "nut").rglob("*") if path.is_dir())]:
        (folder / ".DS_Store").write_bytes(b"litter")
    assert read_samples(dataset("mvtec", mvtec_root), "nut") == before


def test_the_rows_stand_for_the_data_in_every_stage_but_that_which_makes_them() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    naming = {name for name, stage in graph.items() if any("dataset.root" in dep for dep in stage["deps"])}
    assert naming == {"samples"}
    reading = {name for name, stage in graph.items() if "data/made/samples/${item.product}.parquet" in stage["deps"]}
    assert reading == set(graph) - {"settings", "draw", "samples", "report"}


@pytest.mark.parametrize(
    ("change", "sees"), [(lambda text: text, False), (lambda text: text.replace("train,normal,candle", "test,normal,candle", 1), True)]
)
def test_an_edited_split_is_read(visa_root: Path, change: Callable[[str], str], sees: bool) -> None:
    before = read_samples(dataset("visa", visa_root), "candle")
    table = visa_root / "split_csv/1cls.csv"
    digest = content_digest(table)
    table.write_text(change(table.read_text()))
    assert (read_samples(dataset("visa", visa_root), "candle") != before) == sees == (content_digest(table) != digest)
