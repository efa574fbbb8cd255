"""The shipped folder itself: the same bytes, whole or not at all, and a card that tells what was measured."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import yaml
from parameters import bare, file_text
from shipping_plates import Product, of_role

from cadiff.cli import main as cadiff
from cadiff.detection import load_detector
from cadiff.errors import CADiffError, UsageError
from cadiff.records import GENERATED_SCHEMA, METRIC_SCHEMA, SAMPLE_SCHEMA, MetricRow, from_table, to_table
from cadiff.reporting import take_away
from cadiff.shipping import pace_of, refit, ship_detector
from cadiff.shipping.folder import RUN
from cadiff.storage import read_json, read_sealed, read_table, sha256_file, sha256_folder, write_table
from cadiff.task import Task
from cadiff.threshold_words import INSTALL

ROOT = Path(__file__).resolve().parents[2]
FILES = {"detector.onnx", "classifier.onnx", "detector.json", "run.py", "README.md"}


def ship(product: Product, out: Path, **changes: Path) -> None:
    folders = {"detector": product.detector, "evaluated": product.evaluated, **changes}
    ship_detector("plate", product.samples, 1, folders["detector"], folders["evaluated"], out)


def test_the_same_detector_gives_the_same_bytes(product: Product, shipped: Path, tmp_path: Path) -> None:
    assert {path.name for path in shipped.iterdir()} == FILES
    ship(product, tmp_path / "again")
    assert sha256_folder(tmp_path / "again") == sha256_folder(shipped)


def test_what_the_folder_says_of_itself(product: Product, shipped: Path) -> None:
    said, trained = read_json(shipped / "detector.json"), read_json(product.detector / "seed-1.json")
    assert {name: said[name] for name in trained} == trained
    assert said["sha256"] == {name: sha256_file(shipped / name) for name in FILES - {"detector.json"}}
    assert read_sealed(shipped / "detector.json") == said
    for name in FILES - {"detector.json", "run.py"}:
        assert str(Path.cwd()).encode() not in (shipped / name).read_bytes(), "where it was made is nobody's business"


def test_the_script_is_short_and_needs_three_packages() -> None:
    text = RUN.read_text()
    assert len(text.splitlines()) <= 60
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            imported |= {name.partition(".")[0] for name in names}
    assert imported - sys.stdlib_module_names == {"numpy", "PIL", "onnxruntime"}


def test_every_page_asks_for_a_pillow_that_the_script_runs_on(shipped: Path, tmp_path: Path) -> None:
    """Image.has_transparency_data came with Pillow 10.1; a shell takes the words as they stand, and writes no file named =10.1."""
    params = bare(products={"nut": {}}, methods=["exemplars"], ship={"methods": ["exemplars"]})
    report = take_away.commands(params, "exemplars", "nut", "x")[-1][1]
    for text in ((shipped / "README.md").read_text(), (ROOT / "README.md").read_text(), report):
        assert text.count("pip install") == text.count(INSTALL) == 1
    said = subprocess.run(["sh", "-c", f"echo {INSTALL}"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert said[2:] == ["numpy", "pillow>=10.1", "onnxruntime"]
    assert not any(tmp_path.iterdir())


def test_pictures_are_timed_without_a_trace_in_the_folder(product: Product, shipped: Path, tmp_path: Path) -> None:
    before = sha256_folder(shipped)
    pace = pace_of(shipped, "plate", product.samples)
    assert pace is not None
    assert (pace["detector"], pace["pictures"]) == (read_json(shipped / "detector.json")["self"], 5)
    assert 0 < pace["seconds"] < 60
    assert sha256_folder(shipped) == before
    assert pace_of(shipped, "other", product.samples) is None
    (first,) = of_role(product.samples, "calibration")[:1]
    (tmp_path / "cut.png").write_bytes(Path(first.image_path).read_bytes()[:-2000])
    with pytest.raises(CADiffError, match=r"cut.png: expected a picture that the shipped run.py reads"):
        pace_of(shipped, "plate", [replace(first, image_path=str(tmp_path / "cut.png"))])
    assert pace_of(shipped, "plate", [replace(first, image_path=str(tmp_path / "absent.png"))]) is None


def test_a_folder_that_holds_something_is_left_alone(product: Product, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="expected a new or empty folder, found files"):
        ship(product, tmp_path)
    with pytest.raises(UsageError, match="expected a new or empty folder"):
        ship(product, tmp_path / "mine.txt")
    (tmp_path / "empty").mkdir()
    ship(product, tmp_path / "empty")
    assert {path.name for path in (tmp_path / "empty").iterdir()} == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "empty"}


def test_the_folder_that_one_is_in_is_refused(product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in it would go on in the one that was replaced, and see nothing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the one that you are in"):
        ship(product, Path())
    ship(product, Path("below"))
    assert {path.name for path in (tmp_path / "below").iterdir()} == FILES


def test_a_broken_detector_leaves_no_folder(product: Product, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(product.detector, broken)
    weights = broken / "classifier-1.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CADiffError, match=r"classifier-1.safetensors: expected a whole safetensors file"):
        ship(product, tmp_path / "out", detector=broken)
    with pytest.raises(CADiffError, match=r"metrics.parquet: expected this file"):
        ship(product, tmp_path / "out", evaluated=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_the_card_has_the_measured_figures(product: Product, shipped: Path) -> None:
    card = (shipped / "README.md").read_text()
    rows = from_table(read_table(product.evaluated / "metrics.parquet", METRIC_SCHEMA), MetricRow)
    shown = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "miss_rate/spot": "spot", "classification_accuracy": "type named right"}
    for name, title in shown.items():
        found = {row.seed: row for row in rows if row.metric == name}
        average, own = (f"{100 * value:.1f}\u202f%" for value in (mean(row.value for row in found.values()), found[1].value))
        assert f"| {title} | {average} | {own} | {found[1].n} |" in card
    threshold = read_json(shipped / "detector.json")["image"]
    assert f"above {threshold['value']:.6g}. {threshold['normals']} calibration normals set that" in card
    assert f"which takes {threshold['missing']} more calibration normals" in card
    assert "protocol: strict" in card
    assert "| good, trained on | 6 |" in card
    assert "once more" not in card


def test_the_card_tells_other_pictures_by_their_digest(product: Product, shipped: Path, tmp_path: Path) -> None:
    changed = [replace(row, image_sha256="0" * 64) if row.role == "held_out" else row for row in product.samples]
    ship_detector("plate", changed, 1, product.detector, product.evaluated, tmp_path / "out")
    lines = zip(*((folder / "README.md").read_text().splitlines() for folder in (shipped, tmp_path / "out")), strict=True)
    assert [before.startswith("| defective, held out") for before, after in lines if before != after] == [True]


def test_refitting_learns_from_all_but_the_calibration_normals(product: Product, shipped: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "detector", tmp_path / "work"
    legacy = product.params.model_copy(update={"detector": product.params.detector.model_copy(update={"protocol": "legacy"})})
    refit(Task(legacy.for_product("plate"), "plate", "exemplars", product.samples), 1, {"exemplars": product.generated}, out, work)
    drawn = [row for path in sorted((work / "exemplars").glob("*.parquet")) for row in read_table(path, GENERATED_SCHEMA).to_pylist()]
    used = {row["mask_source"].partition(":")[2] for row in drawn}
    assert used & {row.sample_id for row in of_role(product.samples, "held_out")}
    assert used & {row.sample_id for row in of_role(product.samples, "test_good")}
    assert not used & {row.sample_id for row in of_role(product.samples, "calibration")}
    trained = load_detector(out, 1, "cpu").trained
    assert trained.thresholds is not None
    assert trained.thresholds.image.normals == len(of_role(product.samples, "calibration"))
    assert trained.made_by == load_detector(product.detector, 1, "cpu").trained.made_by, "drawn in the same way"
    said = ship_detector("plate", product.samples, 1, out, product.evaluated, tmp_path / "out", refitted=True)
    card = (tmp_path / "out" / "README.md").read_text()
    assert said["refitted"]
    assert said["sha256"]["detector.onnx"] != read_json(shipped / "detector.json")["sha256"]["detector.onnx"]
    assert "Trained once more on all labelled pictures" in card
    assert "the evaluated detector (seed 1)" in card


@pytest.fixture
def trained(product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory as the pipeline leaves it."""
    monkeypatch.chdir(tmp_path)
    for source, place in ((product.detector, "detectors"), (product.evaluated, "evaluated"), (product.generated, "generated")):
        shutil.copytree(source, tmp_path / "data/made" / place / "exemplars/plate")
    write_table(tmp_path / "data/made/samples/plate.parquet", to_table(product.samples, SAMPLE_SCHEMA))
    values = product.params.model_dump(mode="json", exclude={"methods"})
    values["methods"] = {"generators": [], "synthesizers": ["exemplars"], "unions": [], "detectors": []}
    values["dataset"]["root"] = "raw"
    (tmp_path / "params.yaml").write_text(file_text(values))
    return tmp_path


