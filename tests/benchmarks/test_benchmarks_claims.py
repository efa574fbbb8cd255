"""benchmarks/claims.py: its measures by hand, and every part on a tiny base."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from parameters import bare
from scipy import ndimage

from cadiff.params import DatasetParams, Params, file_form, load_params
from cadiff.records import METRIC_SCHEMA
from cadiff.storage import read_table

SETTINGS = {
    "tokens": ["single token", "multiple tokens"],
    "training": [f"{rate}, {saim}" for rate in ("a tenth", "as set", "tenfold") for saim in ("SAIM", "without")],
    "joint": ["joint", "a generator a type"],
    "focus": ["delayed", "at once"],
    "unseen": ["each alone", "two in one image"],
    "tables": ["MTL + Reg + SAIM", "single token", "MTL", "MTL + Reg", "MTL + SAIM", "w = 0.5", "w = 1", "w = 1.5", "w/o MFA", "w/o DFS"],
}  # fmt: skip


@pytest.fixture
def claims(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return script("claims")


def test_a_blurred_edge_is_less_sharp_whatever_its_contrast(claims: ModuleType) -> None:
    masks = np.zeros((1, 40, 40), bool)
    masks[:, 10:30, 10:30] = True
    blurred = [claims.sharpness(ndimage.gaussian_filter(masks.astype(float), (0, s, s)), masks) for s in (0, 1, 3)]
    assert blurred[0] > 1.3 * blurred[1] > 1.3 * blurred[2]
    assert claims.sharpness(0.2 * masks, masks) == pytest.approx(blurred[0])


def test_copies_have_no_distance_and_likeness_is_of_pairs(claims: ModuleType) -> None:
    real = np.array([[0.0, 0], [4, 0]])
    assert claims.spread(real, real) == {"exemplar": 0, "apart": 16}
    made = np.array([[0.0, 1], [4, 2], [4, 0]])
    assert claims.spread(made, real) == {"exemplar": pytest.approx(5 / 3), "apart": pytest.approx((17 + 17 + 4) / 3)}


def test_the_silhouette_tells_clusters_from_a_cloud(claims: ModuleType) -> None:
    rng = np.random.default_rng(0)
    concepts, cloud = np.arange(3).repeat(6), rng.normal(size=(18, 8)).astype(np.float32)
    apart = cloud + 20 * np.eye(8, dtype=np.float32)[concepts]
    assert claims.silhouette(apart, concepts) > 0.6
    assert claims.silhouette(cloud, concepts) < 0.2


def test_settings_are_the_claims_alternatives(claims: ModuleType) -> None:
    params = bare(products={"a": {}}, prompt={"learning_rate": 1e-3})
    assert {part: list(claims.settings(params, part)) for part in claims.PARTS} == SETTINGS
    rates = {name: own["prompt"]["learning_rate"] for name, own in claims.settings(params, "training").items()}
    assert rates["a tenth, SAIM"] == pytest.approx(1e-4)
    assert rates["tenfold, without"] == pytest.approx(1e-2)
    for part in claims.PARTS:
        params.with_variants(claims.settings(params, part))


def test_tables_4_and_5_are_of_generated_backgrounds_and_the_small_scale_is_less_of_everything(claims: ModuleType) -> None:
    params = load_params(claims.PRESET)
    whole = claims.adjusted(params, "tables", small=False)
    assert (whole.generate.background, whole.window.cut, whole.generate.blend, whole.dataset.size) == ("generated", "whole", None, 64)
    assert whole.train == params.train
    assert claims.adjusted(params, "focus", small=False) == params.model_copy(update={"variants": {}})
    for part in claims.PARTS:
        small = claims.adjusted(params, part, small=True)
        assert small.train.steps < params.train.steps
        assert small.generate.per_type < params.generate.per_type
        assert small.detector.epochs < params.detector.epochs
        assert (small.generate.background == "generated") == (part == "tables")


def test_pairs_are_two_types_in_one_picture_and_a_judge_knows_what_is_real(
    claims: ModuleType, drawn_root: Path, small_params: Params, tmp_path: Path
) -> None:
    params = small_params.model_copy(update={"dataset": DatasetParams(name="demo", layout="demo", root=str(drawn_root), size=64)})
    cell = claims.Cell(params, "nut", tmp_path)
    scenes = claims.paired_scenes(cell, 2)
    assert [scene.types for scene in scenes] == [pair for pair in itertools.combinations(("chip", "rust", "scratch"), 2) for _ in range(2)]
    assert all(scene.picture is scene.normal and scene.normal.role == "normal" for scene in scenes)
    assert all(set(scene.intensities) == {1.0} for scene in scenes)
    assert len({scene.seed for scene in scenes}) == 6
    classifier, real = claims.judge(cell)
    assert set(classifier.classes_) == {"chip", "rust", "scratch", claims.NOTHING}
    assert 0.25 < real <= 1
    rows = [row for row in cell.samples if row.role == "held_out"]
    said = classifier.predict(claims.pooled(claims.windows_of(cell, rows)[0]))
    assert (said == [row.anomaly_type for row in rows]).mean() > 0.8, "it was trained on them"


@pytest.mark.slow
def test_every_part_is_measured(
    claims: ModuleType, tiny_base: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    params = bare(
        dataset={"root": str(drawn_root), "size": 96}, products={"nut": {}}, base={"path": str(tiny_base), "size": 64, "device": "cpu"},
        train={"steps": 3, "batch": 2}, intensity={"threshold": 0.0}, generate={"per_type": 2, "steps": 1, "batch": 4},
        detector={"width": 4, "epochs": 1, "samples_per_epoch": 8},  # ten of them
    )  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(file_form(params)))
    out = tmp_path / "claims.parquet"
    call = ["--params", str(tmp_path / "params.yaml"), "--seeds", "0", "--count", "2", "--out", str(out), "--work", str(tmp_path / "cells")]
    with pytest.raises(SystemExit) as ended:
        claims.main(call)
    assert ended.value.code == 0
    frame = read_table(out, METRIC_SCHEMA).to_pandas()
    assert list(dict.fromkeys(frame["variant"])) == [f"{part}: {name}" for part, names in SETTINGS.items() for name in names]
    assert frame[frame["metric"] != "ic_lpips"]["value"].notna().all(), "of two images no cluster may have two"
    shown = capsys.readouterr().out
    assert "| a generator a type |" in shown
    assert {"silhouette", "attention_iou", "sharpness", "missing_rate", "leakage_rate", "exemplar", "apart", "told",
            "told_chip", "both", "off_product", "pixel_ap"} <= set(frame["metric"])
