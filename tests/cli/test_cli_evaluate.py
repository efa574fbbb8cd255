"""`cadiff evaluate` on exported shards must find what the pipeline's own stage finds on the shards themselves."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from parameters import BARE, file_text, over
from PIL import Image

from cadiff.cli import main
from cadiff.evaluate import dataset_at, metrics_table
from cadiff.metrics.generated import IC_LPIPS, IS
from cadiff.params import load_params
from cadiff.records import METRIC_SCHEMA, MetricRow
from cadiff.stages import run_stage
from cadiff.storage import read_image, read_table, write_image

METHOD = "exemplars"
VALUES: dict[str, Any] = over(BARE, {
    "seed": 3,
    "products": {"nut": {"detector": {"seeds": [0, 1]}}},
    "methods": {"generators": [], "synthesizers": [METHOD], "unions": [], "detectors": []},
    "base": {"size": 32, "device": "cpu"},
    "generate": {"per_type": 4},
    "detector": {"width": 4, "epochs": 1, "samples_per_epoch": 16},
    "classifier": {"epochs": 1},
})  # fmt: skip


@pytest.fixture(scope="module")
def piped(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose pipeline ran for one method, and that method's shards exported to ``exported/exemplars``."""
    root = tmp_path_factory.mktemp("piped")
    values = over(VALUES, {"dataset": {"name": "drawn", "layout": "mvtec", "root": str(drawn_root), "size": 32}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Path("params.yaml").write_text(file_text(values))
        params = load_params()
        for stage, method in (("samples", ""), ("synthesize", METHOD), ("detect", METHOD)):
            run_stage(stage, params, "nut", method)
        assert call("export", f"exported/{METHOD}", "--product", "nut", "--method", METHOD) == 0
    return root


@pytest.fixture(autouse=True)
def repository(piped: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(piped)
    return piped


def call(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def to_plain(exported: Path, out: Path) -> Path:
    """The other layout: each mask beside its image."""
    for image in sorted((exported / "nut" / "test").rglob("*.png")):
        kind = image.parent.name
        mask = exported / "nut" / "ground_truth" / kind / f"{image.stem}_mask.png"
        (out / "nut" / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, out / "nut" / kind / image.name)
        if kind != "good":
            shutil.copy(mask, out / "nut" / kind / mask.name)
    return out


def write_params(folder: Path, **changes: Any) -> str:
    """A file with the repository's parameters but for the changes."""
    path = folder / "params.yaml"
    values = over(VALUES, {"dataset": yaml.safe_load(Path("params.yaml").read_text())["dataset"]})
    path.write_text(file_text(over(values, changes)))
    return str(path)


def figures(path: Path) -> list[tuple[str, int, float, int]]:
    rows = read_table(path, METRIC_SCHEMA).to_pylist()
    assert {(row["method"], row["product"], row["dataset"]) for row in rows} == {(METHOD, "nut", "drawn")}
    return [(row["metric"], row["seed"], pytest.approx(row["value"], nan_ok=True), row["n"]) for row in rows]


@pytest.mark.parametrize("layout", ["mvtec", "plain"])
def test_figures_are_the_pipelines_own(
    layout: str, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("exported") / METHOD
    if layout == "plain":
        folder = to_plain(folder, tmp_path / METHOD)
        for name in ("rows.parquet", "scenes.json"):  # as `cadiff generate` leaves them beside its images
            (folder / "nut" / "rust" / name).touch()
        (folder / "nut" / "rust" / "masks" / "rust").mkdir(parents=True)
    # nothing listens there: a call that sent its parts to the cluster would fail
    words = ("--params", write_params(tmp_path, cluster="tcp://127.0.0.1:1"), "--out", str(tmp_path / "m.parquet"))
    assert call("evaluate", str(folder), "--against", str(drawn_root), *words) == 0
    assert figures(tmp_path / "m.parquet") == figures(Path("data/made/evaluated") / METHOD / "nut" / "metrics.parquet")
    table = capsys.readouterr().out
    for metric in ("pixel_auroc", "pixel_ap", "pixel_f1max", "pro", "image_auroc", "image_ap", "is(", "ic_lpips("):
        assert metric in table
    assert "Caution" not in table


def test_a_folder_without_the_generators_normals_is_told_what_that_may_mean(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = to_plain(Path("exported") / METHOD, tmp_path / METHOD)
    shutil.rmtree(folder / "nut" / "good")
    assert call("evaluate", str(folder), "--against", str(drawn_root), "--seeds", "0") == 0
    assert "Caution: nut brought no normal images that took the generator’s path" in capsys.readouterr().out


def test_copies_of_what_is_scored_are_told_before_anything_is_trained(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(drawn_root / "nut", tmp_path / "root/nut")
    held_out, copy = max((tmp_path / "root/nut/test/rust").iterdir()), tmp_path / "root/nut/train/good/copy.bmp"
    Image.open(held_out).save(copy)
    words = ("evaluate", str(Path("exported") / METHOD), "--against", str(tmp_path / "root"), "--seeds", "0")
    assert call(*words) == 0
    said = capsys.readouterr()
    assert "nut: 1 images to be scored are copies of train normals or exemplars: their scores prove nothing; remove either of" in said.err
    assert f"{held_out} (rust, held out) shows the same pixels as {copy} (train normal" in said.err
    assert "pixel_ap" in said.out, "it is a remark: what is scored is the user's to say"
    copy.unlink()  # as it says
    assert call(*words) == 0
    assert "copies" not in capsys.readouterr().err


def test_a_product_that_the_parameters_do_not_have(drawn_root: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn_root / "nut", tmp_path / "root" / "bolt")
    to_plain(Path("exported") / METHOD, tmp_path / "images")
    (tmp_path / "images" / "nut").rename(tmp_path / "images" / "bolt")
    words = ("--against", str(tmp_path / "root"), "--seeds", "5", "--out", str(tmp_path / "m.parquet"))
    assert call("evaluate", str(tmp_path / "images"), *words) == 0
    rows = read_table(tmp_path / "m.parquet", METRIC_SCHEMA).to_pylist()
    assert {(row["dataset"], row["product"], row["method"]) for row in rows} == {("root", "bolt", "images")}
    assert {row["metric"] for row in rows} >= {"pixel_ap", "pixel_ap/rust", IS, IC_LPIPS}
    assert {row["seed"] for row in rows if row["metric"] == "pixel_ap"} == {5}


def test_a_filter_is_said_and_judges_any_folder_whatever_its_name(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, own = {"min_normal_distance": 1e-6}, {"nut": {"detector": {"seeds": [0]}}}
    detector = {"protocol": "filtered"}
    words = ("--params", write_params(tmp_path, products=own, detector=detector, filter=rules), "--out", str(tmp_path / "m.parquet"))
    assert call("evaluate", str(Path("exported") / METHOD), "--against", str(drawn_root), *words) == 0
    rows = {row["metric"]: row for row in read_table(tmp_path / "m.parquet", METRIC_SCHEMA).to_pylist()}
    made = rows[IS]["n"]
    assert (rows["images_kept"]["value"], rows["images_kept"]["n"], rows["pixel_ap"]["protocol"]) == (1, made, "filtered")
    table = capsys.readouterr().out
    assert "protocol: filtered" in table
    assert "images_kept" in table


@pytest.mark.slow
def test_the_published_evaluation_is_made_beside_where_it_is_asked_for(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, detector = {"nut": {"detector": {"seeds": [0]}}}, {**VALUES["detector"], "published": True}
    words = ("--params", write_params(tmp_path, products=own, detector=detector), "--out", str(tmp_path / "m.parquet"))
    assert call("evaluate", str(Path("exported") / METHOD), "--against", str(drawn_root), *words) == 0
    rows = read_table(tmp_path / "m.parquet", METRIC_SCHEMA).to_pylist()
    told = {protocol: {row["metric"] for row in rows if row["protocol"] == protocol} for protocol in ("strict", "legacy")}
    assert "pixel_ap" in told["strict"] & told["legacy"]
    assert sum(name.startswith("ic_lpips(") and "/" not in name for name in told["legacy"]) > 1
    strict = [(row["metric"], row["value"]) for row in rows if row["protocol"] == "strict"]
    piped = read_table(Path("data/made/evaluated") / METHOD / "nut" / "metrics.parquet", METRIC_SCHEMA).to_pylist()
    assert strict == [(row["metric"], pytest.approx(row["value"], nan_ok=True)) for row in piped if row["seed"] in (0, 3)]
    table = capsys.readouterr().out
    assert table.index("protocol: strict") < table.index("protocol: legacy"), "a table each"


def test_the_table_names_each_products_protocol() -> None:
    rows = [
        MetricRow("d", product, "m", "unet", "pixel_ap", 0.5, 0, 4, protocol, None, "")
        for product, protocol in (("nut", "filtered"), ("bolt", "strict"))
    ]
    assert metrics_table(rows[:1]).title == "protocol: filtered"
    assert metrics_table(rows).title == "protocol: filtered (nut), strict (bolt)"


def test_maps_of_another_detector(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for image in sorted((drawn_root / "nut" / "test").rglob("*.png")):
        kind, mask = image.parent.name, drawn_root / "nut" / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        pixels = read_image(mask, "L") if kind != "good" else read_image(image, "L") * 0
        write_image(tmp_path / "rd4ad" / "nut" / "test" / kind / image.name, pixels)
    words = ("evaluate", "--maps", str(tmp_path / "rd4ad"), "--against", str(drawn_root))
    assert call(*words, "--out", str(tmp_path / "m.parquet")) == 0
    rows = {row["metric"]: row for row in read_table(tmp_path / "m.parquet", METRIC_SCHEMA).to_pylist()}
    assert (rows["pixel_ap"]["value"], rows["pixel_ap"]["method"]) == (pytest.approx(1, abs=0.02), "rd4ad")
    assert "pixel_ap" in capsys.readouterr().out
    shipped = Path(__file__).resolve().parents[2] / "params.yaml"
    assert call(*words, "--params", str(shipped)) == 0, "the demo's own parameters score anyone's images"
    capsys.readouterr()
    assert call(*words, "--out", str(tmp_path)) == 2
    assert "expected a file's name, found a folder" in capsys.readouterr().err
    assert call(*words, "--seeds", "1") == 2
    assert "--seeds: anomaly maps are scored as they are" in capsys.readouterr().err


def error_of(capsys: pytest.CaptureFixture[str], folder: Path, root: Path, *words: str) -> str:
    assert call("evaluate", str(folder), "--against", str(root), *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_an_image_that_is_scored_on_is_refused(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "which the detector is scored on" in error_of(capsys, drawn_root, drawn_root)
    folder = to_plain(Path("exported") / METHOD, tmp_path / "images")
    held_out = max((drawn_root / "nut" / "test" / "rust").iterdir())
    shutil.copy(held_out, folder / "nut" / "rust" / "0000.png")
    shutil.copy(max((drawn_root / "nut" / "ground_truth" / "rust").iterdir()), folder / "nut" / "rust" / "0000_mask.png")
    assert str(held_out) in error_of(capsys, folder, drawn_root)
    Image.open(held_out).convert("RGB").save(folder / "nut" / "rust" / "0000.bmp")
    (folder / "nut" / "rust" / "0000.png").unlink()
    assert str(held_out) in error_of(capsys, folder, drawn_root), "the same pixels in another file"


def test_nothing_of_the_folder_is_skipped_without_a_word(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = to_plain(Path("exported") / METHOD, tmp_path / "images")
    nut = folder / "nut"
    for stray in ("stray.png", "rust/010.webp", "hole/000.webp", "dent/image/000.png"):
        (nut / stray).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(nut / "rust" / "0000.png", nut / stray)
        assert str(nut / stray.removesuffix("/000.png")) in error_of(capsys, folder, drawn_root)
        shutil.rmtree(nut / stray.split("/")[0]) if not stray.startswith(("stray", "rust")) else (nut / stray).unlink()
    (nut / "rust").rename(nut / "Rust")
    assert "the data set spells this type 'rust', found 'Rust'" in error_of(capsys, folder, drawn_root)
    (nut / "test").mkdir()
    assert "not read beside" in error_of(capsys, folder, drawn_root)


def test_problems_name_the_file(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = to_plain(Path("exported") / METHOD, tmp_path / "images")
    rust = folder / "nut" / "rust"
    mask = rust / "0001_mask.png"
    pixels = read_image(mask, "L")
    write_image(mask, pixels[:16])
    assert f"{mask}: expected 32x32 as" in error_of(capsys, folder, drawn_root)
    mask.unlink()
    assert f"0001.png: image without a mask; expected {mask}" in error_of(capsys, folder, drawn_root)
    write_image(mask, pixels)
    (rust / "0002.png").unlink()
    assert "0002_mask.png: mask without an image" in error_of(capsys, folder, drawn_root)
    (rust / "0002_mask.png").unlink()
    shutil.copy(rust / "0003.png", rust / "0003.jpg")
    assert "a second image named 0003" in error_of(capsys, folder, drawn_root)
    (rust / "0003.jpg").unlink()
    assert "no product 'cup' here" in error_of(capsys, folder, drawn_root, "--product", "cup")
    assert f"{tmp_path}/nowhere: expected PRODUCT/<type>/ with images and masks, but it is not there" in error_of(
        capsys, tmp_path / "nowhere", drawn_root
    )
    (tmp_path / "none").mkdir()
    assert f"{tmp_path}/none: expected PRODUCT/<type>/" in error_of(capsys, tmp_path / "none", drawn_root)
    assert "nut: expected anomalies in" in error_of(capsys, tmp_path / "none", drawn_root, "--product", "nut")
    folder.rename(tmp_path / "spelt")
    (tmp_path / "spelt" / "nut").rename(tmp_path / "spelt" / "metal nut")
    assert "'metal nut' cannot name a product: expected letters" in error_of(capsys, tmp_path / "spelt", drawn_root)


def test_another_root_is_read_as_the_parameters_say(tmp_path: Path) -> None:
    """Its pictures may have more than 8 bits a channel; the error that says so names ``dataset.range``, which has to help."""
    params = load_params()
    own = params.dataset.model_copy(update={"range": (0.0, 4095.0), "size": 64, "calibration": 0.1})
    found = dataset_at(params.model_copy(update={"dataset": own}), tmp_path, "mvtec")
    assert (found.root, found.range, found.size, found.calibration) == (str(tmp_path), (0.0, 4095.0), 64, 0.1)
