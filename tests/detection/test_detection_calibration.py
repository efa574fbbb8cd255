"""Thresholds of a real, small detector: from the pictures that nothing was trained on, by both rules."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cadiff.detection import detect_seeds, train_seed
from cadiff.detection.calibration import calibrate, calibrate_good, generated_scores
from cadiff.detection.peers import fit_peer, score_peer
from cadiff.detection.scoring import load_segmenter
from cadiff.detection.trained import colour_of, read_trained
from cadiff.errors import CADiffError
from cadiff.records import SAMPLE_SCHEMA, ScoredRow, from_table, to_table
from cadiff.storage import read_image, read_json, write_image, write_json, write_table
from cadiff.task import Task
from cadiff.thresholds import beyond


@pytest.fixture(scope="module")
def segmenter(inspected):
    return load_segmenter(Task(inspected.params, "cube", "exemplars"), 0, inspected.detector)[0]


def _asking(params, **detector):
    return params.model_copy(update={"detector": params.detector.model_copy(update=detector)})


def test_thresholds_are_the_calibration_normals_own_scores(inspected, segmenter) -> None:
    rows = [row for row in inspected.samples if row.role == "calibration"]
    scores = segmenter.score(rows)
    one_in_a_hundred = calibrate(Task(inspected.params, "cube", samples=inspected.samples), segmenter, [], "good")
    assert one_in_a_hundred.image.value == pytest.approx(beyond(scores.images.max()))
    assert one_in_a_hundred.pixel.value == pytest.approx(beyond(max(map_.max() for map_ in scores.maps)))
    assert (one_in_a_hundred.image.normals, one_in_a_hundred.image.missing) == (15, 99 - 15)
    quarter = calibrate_good(Task(_asking(inspected.params, false_alarms=0.25), "cube", samples=inspected.samples), segmenter)
    assert quarter.image.value == pytest.approx(beyond(sorted(scores.images)[-4]))
    assert quarter.image.promised == 0.25
    without = [row for row in inspected.samples if row.role != "calibration"]
    assert calibrate(Task(inspected.params, "cube", samples=without), segmenter, [], "good") is None


def test_generated_anomalies_move_the_image_threshold_up(inspected, segmenter) -> None:
    given = (Task(inspected.params, "cube", samples=inspected.samples), segmenter, [inspected.generated])
    good, moved = calibrate(*given, "good"), calibrate(*given, "generated")
    scores = generated_scores(segmenter, [inspected.generated], 0)
    assert len(scores) == 15, "all of them, if there are fewer than are looked at"
    assert good.image.value < moved.image.value < np.quantile(scores, 0.05)
    assert moved.pixel == good.pixel
    with pytest.raises(CADiffError, match="expected shards of anomalies"):
        generated_scores(segmenter, [inspected.root], 0)


def test_the_file_says_what_was_trained_and_promised(inspected) -> None:
    path = inspected.detector / "seed-0.json"
    values, trained = read_json(path), read_trained(path)
    assert trained.as_json() == values
    assert {*values} == {
        "product", "method", "seed", "network", "width", "standardise", "canvas", "size", "tile", "pooling", "made_by", "false_alarms",
        "threshold", "image", "pixel", "classes", "classifier", "normals", "range", "colour",
    }  # fmt: skip
    assert values["normals"] == {"width": [32, 48], "height": [32, 44]}
    assert values["colour"] is True
    assert values["classes"] == ["blot", "line"]
    assert values["classifier"] == {"network": "efficientnet-lite0", "side": 32, "variant": "efficientnet-lite0(imagenet)"}
    assert {*values["image"]} == {"value", "normals", "promised", "low", "high", "missing"}
    assert {path.name for path in inspected.detector.iterdir()} == {
        "seed-0.json", "seed-0.safetensors", "curve-0.parquet", "classifier-0.safetensors",
    }  # fmt: skip
    old = inspected.root / "old.json"
    write_json(old, {name: value for name, value in values.items() if name != "colour"})
    assert read_trained(old) == replace(trained, colour=None), "a file that is older says nothing of colours"
    path = inspected.root / "broken.json"
    path.write_text('{"product": "cube"}')
    with pytest.raises(CADiffError, match=r"broken.json: expected what a trained detector's JSON has"):
        read_trained(path)


def test_colours_are_those_of_all_normals_that_are_looked_at_or_nobody_knows(inspected, tmp_path) -> None:
    coloured = [row for row in inspected.samples if row.role == "normal"]
    grey = []
    for row in coloured:
        write_image(tmp_path / f"{row.sample_id}.png", read_image(row.image_path)[..., 0])
        grey.append(replace(row, image_path=str(tmp_path / f"{row.sample_id}.png")))
    assert (colour_of(coloured), colour_of(grey), colour_of([*coloured, *grey])) == (True, False, None)


def test_nothing_is_learned_from_calibration_normals(inspected, tmp_path) -> None:
    """The same weights without any, and with ones that are not there: none is read before the threshold is set."""
    others = [row for row in inspected.samples if row.role != "calibration"]
    task = Task(inspected.params, "cube", "exemplars", others)
    trained, classifier = train_seed(task, [inspected.generated], 0, tmp_path / "out", tmp_path / "work")
    for name in ("seed-0.safetensors", "classifier-0.safetensors", "curve-0.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (inspected.detector / name).read_bytes()
    assert trained.thresholds is None
    assert classifier is not None
    assert read_json(tmp_path / "out" / "seed-0.json")["image"] is None
    absent = [replace(row, image_path=str(tmp_path / "no.png")) if row.role == "calibration" else row for row in inspected.samples]
    with pytest.raises(CADiffError, match=r"no.png: expected an image"):
        train_seed(Task(inspected.params, "cube", "exemplars", absent), [inspected.generated], 0, tmp_path / "again", tmp_path / "work")


def test_rows_count_false_alarms_and_misses_at_the_threshold(inspected, tmp_path) -> None:
    """Against the scored table; a threshold at the third largest calibration score, so that both ways to be wrong can come up."""
    params = _asking(inspected.params, false_alarms=0.2)
    tables: list[pa.Table] = []
    task = Task(params, "cube", "exemplars", inspected.samples)
    rows = detect_seeds(task, [inspected.generated], tmp_path / "out", inspected.training, tables.append)
    kept, found = from_table(pa.concat_tables(tables), ScoredRow), {row.metric: row for row in rows}
    calibration = {row.sample_id for row in inspected.samples if row.role == "calibration"}
    own, scored = ([row for row in kept if (row.sample_id in calibration) == inside] for inside in (True, False))
    threshold = read_json(tmp_path / "out" / "seed-0.json")["image"]
    assert threshold["value"] == beyond(sorted(row.image_score for row in own)[-3]), "what set it is kept beside what it is tried on"
    kinds = {"false_alarm_rate": [None], "miss_rate": ["blot", "line"], "miss_rate/blot": ["blot"], "miss_rate/line": ["line"]}
    for name, types in kinds.items():
        above = [row.image_score > threshold["value"] for row in scored if row.anomaly_type in types]
        assert found[name].n == len(above)
        assert found[name].value == pytest.approx(np.mean(above) if name == "false_alarm_rate" else 1 - np.mean(above))
    assert (found["threshold_promised"].value, found["threshold_promised"].n) == (3 / 16, 15)
    assert found["miss_rate"].value < 0.5, "the toy is learned"
    assert "classification_accuracy" in found


def test_patchcore_is_calibrated_from_the_same_pictures(inspected, tmp_path) -> None:
    fit_peer(Task(inspected.params, "cube", "patchcore", inspected.samples), 0, tmp_path, tmp_path / "work")
    found = {row.metric: row for row in score_peer(Task(inspected.params, "cube", "patchcore", inspected.samples), 0, tmp_path)}
    assert (found["threshold_promised"].n, found["threshold_promised"].value) == (15, 1 / 16)
    assert {found["false_alarm_rate"].n, found["miss_rate/blot"].n} == {4}
    without = [row for row in inspected.samples if row.role != "calibration"]
    names = {row.metric for row in score_peer(Task(inspected.params, "cube", "patchcore", without), 0, tmp_path)}
    assert names == {*found} - {"false_alarm_rate", "miss_rate", "miss_rate/blot", "miss_rate/line", "threshold_promised"}


def test_a_calibration_picture_is_no_other_kind_of_picture(inspected, segmenter) -> None:
    """Its score is what its file's pixels have, at the detector's scale."""
    row = next(row for row in inspected.samples if row.role == "calibration")
    assert segmenter.score([row]).images[0] == segmenter.score_images([read_image(row.image_path)]).images[0]


def test_the_benchmark_of_both_rules_says_what_they_give(inspected, segmenter, tmp_path: Path) -> None:
    """benchmarks/thresholds.py, in a folder as the pipeline leaves it."""
    for folder, source in (("detectors", inspected.detector), ("generated", inspected.generated)):
        shutil.copytree(source, tmp_path / "data/made" / folder / "exemplars/cube")
    shutil.copy(inspected.root / "params.yaml", tmp_path)
    write_table(tmp_path / "data/made/samples/cube.parquet", to_table(inspected.samples, SAMPLE_SCHEMA))
    script = Path(__file__).resolve().parents[2] / "benchmarks/thresholds.py"
    printed = subprocess.run([sys.executable, script, "cube"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    scored = {row.sample_id: float(segmenter.score([row]).images[0]) for row in inspected.samples if row.role in ("held_out", "test_good")}
    for line, rule in zip(printed.splitlines()[1:], ("good", "generated"), strict=True):
        value = calibrate(Task(inspected.params, "cube", samples=inspected.samples), segmenter, [inspected.generated], rule).image.value
        above = {row.sample_id: scored[row.sample_id] > value for row in inspected.samples if row.sample_id in scored}
        good = [above[row.sample_id] for row in inspected.samples if row.role == "test_good"]
        others = [above[row.sample_id] for row in inspected.samples if row.role == "held_out"]
        assert line.split()[2:4] == [rule, f"{value:.4f}"]
        assert line.split()[5:7] == [f"{np.mean(good):.1%}", f"{1 - np.mean(others):.1%}"]
        missed = {
            name: np.mean([not above[row.sample_id] for row in inspected.samples if (row.role, row.anomaly_type) == ("held_out", name)])
            for name in ("blot", "line")
        }
        assert line.split("  ")[-1] == ", ".join(f"{name} {value:.1%}" for name, value in missed.items())
