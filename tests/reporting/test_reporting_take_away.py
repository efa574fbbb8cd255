"""What the page says of a detector that leaves the house: its threshold, what it gets wrong, where it lies, how to run it."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from reporting_artefacts import THRESHOLD, make_params, make_shipped
from typer.main import get_command

from cadiff.cli import app
from cadiff.errors import CADiffError
from cadiff.records import SCORED_SCHEMA
from cadiff.reporting import take_away, write_report
from cadiff.reporting.artefacts import Artefacts
from cadiff.storage import read_json, read_table, sealed, write_json, write_table
from cadiff.threshold_words import threshold_said
from cadiff.thresholds import Threshold, beyond

SCORED = "data/made/evaluated/cadiff/fabric/scored.parquet"
SAID = "{} of 10 held-out anomalies are let pass; shown are 3 with the lowest scores, of each type in turn."


@pytest.fixture
def root(artefacts_root: Path, tmp_path: Path) -> Path:
    """The artefacts as hard links, which writing through cadiff.storage parts."""
    shutil.copytree(artefacts_root, tmp_path / "root", copy_function=lambda a, b: Path(b).hardlink_to(a))
    return tmp_path / "root"


def of(root: Path, **changes: Any) -> take_away.Shipped:
    """The fabric's one shipped detector."""
    (found,) = take_away.shipped(Artefacts(make_params(**changes), root), "fabric")
    return found


def rescore(root: Path, role: str, value: float) -> None:
    """Seed 0's detector gives all pictures of a role one score."""
    rows = read_table(root / SCORED, SCORED_SCHEMA).to_pylist()
    for row in rows:
        row["image_score"] = value if row["seed"] == 0 and f"/{role}-" in row["sample_id"] else row["image_score"]
    write_table(root / SCORED, type(read_table(root / SCORED)).from_pylist(rows, schema=SCORED_SCHEMA))


def test_the_worst_of_both_are_shown_worst_first_with_what_the_detector_saw(root: Path) -> None:
    """Of each role the pictures 00 and 01 score 0.9 and 0.8, those from 02 on 0.3, 0.2 and 0.1, each and a little."""
    misses, alarms, _ = of(root).wrongs
    assert (misses.title, misses.said) == ("Worst misses", SAID.format(6))
    names = [wrong.picture.row["sample_id"] for wrong in misses.shown]
    assert names == ["fabric/hole/held_out-04", "fabric/stain/held_out-04", "fabric/hole/held_out-03"]
    assert [wrong.caption for wrong in misses.shown] == ["hole, score 0.1072", "stain, score 0.1072", "hole, score 0.2072"]
    assert all(wrong.picture.outline and wrong.map.uri.startswith("data:image/") for wrong in misses.shown)
    assert alarms.said == "2 of 4 good test pictures are called defective."
    assert [wrong.caption for wrong in alarms.shown] == ["good, score 0.9", "good, score 0.8"]


def test_a_score_at_the_threshold_is_good_and_only_the_shipped_seed_counts(root: Path) -> None:
    rescore(root, "held_out", THRESHOLD)
    rescore(root, "test_good", THRESHOLD)
    misses, alarms, _ = of(root).wrongs
    assert misses.said == SAID.format(10)
    assert (alarms.said, alarms.shown) == ("None of 4 good test pictures is called defective.", [])
    make_shipped(root, "cadiff", "fabric", seed=1)
    assert of(root).wrongs[0].said.startswith("6 of 10 ")


def test_nothing_wrong_and_nothing_to_try_it_on_are_said(root: Path) -> None:
    rescore(root, "held_out", 0.9)
    assert (of(root).wrongs[0].said, of(root).wrongs[0].shown) == ("None of 10 held-out anomalies is let pass.", [])
    rows = [row for row in read_table(root / SCORED).to_pylist() if "test_good" not in row["sample_id"]]
    write_table(root / SCORED, type(read_table(root / SCORED)).from_pylist(rows, schema=SCORED_SCHEMA))
    assert of(root).wrongs[1].said == "No good test pictures were scored."


def test_the_good_pictures_that_set_the_threshold_are_shown_highest_first(root: Path) -> None:
    """Three calibration normals, at 0.9, 0.8 and 0.3 and a little; in a table that an earlier run left there are none."""
    setting = of(root).wrongs[2]
    assert setting.title == "Which good pictures set the threshold"
    assert setting.said.startswith("Of 3 calibration normals these score highest.")
    assert [wrong.caption for wrong in setting.shown] == ["good, score 0.9", "good, score 0.8", "good, score 0.3072"]
    rows = [row for row in read_table(root / SCORED).to_pylist() if "calibration" not in row["sample_id"]]
    write_table(root / SCORED, type(read_table(root / SCORED)).from_pylist(rows, schema=SCORED_SCHEMA))
    found = of(root)
    assert (found.wrongs[2].said, found.wrongs[2].shown) == ("Their scores were not kept: run the stage detect again.", [])
    assert found.choices.rows == []


