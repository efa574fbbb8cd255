"""`cadiff generate` on a small random base that was trained for a few steps: real components throughout."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from parameters import BARE, file_text, over
from PIL import Image

from cadiff.cli import main
from cadiff.generator import adapt_base, train_generator
from cadiff.params import load_params
from cadiff.records import GENERATED_SCHEMA, SAMPLE_SCHEMA, SampleRow, to_table
from cadiff.storage import decode_image, read_image, read_json, read_table, sha256_folder, write_image, write_table
from cadiff.task import Task

SIDE = 128  # px of the canvas, twice what the base draws
VALUES = over(BARE, {
    "dataset": {"size": SIDE},
    "products": {"nut": {}, "bolt": {}},
    "methods": {"generators": ["cadiff"], "synthesizers": [], "unions": [], "detectors": []},
    "train": {"steps": 2, "batch": 4},
    "prompt": {"learning_rate": 1e-3},
    "control": {"learning_rate": 1e-3},
    "intensity": {"threshold": 0.0},
    "generate": {"steps": 2, "batch": 2},
})  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_base: Path, nut_samples: list[SampleRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    values = over(VALUES, {"base": {"path": str(tiny_base), "size": 64, "device": "cpu"}})
    (root / "params.yaml").write_text(file_text(values))
    params, made = load_params(root / "params.yaml").for_product("nut"), root / "data" / "made"
    write_table(made / "samples" / "nut.parquet", to_table(nut_samples, SAMPLE_SCHEMA))
    adapted, work = made / "adapted" / "nut", root / "work"
    adapt_base(Task(params, "nut", samples=nut_samples), adapted, work)
    train_generator(Task(params, "nut", "cadiff", nut_samples), adapted, made / "generator" / "cadiff" / "nut", work)
    return root


@pytest.fixture(autouse=True)
def repository(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    write_image("square.png", square(64))
    write_image("empty.png", square(64) * 0)
    write_image("full.png", square(64) * 0 + 255)
    write_image("small.png", square(32))
    write_image("long.png", np.tile(square(64), (1, 9)))
    Image.fromarray(square(64)).save("square.jpg")
    return trained


def square(side: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 255
    return mask


def generate(out: Path, *call: str) -> list[dict]:
    with pytest.raises(SystemExit) as ended:
        main(["generate", "nut", "--out", str(out), *call])
    assert ended.value.code == 0
    return read_table(out / "rows.parquet", GENERATED_SCHEMA).to_pylist()


def test_images_masks_and_rows_that_come_back_identical(tmp_path: Path) -> None:
    call = ("--type", "rust", "--count", "3", "--intensity", "0.5", "1.5")
    rows = generate(tmp_path / "a", *call)
    names = [f"{k:04}{end}.png" for k in range(3) for end in ("", "_mask")]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [*names, "rows.parquet", "scenes.json"]
    assert [row["anomaly_types"] for row in rows] == [["rust"]] * 3
    assert len({row["image_sha256"] for row in rows}) == len({row["intensity"] for row in rows}) == 3
    assert all(0.5 <= row["intensity"] <= 1.5 for row in rows)
    for row in rows:
        assert (tmp_path / "a" / row["image"]["path"]).read_bytes() == row["image"]["bytes"]
        assert 0 < (read_image(tmp_path / "a" / row["mask"]["path"], "L") > 0).mean() < 1
    normals = {Path(scene["background"]).parent.name for scene in read_json(tmp_path / "a" / "scenes.json").values()}
    assert normals == {"good"}
    assert generate(tmp_path / "b", *call) == rows
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "b")
    assert generate(tmp_path / "c", *call, "--seed", "1")[0]["image_sha256"] != rows[0]["image_sha256"]


def test_several_types_in_one_image_each_with_its_mask_and_intensity(tmp_path: Path) -> None:
    (row,) = generate(tmp_path / "a", "--type", "rust", "--type", "scratch", "--steps", "3")
    assert (row["anomaly_types"], row["intensity"], row["steps"]) == (["rust", "scratch"], None, 3)
    own = [read_image(tmp_path / "a" / "masks" / kind / "0000.png", "L") > 0 for kind in ("rust", "scratch")]
    assert not np.array_equal(*own)
    assert np.array_equal(own[0] | own[1], decode_image(row["mask"]["bytes"], "L") > 127)
    (scene,) = read_json(tmp_path / "a" / "scenes.json").values()
    assert set(scene["intensities"]) == {"rust", "scratch"}
    assert scene["intensities"]["rust"] != scene["intensities"]["scratch"]
    own = generate(tmp_path / "c", "--type", "rust", "--type", "scratch", "--w", "rust=-0.5", "--steps", "3")
    (told,) = read_json(tmp_path / "c" / "scenes.json").values()
    assert told["intensities"] == {"rust": -0.5, "scratch": scene["intensities"]["scratch"]}
    assert own[0]["image_sha256"] != row["image_sha256"]
    alike = generate(tmp_path / "b", "--type", "rust", "--type", "scratch", "--intensity", "2", "2")
    assert alike[0]["intensity"] == 2


def test_masks_are_the_files_in_the_order_of_the_types_at_the_canvas(tmp_path: Path) -> None:
    write_image(tmp_path / "large.png", square(256))
    write_image(tmp_path / "other.png", square(64)[::-1].copy())
    masks = ("--mask", str(tmp_path / "large.png"), "--mask", str(tmp_path / "other.png"))
    (row,) = generate(tmp_path / "out", "--type", "scratch", "--type", "chip", *masks)
    assert row["mask_source"] == "files"
    assert np.array_equal(read_image(tmp_path / "out" / "masks" / "scratch" / "0000.png", "L"), square(SIDE))
    assert np.array_equal(read_image(tmp_path / "out" / "masks" / "chip" / "0000.png", "L"), square(SIDE)[::-1])


def test_a_picture_is_healed_from_the_first_step(tmp_path: Path) -> None:
    """The base is random, so that a healed part cannot be seen here; `benchmarks/method.py healing` measures it."""
    plate = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(tmp_path / "plate.png", plate)
    call = ("--type", "rust", "--mask", "square.png", "--on", str(tmp_path / "plate.png"), "--steps", "3")
    healed = generate(tmp_path / "healed", *call, "--intensity", "-1", "-1")[0]
    drawn = generate(tmp_path / "drawn", *call, "--intensity", "1", "1")[0]
    assert (healed["focus_step"], healed["intensity"]) == (0, -1.0)
    images = [decode_image(row["image"]["bytes"], "RGB").astype(int) for row in (healed, drawn)]
    assert np.abs(images[0] - images[1])[32:64, 32:64].max() > 0
    again = generate(tmp_path / "again", *call, "--w", "rust=-1", "--intensity", "0.5", "1.5")[0]
    assert again["image_sha256"] == healed["image_sha256"], "the type's own w goes before the range"


def drawn_on(picture: Path, out: Path, w: str) -> bytes:
    side = read_image(picture).shape[0]
    write_image("fitting.png", square(side))
    call = ("--type", "rust", "--mask", "fitting.png", "--on", str(picture), "--intensity", w, w)
    (row,) = generate(out, *call)
    assert row["intensity"] == float(w)
    (scene,) = read_json(out / "scenes.json").values()
    assert scene == {"background": picture.as_posix(), "intensities": {"rust": float(w)}}
    return row["image"]["bytes"]


def test_what_is_drawn_depends_on_the_given_image_and_on_the_intensity(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 96, dtype=np.uint8), (96, 1))
    for name, plane in (("ramp", ramp), ("again", ramp), ("steep", ramp.T)):
        write_image(tmp_path / f"{name}.png", np.stack([plane] * 3, -1))
    first = drawn_on(tmp_path / "ramp.png", tmp_path / "1", "1")
    assert drawn_on(tmp_path / "again.png", tmp_path / "2", "1") == first
    others = [drawn_on(tmp_path / "steep.png", tmp_path / "3", "1"), drawn_on(tmp_path / "ramp.png", tmp_path / "4", "0")]
    others.append(drawn_on(tmp_path / "ramp.png", tmp_path / "5", "-1"))
    assert len({first, *others}) == 4


def test_masks_are_placed_on_the_given_image(trained: Path, tmp_path: Path) -> None:
    """Not where its product is not, by the rule that keeps to one."""
    values = yaml.safe_load((trained / "params.yaml").read_text())
    (tmp_path / "anywhere.yaml").write_text(yaml.safe_dump({**values, "masks": {"placement": "anywhere"}}))
    plate = np.full((64, 64, 3), 255, np.uint8)
    plate[8:56, 4:28] = 30  # all of the product is on the left
    write_image(tmp_path / "left.png", plate)
    call = ("--type", "rust", "--count", "4", "--on", str(tmp_path / "left.png"), "--params", str(tmp_path / "anywhere.yaml"))
    rows = generate(tmp_path / "out", *call)
    placed = [decode_image(row["mask"]["bytes"], "L")[:, SIDE // 2 :].any() for row in rows]
    assert placed
    assert not any(placed)


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (["cup", "--type", "rust"], 2, "products.cup: not in the parameters; products are nut, bolt"),
        (["bolt", "--type", "rust"], 1, "Run `dvc repro train@bolt-cadiff`."),
        (["nut", "--type", "hole"], 2, "--type hole: nut has no such anomaly type; types are chip, rust, scratch"),
        (["nut", "--type", "rust", "--type", "rust"], 2, "--type rust: expected once, found 2 times"),
        (["nut", "--type", "rust", "--intensity", "1", "0.5"], 2, "--intensity: low (1.0) must not exceed high (0.5)"),
        (["nut", "--type", "rust", "--intensity", "-3", "0"], 2, "--intensity: low: Input should be greater than"),
        (["nut", "--type", "rust", "--type", "chip", "--mask", "square.png"], 2, "(2) or none, found 1"),
        (["nut", "--type", "rust", "--mask", "empty.png"], 2, "empty.png: empty mask"),
        (["nut", "--type", "rust", "--mask", "full.png"], 2, "full.png: every pixel is marked"),
        (["nut", "--type", "rust", "--mask", "square.jpg"], 2, "square.jpg: JPEG blurs a mask's edge"),
        (["nut", "--type", "rust", "--on", "square.png", "--w", "rust=0"], 2, "what is under --mask is healed"),
        (["nut", "--type", "rust", "--on", "square.png", "--intensity", "-1", "1"], 2, "what is under --mask is healed"),
        (["nut", "--type", "rust", "--on", "square.png", "--mask", "small.png"], 2, "small.png: expected 64x64 as square.png"),
        (["nut", "--type", "rust", "--on", "long.png"], 2, "long.png: 576x64; expected sides of at most 8 to 1, found 9"),
        (["nut", "--type", "rust", "--out", "square.png"], 2, "--out square.png: expected a folder, found a file"),
        (["nut", "--type", "rust", "--on", "none.png"], 2, "'none.png' does not exist"),
        (["nut", "--type", "rust", "--w", "chip=1"], 2, "--w chip=1: expected TYPE=W, each TYPE one of this call's"),
        (["nut", "--type", "rust", "--w", "rust=3"], 2, "--w rust=3: expected a number within -2 to 2 after the =, found '3'"),
        (["nut", "--type", "rust", "--w", "rust=much"], 2, "after the =, found 'much'"),
        (["nut", "--type", "rust", "--count", "0"], 2, "Invalid value for '--count'"),
        (["nut"], 2, "Missing option '--type'"),
    ],
)
def test_wrong_calls_are_one_line(call: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["generate", *call, *([] if "--out" in call else ["--out", "nowhere"])])
    error = capsys.readouterr().err
    assert (ended.value.code, message in error, error.count("\n")) == (code, True, 1), error
    assert not Path("nowhere").exists()


def test_missing_artefacts_name_their_stage(trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = trained / "data" / "made" / "generator" / "cadiff" / "nut" / "generator.json"
    moved = record.rename(tmp_path / "generator.json")
    try:
        with pytest.raises(SystemExit):
            main(["generate", "nut", "--type", "rust", "--out", "nowhere"])
    finally:
        moved.rename(record)
    assert "Run `dvc repro train@nut-cadiff`." in capsys.readouterr().err


def test_a_generator_of_other_parameters_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its rows would name a training that never was; where it is computed is none of that."""
    values = yaml.safe_load((trained / "params.yaml").read_text())
    values["train"] = {**values.get("train", {}), "steps": 999}
    (trained / "other.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SystemExit):
        main(["generate", "nut", "--type", "rust", "--params", "other.yaml", "--out", "nowhere"])
    said = "generator.json: trained with train.steps: 2, the parameters say 999. Run `dvc repro train@nut-cadiff`"
    assert said in capsys.readouterr().err
    assert "device" not in str(read_json(trained / "data/made/generator/cadiff/nut/generator.json"))


def test_another_calls_images_are_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "0007.png", square(64))
    with pytest.raises(SystemExit):
        main(["generate", "nut", "--type", "rust", "--out", str(tmp_path)])
    assert "holds 1 other images (0007.png" in capsys.readouterr().err
    (tmp_path / "0007.png").rename(tmp_path / "0000.png")
    write_image(tmp_path / "masks" / "chip" / "0000.png", square(64))
    with pytest.raises(SystemExit):
        main(["generate", "nut", "--type", "rust", "--out", str(tmp_path)])
    assert "holds 1 other images (masks/chip/0000.png" in capsys.readouterr().err
