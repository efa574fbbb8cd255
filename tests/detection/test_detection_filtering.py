"""The filter by rule: what it leaves out, what it must not touch, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from parameters import bare

from cadiff.detection.batches import load_training_data
from cadiff.detection.filtering import KEPT, UNKNOWN, Judged, filter_shards, judge
from cadiff.detection.tiles import View
from cadiff.errors import CADiffError, UsageError
from cadiff.metrics.quality import assess
from cadiff.params import EXEMPLARS, Params, load_params
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, QualityRow, SampleRow, to_table
from cadiff.storage import encode_png, read_image, read_table, sha256_folder, write_table
from cadiff.task import Task


def _quality(name: str, distance: float | None, unusual: float | None, source: str = "generated") -> QualityRow:
    return QualityRow(name, "cube", "drawn", "blot", source, distance, None, None, unusual)  # type: ignore[arg-type]


def test_judging_by_hand() -> None:
    rows = [
        _quality("copy", 0.1, 2.0), _quality("faint", 1.0, 0.9), _quality("both", 0.1, 0.9), _quality("fine", 0.5, 1.0),
        _quality("unknown", None, 2.0), _quality("unknown and faint", None, 0.5), _quality("real", 0.0, 0.0, "exemplar"),
    ]  # fmt: skip
    found = judge(rows, {"exemplar_distance": 0.5, "normal_distance": 1.0})
    left_out = {"exemplar_distance": {"copy", "both"}, "normal_distance": {"faint", "both", "unknown and faint"}}
    assert found == {"blot": Judged(6, left_out, 1)}
    assert found["blot"].out == {"copy", "both", "faint", "unknown and faint"}


def _of(toy, **changes) -> Params:
    return Params(**{**toy.params.model_dump(), "detector": {"protocol": "filtered"}, "filter": changes})


@pytest.fixture
def made(toy, good_row, make_row, tmp_path: Path) -> tuple[list[SampleRow], Path]:
    """Real blots and lines as exemplars, and the toy's shards with a copy of the first blot and a normal image."""
    exemplars = [dataclasses.replace(row, role="exemplar") for row in toy.samples if row.role == "held_out"]
    samples = [row for row in toy.samples if row.role in ("normal", "test_good")] + exemplars
    folder = tmp_path / "drawn"
    copied = exemplars[0]
    copy = make_row("copy", ["blot"], encode_png(read_image(copied.image_path)), encode_png(read_image(copied.mask_path or "", "L")))
    for name, more in (("blot", [copy]), ("line", [])):
        rows = read_table(toy.generated / f"{name}.parquet", GENERATED_SCHEMA).to_pylist()
        rows += [dataclasses.asdict(row) for row in more]
        write_table(folder / f"{name}.parquet", to_table([GeneratedRow(**row) for row in rows], GENERATED_SCHEMA))
    write_table(folder / "good.parquet", to_table([good_row(7)], GENERATED_SCHEMA))
    return samples, folder


def test_a_copy_is_left_out_and_nothing_else(toy, made, tmp_path: Path) -> None:
    samples, folder = made
    before = sha256_folder(folder)
    params = _of(toy, min_exemplar_distance=1e-3, min_mask_agreement=1e-9)
    kept, rows = filter_shards(Task(params, "cube", "drawn", samples), {"drawn": folder}, tmp_path / "kept")
    data = load_training_data("cube", samples, list(kept.values()), View.of(params))
    assert {name: len(pool) for name, pool in data.anomalies.items()} == {"blot": 12, "line": 3}
    assert "copy" not in read_table(kept["drawn"] / "blot.parquet", GENERATED_SCHEMA)["sample_id"].to_pylist()
    assert [len(pool) for pool in data.normals] == [8, 1], "normals that took the generator's path stay"
    assert sha256_folder(folder) == before, "the shards themselves are as they were"
    values = {row.metric: (row.value, row.n, row.protocol) for row in rows}
    assert values == {
        KEPT: (15 / 16, 16, "filtered"), f"{KEPT}/blot": (12 / 13, 13, "filtered"), f"{KEPT}/line": (1, 3, "filtered"),
        # where no normal image is near enough to be the background, mask_agreement is unknown, and the image stays
        UNKNOWN: (15 / 16, 16, "filtered"), f"{UNKNOWN}/blot": (12 / 13, 13, "filtered"), f"{UNKNOWN}/line": (1, 3, "filtered"),
    }  # fmt: skip