def code_of(*call: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        cadiff(list(call))
    return ended.value.code


def test_the_command(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("ship", "plate", "--out", "away", "--seed", "1") == 0
    said = capsys.readouterr().out
    assert "away: plate, exemplars, seed 1, " in said
    assert INSTALL in said
    assert {path.name for path in Path("away").iterdir()} == FILES
    assert code_of("ship", "plate", "--out", "refitted", "--refit") == 0
    assert read_json("refitted/detector.json")["seed"] == 0, "the first of detector.seeds"
    assert read_json("refitted/detector.json")["refitted"]
    kept = next(Path(".cadiff/work/ship").iterdir())
    assert kept.name.startswith("plate-exemplars-"), "what a stopped one goes on from"


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        (("cup", "--out", "away"), 2, "products.cup: not in the parameters"),
        (("plate", "--out", "raw/away"), 2, "lies in the data set"),
        (("plate", "--out", "data"), 2, "expected a new or empty folder"),
        (("plate", "--out", "away", "--method", "patchcore"), 2, "patchcore: expected a method that trains a detector"),
        (("plate", "--out", "away", "--seed", "7"), 2, "has no such detector"),
    ],
)
def test_wrong_calls(trained: Path, capsys: pytest.CaptureFixture[str], call: tuple[str, ...], code: int, said: str) -> None:
    assert code_of("ship", *call) == code
    assert said in capsys.readouterr().err
    assert not Path("away").exists()


def test_a_product_without_a_trained_detector(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("data/made/detectors")
    assert code_of("ship", "plate", "--out", "away") == 1
    assert "plate has no trained detector of exemplars yet. `dvc repro` trains it" in capsys.readouterr().err


def test_refitting_with_other_parameters_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its card would say that it was trained as the one that was measured."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["detector"]["epochs"] += 1
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert code_of("ship", "plate", "--out", "away", "--refit") == 2
    assert "run `dvc repro` first" in capsys.readouterr().err
    assert not Path("away").exists()