def test_what_other_shares_of_false_alarms_would_give_stands_beside_what_was_asked_for(root: Path) -> None:
    """Of three calibration normals none of the shares can be promised; the one that was asked for says what can. Of 39 others follow, by
    hand: the r-th largest score, and what of test pictures lies above it or not."""
    (asked,) = of(root).choices.rows
    assert (asked.heads, asked.here) == (["1\u202f%"], True)
    assert [cell.text for cell in asked.cells] == ["0.90001", "25.0\u202f%", "0.0\u202f%", "100.0\u202f%"]
    table = read_table(root / SCORED)
    rows = table.to_pylist()
    like = next(row for row in rows if "calibration" in row["sample_id"] and row["seed"] == 0)
    rows = [row for row in rows if "calibration" not in row["sample_id"]]
    names = [f"fabric/good/calibration-{k:02d}" for k in range(39)]
    rows += [{**like, "sample_id": name, "image_score": k / 40} for k, name in enumerate(names)]
    write_table(root / SCORED, type(table).from_pylist(rows, schema=SCORED_SCHEMA))
    samples = read_table(root / "data/made/samples/fabric.parquet")
    one = next(row for row in samples.to_pylist() if row["role"] == "calibration")
    kept = [row for row in samples.to_pylist() if row["role"] != "calibration"] + [{**one, "sample_id": name} for name in names]
    write_table(root / "data/made/samples/fabric.parquet", type(samples).from_pylist(kept, schema=samples.schema))
    found = {row.heads[0]: [cell.order for cell in row.cells] for row in of(root).choices.rows}
    assert list(found) == ["1\u202f%", "5\u202f%", "10\u202f%", "20\u202f%"], "2 % takes 49"
    fourth = [35 / 40 + 1e-4 * 5 / 40, 0.1, 0.25, 0.8]
    assert found["10\u202f%"] == pytest.approx(fourth, rel=1e-6), "the fourth largest: good 00 and anomalies 00 above"
    assert found["20\u202f%"] == pytest.approx([31 / 40 + 1e-4 * 9 / 40, 0.2, 0.5, 0.6], rel=1e-6)
    for role in ("held_out", "test_good"):
        rescore(root, role, beyond(35 / 40))
    (row,) = [row for row in of(root).choices.rows if row.heads == ["10\u202f%"]]
    assert [cell.order for cell in row.cells][2:] == [0, 1], "at the threshold is good, for good pictures and for others"


def test_the_worst_of_each_type_comes_before_the_second_worst_of_any() -> None:
    types = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "g1": None, "g2": None}
    assert take_away.of_each_type(["a1", "a2", "a3", "b1"], types) == ["a1", "b1", "a2"]
    assert take_away.of_each_type(["g2", "g1"], types) == ["g2", "g1"]


def limit(**changes: float) -> dict[str, Any]:
    """Set on 14 scores; the promise is 1 in 15, the interval that of Beta(1, 14)."""
    image = Threshold(0.4123, 14, 1 / 15, 1 - 0.975 ** (1 / 14), 1 - 0.025 ** (1 / 14), 85)
    return {"false_alarms": 0.01, "threshold": "good", "image": {**asdict(image), **changes}}


def test_the_threshold_says_what_it_promises_and_how_many_normals_are_missing() -> None:
    said = threshold_said(limit())
    assert said == (
        "A picture is called defective where its score is above 0.4123. 14 calibration normals set that, good pictures that nothing was "
        "trained on. The chance that a good picture that comes as those came is called defective is at most 6.7\u202f%, over all choices "
        "of so many pictures; with those that were chosen the share that will be seen lies between 0.2\u202f% and 23.2\u202f% (95\u202f% "
        "interval). Asked for: 1\u202f% (detector.false_alarms), which takes 85 more calibration normals."
    )
    assert take_away.promise(make_params(), limit()) == (
        f"{said} Give more train normals, or a larger share of them (dataset.calibration)."
    )
    enough = take_away.promise(make_params(), limit(missing=0))
    assert enough.endswith("interval). Asked for: 1\u202f% (detector.false_alarms).")
    assert "half way" not in enough
    raised = threshold_said({**limit(), "threshold": "generated"})
    assert "; it was then moved half way to the scores of generated anomalies where these lie higher (detector.threshold: gen" in raised
    assert "1 calibration normal sets that" in threshold_said(limit(normals=1))
    assert threshold_said(limit(value=1.0)).startswith("It calls nothing defective")
    assert "nothing defective" not in said