def test_an_image_that_changed_beside_its_mask_is_left_out(toy, make_row, tmp_path: Path) -> None:
    """Each is a normal image that became lighter by 30: in all 64 pixels of its mask, and in so many far from it."""
    normals = [row for row in toy.samples if row.role == "normal"]
    background, mask = read_image(normals[0].image_path), np.zeros((32, 32), bool)
    mask[4:12, 4:12] = True
    rows = []
    for beside in (0, 32, 96):
        image = background.copy()
        image[mask] += 30
        image[16:].reshape(-1, 3)[:beside] += 30
        row = make_row(str(beside), ["blot"], encode_png(image), encode_png(mask.astype(np.uint8) * 255))
        rows.append(dataclasses.replace(row, normal_id=normals[0].sample_id))
    write_table(tmp_path / "drawn" / "blot.parquet", to_table(rows, GENERATED_SCHEMA))
    params = _of(toy, min_mask_agreement=0.5)
    found = assess(Task(params, "cube", "drawn", normals), tmp_path / "drawn")
    assert [row.mask_agreement for row in found] == pytest.approx([1, 64 / 96, 64 / 160])
    kept, rows_of = filter_shards(Task(params, "cube", "drawn", normals), {"drawn": tmp_path / "drawn"}, tmp_path / "kept")
    assert read_table(kept["drawn"] / "blot.parquet", GENERATED_SCHEMA)["sample_id"].to_pylist() == ["0", "32"]
    assert {row.metric: row.value for row in rows_of if "/" not in row.metric} == {KEPT: pytest.approx(2 / 3), UNKNOWN: 0}


def test_exemplars_are_exempt_and_no_rule_touches_nothing(toy, made, tmp_path: Path) -> None:
    samples, folder = made
    sources = {"drawn": folder, EXEMPLARS: folder}
    assert filter_shards(Task(toy.params, "cube", "both", samples), sources, tmp_path / "kept") == (sources, [])
    assert not (tmp_path / "kept").exists()
    kept, rows = filter_shards(Task(_of(toy, min_exemplar_distance=1e-3), "cube", "both", samples), sources, tmp_path / "kept")
    assert kept == {"drawn": tmp_path / "kept" / "drawn", EXEMPLARS: folder}
    assert {(row.metric, row.n) for row in rows if row.metric == KEPT} == {(KEPT, 16)}, "the exemplars are not counted"


def test_a_type_of_which_nothing_is_left_names_the_rule(toy, made, tmp_path: Path) -> None:
    samples, folder = made
    line = (
        r"cube: drawn: expected the filter to keep some of the 13 images of type blot, found none left "
        r"\(filter.min_exemplar_distance: 0.001 leaves out 1, filter.min_normal_distance: 1e\+06 leaves out 13\). "
        r"Lower filter.min_normal_distance."
    )
    params = _of(toy, min_exemplar_distance=1e-3, min_normal_distance=1e6)
    with pytest.raises(CADiffError, match=line):
        filter_shards(Task(params, "cube", "drawn", samples), {"drawn": folder}, tmp_path / "kept")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: {filter: {min_normal_distance: 1}}", r"recipe.filter.min_normal_distance: the strict protocol leaves no image out; set "
         r"recipe.detector.protocol: filtered, or min_normal_distance: null"),
        ("recipe: {filter: {min_normal_distance: 1}, detector: {protocol: legacy}}", "the legacy protocol leaves no image out"),
        ("recipe: {detector: {protocol: filtered}}", "protocol: filtered needs a rule; expected a number for one of min_exemplar_distance"),
        ("products: {cube: {recipe: {filter: {min_normal_distance: 1}}}}", r"products.cube: recipe.filter.min_normal_distance: the strict"),
        ("recipe: {filter: {min_mask_agreement: 2}}", "recipe.filter.min_mask_agreement: Input should be less than or equal to 1"),
    ],
)  # fmt: skip
def test_rules_and_protocol_come_together(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text if "products" in text else f"{text}\nproducts: {{cube: {{}}}}")
    with pytest.raises(UsageError, match=message):
        load_params(path)


def test_one_product_may_be_filtered_alone() -> None:
    own = {"filter": {"min_normal_distance": 1}, "detector": {"protocol": "filtered"}}
    params = bare(products={"cube": own, "ball": {}})
    assert params.for_product("cube").filter.rules == {"normal_distance": 1}
    assert params.for_product("ball").filter.rules == {}
