"""`cadiff predict` with a trained toy: what is written, said and answered, whatever the pictures are."""

from __future__ import annotations

import csv
import glob
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from cadiff.cli import main
from cadiff.detection.overlay import overlay
from cadiff.gathering import PIXELS, TOGETHER, Read, Sources, together
from cadiff.predict import PREDICTION_SCHEMA
from cadiff.storage import read_image, read_json, read_table, write_image, write_json


@pytest.fixture
def repository(inspected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the trained toy and a folder of four good pictures and four blots."""
    shutil.copy(inspected.root / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(inspected.root / "data", tmp_path / "data")
    for row in inspected.samples:
        if row.role == "test_good" or (row.role == "held_out" and row.anomaly_type == "blot"):
            target = tmp_path / "pictures" / ("good" if row.anomaly_type is None else "blot") / Path(row.image_path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(row.image_path, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*call: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["predict", *call])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def rows_of(out: str = "out") -> dict[str, dict]:
    return {row["path"]: row for row in read_table(Path(out) / "predictions.parquet", PREDICTION_SCHEMA).to_pylist()}


def test_a_folder_becomes_a_table_heat_maps_and_masks(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("cube", "pictures", "--out", "out") == 0
    rows = rows_of()
    assert {*rows} == {str(path) for path in Path("pictures").rglob("*.png")}
    threshold = read_json("data/made/detectors/exemplars/cube/seed-0.json")["image"]["value"]
    for path, row in rows.items():
        below = Path(path).relative_to("pictures")
        assert row["threshold"] == threshold
        assert row["error"] is None
        assert row["seconds"] > 0
        assert row["unlike"] is False, "of the normals' shapes and colours"
        assert row["verdict"] == ("defect" if row["score"] > threshold else "good")
        heat, mask = Path("out/heat") / f"{below}.jpg", Path("out/mask") / f"{below}.png"
        with Image.open(heat) as image, Image.open(path) as picture:
            assert (image.format, image.size) == ("JPEG", picture.size)
        assert mask.is_file() == (row["verdict"] == "defect")
        if row["verdict"] == "defect":
            pixels = read_image(mask, "L")
            assert (pixels > 0).sum() == row["anomalous_area"] == sum(region["area"] for region in row["regions"])
            assert row["anomaly_type"] in ("blot", "line")
        else:
            assert (row["regions"], row["anomalous_area"], row["anomaly_type"]) == ([], 0, None)
    blots = [row["verdict"] for path, row in rows.items() if "/blot/" in path]
    assert blots.count("defect") >= 3
    with open("out/predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == PREDICTION_SCHEMA.names
    for line in table:
        row = rows[line["path"]]
        assert (line["verdict"], float(line["score"]), json.loads(line["regions"])) == (row["verdict"], row["score"], row["regions"])
        assert line["unlike"] == str(row["unlike"])
    said = capsys.readouterr().out
    assert f"{sum(row['verdict'] == 'defect' for row in rows.values())} defective" in said
    assert sum(line.startswith(("good", "defect")) for line in said.splitlines()) == 8


def test_lines_of_json_parse_and_are_the_tables_rows(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("cube", "pictures/blot", "pictures/good/good-0.png", "--out", "out", "--json") == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert {line["path"]: line for line in lines} == rows_of()
    assert len(lines) == 5
    assert "defective" in captured.err, "what is for people goes elsewhere"


def test_exit_codes_tell_defects_and_unreadable_pictures(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {row["path"]: row["verdict"] for row in _predicted("a")}
    defect, good = (next(path for path, verdict in found.items() if verdict == wanted) for wanted in ("defect", "good"))
    assert predict("cube", defect, "--out", "b", "--fail-on-defect") == 4
    assert "error: --fail-on-defect: defective 1 of 1" in capsys.readouterr().err
    assert predict("cube", good, "--out", "c", "--fail-on-defect") == 0
    Path("broken.png").write_bytes(b"no picture")
    assert predict("cube", good, "broken.png", "--out", "d", "--fail-on-defect") == 3
    captured = capsys.readouterr()
    assert captured.err == "error: unreadable 1 of 2, listed above; all others are done\n"
    assert "Unreadable:\n  broken.png: expected an image" in captured.out
    assert predict("cube", defect, "broken.png", "--out", "e", "--fail-on-defect") == 4, "a defect is certain"
    assert predict("cube", defect, "--out", "f") == 0


def _predicted(out: str) -> list[dict]:
    assert predict("cube", "pictures", "--out", out) == 0
    return list(rows_of(out).values())


def test_bad_pictures_do_not_stop_the_rest_and_are_listed(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, folder = np.random.default_rng(0), Path("mixed")
    folder.mkdir()
    plate = rng.integers(100, 140, (40, 40, 3), dtype=np.uint8)
    alpha = np.full((40, 40), 255, np.uint8)
    Image.fromarray(plate).save(folder / "plain.png")
    Image.fromarray(plate).save(folder / "photo.JPG")
    Image.fromarray(plate[..., 0]).save(folder / "grey.png")
    Image.fromarray(np.dstack([plate, alpha])).save(folder / "opaque.png")
    Image.fromarray(np.dstack([plate, alpha // 2])).save(folder / "transparent.png")
    Image.fromarray(plate[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(plate).resize((400, 300)).save(folder / "large.bmp")
    Image.fromarray(plate[:10]).save(folder / "low.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "plain.png").read_bytes()[:-900])
    (folder / "notes.txt").write_text("left alone")
    (folder / ".hidden.png").write_bytes(b"left alone")
    assert predict("cube", "mixed", "--out", "out") == 3
    rows = {Path(path).name: row for path, row in rows_of().items()}
    expected = {
        "transparent.png": "found transparent pixels", "deep.png": "expected 8 bits a channel", "low.png": "expected at least 16 px",
        "empty.png": "none that Pillow knows", "cut.png": "does not decode",
    }  # fmt: skip
    assert {name for name, row in rows.items() if row["verdict"] == "unreadable"} == {*expected}
    captured = capsys.readouterr()
    for name, why in expected.items():
        row = rows[name]
        assert row["error"].startswith(f"mixed/{name}: ")
        assert why in row["error"]
        assert f"\n  {row['error']}\n" in captured.out
        assert (row["score"], row["threshold"], row["unlike"], row["regions"], row["anomalous_area"]) == (None, None, None, [], None)
    assert {*rows} - {*expected} == {"plain.png", "photo.JPG", "grey.png", "opaque.png", "large.bmp"}
    assert rows["plain.png"]["score"] == pytest.approx(rows["opaque.png"]["score"], abs=1e-6)
    assert "5 unreadable" in captured.out
    assert "left alone: 1." in captured.out
    assert {name for name, row in rows.items() if row["unlike"]} == {"large.bmp", "grey.png"}
    assert "grey where those have colours, or the other way round: 2 (in the tables: unlike)." in captured.out


@pytest.mark.parametrize(("colour", "grey", "coloured"), [(True, True, False), (False, False, True), (None, False, False)])
def test_which_picture_is_unlike_depends_on_the_normals(
    repository: Path, capsys: pytest.CaptureFixture[str], colour: bool | None, grey: bool, coloured: bool
) -> None:
    """Their colours, and both of their sides; the normals have 32 to 48 px of width and 32 to 44 of height."""
    card = Path("data/made/detectors/exemplars/cube/seed-0.json")
    write_json(card, {**read_json(card), "colour": colour})
    noise = np.random.default_rng(0).integers(100, 140, (49, 49, 3), dtype=np.uint8)
    for name, pixels in {
        "grey": np.repeat(noise[:40, :40, :1], 3, axis=2), "colour": noise[:44, :48], "wide": noise[:40], "high": noise[:45, :40],
        "low": noise[:31, :40],
    }.items():  # fmt: skip
        write_image(f"mixed/{name}.png", pixels)
    assert predict("cube", "mixed", "--out", "out", "--json") == 0
    found = {Path(path).stem: row["unlike"] for path, row in rows_of().items()}
    assert found == {"grey": grey, "colour": coloured, "wide": True, "high": True, "low": True}
    captured = capsys.readouterr()
    assert {Path(line["path"]).stem: line["unlike"] for line in map(json.loads, captured.out.splitlines())} == found
    assert f": {3 + grey + coloured} (in the tables: unlike)." in captured.err


def test_same_names_in_two_folders_and_two_formats_do_not_collide(repository: Path) -> None:
    plate = np.random.default_rng(0).integers(100, 140, (40, 40, 3), dtype=np.uint8)
    for path in ("one/a.png", "two/a.png", "two/deep/a.png"):
        write_image(path, plate)
    Image.fromarray(plate).save("two/a.bmp")
    call = ("one/a.png", "two", str(repository / "two" / "deep" / "*.png"))
    assert predict("cube", *call, "--out", "out") == 0
    heat = sorted(str(path.relative_to("out/heat")) for path in Path("out/heat").rglob("*.jpg"))
    assert heat == ["one/a.png.jpg", "two/a.bmp.jpg", "two/a.png.jpg", "two/deep/a.png.jpg"]
    assert pq.read_metadata("out/predictions.parquet").num_rows == 5, "given twice, told twice"


def test_patterns_are_matched_here(repository: Path) -> None:
    assert predict("cube", "pictures/**/*-[01].png", "--out", "out") == 0
    assert {Path(path).name for path in rows_of()} == {"good-0.png", "good-1.png", "blot-0.png", "blot-1.png"}
    assert Path("out/heat/good/good-0.png.jpg").is_file()


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.png", "?.png", "[ab].*", "[!a]*", ".*", ".h*", "deep/*", "deep/*.png", "*/a.png", "**/*.png", "**", "./*.png", "no/*"],
)
def test_a_pattern_matches_what_glob_says_in_the_order_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.png", "c.PNG", ".hidden.png", "[a].png", "deep/a.png", "deep/.hidden.png", "deep/er/a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("link.png").symlink_to("nowhere")
    expected = [path for path in glob.iglob(pattern, recursive=True) if os.path.isfile(path)]
    assert list(Sources([pattern], Path("out")).files()) == expected
    absolute = str(tmp_path / pattern)
    assert list(Sources([absolute], Path("out")).files()) == [path for path in glob.iglob(absolute, recursive=True) if os.path.isfile(path)]


def test_what_is_written_is_not_looked_at(repository: Path) -> None:
    assert predict("cube", "pictures", "--out", "pictures/out") == 0
    assert pq.read_metadata("pictures/out/predictions.parquet").num_rows == 8
    assert predict("cube", "pictures/**/*.png", "--out", "pictures/more") == 0
    rows = rows_of("pictures/more")
    assert not any("/more/" in path for path in rows)


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        (("cube", "none.png", "--out", "out"), 2, "none.png: expected a picture, a folder or a pattern, but there is no such file"),
        (("cube", "void", "--out", "out"), 2, "void: expected pictures (.bmp, .jpeg, .jpg, .png, .tif, .tiff), found none"),
        (("cube", "void/*.png", "--out", "out"), 2, "void/*.png: expected pictures"),
        (("cube", "pictures", "--out", "pictures"), 2, "--out pictures: expected a new or empty folder"),
        (("cube", "pictures", "--out", "ROOT/raw/out"), 2, "lies in the data set (dataset.root)"),
        (("ball", "pictures", "--out", "out"), 1, "ball has no trained detector of exemplars yet. `dvc repro` trains it"),
        (("cone", "pictures", "--out", "out"), 2, "products.cone: not in the parameters"),
        (("cube", "pictures", "--out", "out", "--seed", "3"), 2, "--seed 3: data/made/detectors/exemplars/cube has no such detector"),
        (("cube", "pictures", "--out", "out", "--method", "patchcore"), 2, "--method patchcore: expected a method that trains a detector"),
    ],
)
def test_wrong_calls_say_what_to_do(
    repository: Path, inspected, capsys: pytest.CaptureFixture[str], call: tuple[str, ...], code: int, said: str
) -> None:
    Path("void").mkdir()
    assert predict(*(word.replace("ROOT", str(inspected.root)) for word in call)) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_without_a_threshold_scores_are_told_and_what_to_set(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("data/made/detectors/exemplars/cube/seed-0.json")
    write_json(path, {**read_json(path), "image": None, "pixel": None})
    assert predict("cube", "pictures", "--out", "out") == 0
    assert {(row["verdict"], row["threshold"]) for row in rows_of().values()} == {(None, None)}
    assert "set dataset.calibration" in capsys.readouterr().out
    assert predict("cube", "pictures", "--out", "more", "--fail-on-defect") == 2
    assert "set dataset.calibration" in capsys.readouterr().err


def test_the_method_is_the_one_that_is_shipped(repository: Path) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["methods"]["synthesizers"] = ["cutpaste", "exemplars"]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert predict("cube", "pictures", "--out", "a") == 1, "the first that trains a detector"
    Path("params.yaml").write_text(yaml.safe_dump({**values, "ship": {"methods": ["exemplars"]}}))
    assert predict("cube", "pictures", "--out", "b") == 0


def test_names_that_are_no_text_are_told_by_their_bytes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = next(Path("pictures/good").iterdir()).read_bytes()
    os.makedirs("odd")
    with open(b"odd/\xff.png", "wb") as file:
        file.write(source)
    assert predict("cube", "odd", "--out", "out") == 0
    assert [*rows_of()] == ["odd/\\xff.png"]
    assert "odd/\\xff.png" in capsys.readouterr().out


def test_a_stopped_call_keeps_what_was_done(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cadiff.predict

    def stop_at_the_fifth(row: cadiff.predict.Row) -> str:
        seen.append(row.path)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return row.path

    seen: list[str] = []
    monkeypatch.setattr(cadiff.predict, "told", stop_at_the_fifth)
    assert predict("cube", "pictures", "--out", "out") == 130
    assert [*rows_of()] == seen


@pytest.mark.parametrize("pattern", ["", "*.png", "[0-9]*[!a-z]?.p?g"])
def test_many_files_are_not_held(tmp_path: Path, pattern: str) -> None:
    """The memory of listing 40,000 files is that of a few, of a folder and by a pattern; empty files do, as none is opened."""
    for name in range(40_000):
        os.close(os.open(tmp_path / f"{name:08}.png", os.O_CREAT))
    sources = Sources([str(tmp_path / pattern)], tmp_path / "out")
    tracemalloc.start()
    assert sources.count() == 40_000
    assert sum(1 for _ in sources.files()) == 40_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000, "their names alone have four megabytes"


def test_pictures_go_together_up_to_a_number_and_a_size() -> None:
    def of(side: int) -> Read:
        return Read("x", np.empty((side, side, 3), np.uint8), 0.0, None)

    small = [of(32)] * 20
    assert [len(group) for group in together(small)] == [TOGETHER, TOGETHER, 4]
    large = int(PIXELS**0.5)
    broken = Read("x", None, 0.0, "broken")
    assert [len(group) for group in together([of(large), *small[:3], of(2 * large), broken, of(32)])] == [1, 3, 1, 2]


def test_a_heat_map_shows_heat_and_outlines_at_most_2048_px() -> None:
    image = np.full((30, 40, 3), 100, np.uint8)
    heat, mask = np.zeros((30, 40), np.float32), np.zeros((30, 40), bool)
    heat[5:10, 5:10], mask[5:10, 5:10], heat[20, 20] = 1.0, True, 0.02
    shown = overlay(image, heat, mask, 0.02)
    assert (shown[0, 0] == 100).all(), "no heat, the picture in grey"
    assert shown[7, 7].tolist() == [208, 58, 30], "seven tenths of the way from grey to red"
    assert shown[20, 20].tolist() == [154, 79, 65], "half of that at the threshold, however low it is"
    assert shown[4, 7].tolist() == [255, 255, 0]
    assert (shown == [255, 255, 0]).all(-1).sum() == 4 * 5, "around what is marked, and nowhere else"
    large = overlay(np.zeros((50, 4096, 3), np.uint8), np.zeros((50, 4096), np.float32), np.zeros((50, 4096), bool), None)
    assert large.shape == (25, 2048, 3)