def test_without_a_threshold_the_page_says_what_to_set(root: Path) -> None:
    make_shipped(root, "cadiff", "fabric", image=None, pixel=None)
    found = of(root, dataset={"size": 144, "calibration": 0})
    assert found.threshold.startswith("It gives scores, but no verdicts: dataset.calibration is 0")
    assert found.wrongs == []
    assert of(root).threshold == (
        "It gives scores, but no verdicts: there are too few train normals to leave one out of training; three at least are needed."
    )
    for path in root.rglob("metrics.parquet"):
        rows = [row for row in read_table(path).to_pylist() if "_rate" not in row["metric"]]
        write_table(path, type(read_table(path)).from_pylist(rows, schema=read_table(path).schema))
    write_report(make_params(dataset={"size": 144}, products={"fabric": {}}), root, root / "reports")
    said = "No threshold was set: dataset.calibration is 0, so no good pictures are left to set a threshold on. Set it, to 0.2 for example"
    assert said in (root / "reports/index.html").read_text()


def test_the_commands_are_whole_and_their_paths_are_there(root: Path) -> None:
    found = of(root)
    assert [shlex.split(command)[:3] for command, _ in found.commands] == [
        ["cadiff", "predict", "fabric"], ["cadiff", "ship", "fabric"], ["python", "data/made/shipped/cadiff/fabric/run.py", "PICTURE"],
    ]  # fmt: skip
    assert not any("--method" in command for command, _ in found.commands)
    assert found.size == "1.2 MB"
    assert (root / found.folder).is_dir()
    compile(found.python, "three lines", "exec")
    assert len(found.python.splitlines()) == 3
    commands = get_command(app).commands  # type: ignore[attr-defined]
    options = {name: {option for each in commands[name].params for option in each.opts} for name in ("predict", "ship")}
    assert {"--out", "--method"} <= options["predict"] & options["ship"]
    assert "--refit" in options["ship"]
    second = take_away.commands(make_params(ship={"methods": ["cadiff", "both"]}), "both", "nut", "x")
    assert [command.endswith("--out DIR --method both") for command, _ in second] == [True, True, False]


def test_a_detector_that_is_absent_is_left_out_of_a_partial_report_alone(root: Path) -> None:
    shutil.rmtree(root / "data/made/shipped/cadiff/fabric")
    with pytest.raises(CADiffError, match="data/made/shipped/cadiff/fabric: expected"):
        write_report(make_params(), root, root / "reports")
    write_report(make_params(), root, root / "partial", partial=True)
    assert "<li><code>data/made/shipped/cadiff/fabric</code></li>" in (root / "partial/index.html").read_text()
    summary = (root / "partial/summary.md").read_text()
    line = "- [metal_plate, cadiff](../data/made/shipped/cadiff/metal_plate) (1.2 MB): A picture is called defective where its score is "
    assert line in summary
    assert "[fabric, cadiff]" not in summary


@pytest.mark.parametrize("name", ["data/made/shipped/cadiff/fabric/detector.json", "data/made/reported/shipped/cadiff/fabric.json"])
def test_a_threshold_that_was_altered_is_not_reported(root: Path, name: str) -> None:
    said = read_json(root / name)
    altered = {**said, "image": {**said["image"], "value": 0.99}}
    write_json(root / name, altered)
    with pytest.raises(CADiffError, match=rf"{name}: expected it as it was shipped, .*Ship it again \(dvc repro\)"):
        of(root)
    write_json(root / name, sealed(altered))
    with pytest.raises(CADiffError, match=r"fabric/detector.json: expected the detector that .*fabric.json tells of, found another"):
        of(root)


def test_how_long_a_picture_takes_stands_beside_the_size_where_it_was_timed(root: Path) -> None:
    assert (of(root).pace, of(root).timed) == ("", "")
    said = read_json(root / "data/made/reported/shipped/cadiff/fabric.json")
    write_json(root / ".cadiff/paces/cadiff/fabric.json", {"detector": said["self"], "seconds": 1.23456, "pictures": 7})
    assert of(root).pace == "1,235 ms a picture on one thread"
    assert of(root).timed.startswith("Its run.py takes 1,235 ms a picture: the median of 7 calibration normals, on one thread of")
    assert take_away.paced((0.00432, 1))[0] == "4.3 ms a picture on one thread"
    make_shipped(root, "cadiff", "fabric", seed=1)
    assert of(root).pace == "", "another detector's"
