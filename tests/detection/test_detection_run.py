"""Training and scoring a real, small detector."""

from __future__ import annotations

import _thread
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cadiff.detection.scoring import load_detector, predict, score
from cadiff.detection.training import train_detector
from cadiff.errors import CADiffError, UsageError
from cadiff.records import CURVE_SCHEMA, METRIC_SCHEMA, SCORED_SCHEMA, to_table
from cadiff.storage import decode_image, read_image, read_table, read_tensors


def _train(toy, out: Path, work: Path, seed: int = 0, **detector) -> None:
    settings = toy.params.detector.model_copy(update=detector)
    params = toy.params.model_copy(update={"detector": settings})
    train_detector(params, "drawn", "cube", [toy.generated], toy.samples, seed, out, work)


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    _train(toy, out / "made", out / "work")
    return out


def test_learns_what_it_was_shown(toy, trained) -> None:
    metrics, scored = score(toy.params, "drawn", "cube", toy.samples, 0, trained / "made")
    values = {row.metric: row.value for row in metrics}
    assert {*values} == {
        "pixel_auroc", "pixel_ap", "pixel_f1max", "image_auroc", "image_ap", "image_f1max", "pro",
        "pixel_ap/blot", "pixel_ap/line",
    }  # fmt: skip
    assert values["pixel_ap"] > 0.8
    assert values["image_auroc"] > 0.9
    counts = {row.metric: row.n for row in metrics}
    assert (counts["pro"], counts["pixel_ap/blot"]) == (12, 8)
    assert to_table(metrics, METRIC_SCHEMA).num_rows == 9
    assert to_table(scored, SCORED_SCHEMA).num_rows == 12
    curve = read_table(trained / "made" / "curve-0.parquet", CURVE_SCHEMA).to_pandas()
    assert curve.step.iloc[-1] == 60
    assert curve.value.iloc[-5:].mean() < curve.value.iloc[:5].mean() / 3


def test_metrics_are_those_of_the_maps(toy, trained) -> None:
    path = trained / "made" / "seed-0.safetensors"
    metrics, scored = score(toy.params, "drawn", "cube", toy.samples, 0, trained / "made")
    values = {row.metric: row.value for row in metrics}
    rows = [row for row in toy.samples if row.role in ("held_out", "test_good")]
    maps = predict(load_detector(toy.params, "drawn", "cube", 0, path)[0], rows, 32)
    masks = np.array(
        [read_image(r.mask_path, "L") > 0 if r.mask_path else np.zeros((32, 32), bool) for r in rows]
    )
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    lines = np.array([row.anomaly_type in (None, "line") for row in rows])
    expected = average_precision_score(masks[lines].ravel(), maps[lines].ravel())
    assert values["pixel_ap/line"] == pytest.approx(expected)
    image_labels = [row.role == "held_out" for row in rows]
    assert values["image_auroc"] == pytest.approx(
        roc_auc_score(image_labels, [r.image_score for r in scored])
    )
    seen = decode_image(scored[0].anomaly_map["bytes"], "L")
    assert np.abs(seen / 255 - maps[0]).max() <= 0.5 / 255 + 1e-6


def test_stopped_and_resumed_gives_the_same_bytes(toy, trained, tmp_path) -> None:
    work, out = tmp_path / "work", tmp_path / "made"
    checkpoint = work / "seed-0.safetensors"

    def stop_once_saved() -> None:
        while not checkpoint.exists():
            time.sleep(0.001)
        _thread.interrupt_main()

    threading.Thread(target=stop_once_saved, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        _train(toy, out, work, checkpoint_seconds=0.02)
    assert 0 < int(read_tensors(checkpoint)[1]["step"]) < 60
    assert not out.exists()
    _train(toy, out, work)
    for name in ("seed-0.safetensors", "curve-0.parquet"):
        assert (out / name).read_bytes() == (trained / "made" / name).read_bytes()


def test_finished_run_is_written_again_without_training(toy, trained, tmp_path) -> None:
    shutil.copytree(trained / "work", tmp_path / "work")
    _train(toy, tmp_path / "made", tmp_path / "work", checkpoint_seconds=1)
    written, before = (folder / "made" / "seed-0.safetensors" for folder in (tmp_path, trained))
    assert written.read_bytes() == before.read_bytes()


def test_another_seed_is_another_detector(toy, trained, tmp_path) -> None:
    _train(toy, tmp_path, tmp_path / "work", seed=1, epochs=1)
    _train(toy, tmp_path, tmp_path / "work", seed=2, epochs=1)
    one, two = (read_tensors(tmp_path / f"seed-{seed}.safetensors")[0]["head.weight"] for seed in (1, 2))
    assert not one.equal(two)


def test_refusals_name_what_to_do(toy, trained, tmp_path) -> None:
    path = trained / "made" / "seed-0.safetensors"
    with pytest.raises(UsageError, match="legacy"):
        _train(toy, tmp_path, tmp_path, protocol="legacy")
    shutil.copy(path, tmp_path / "seed-3.safetensors")
    with pytest.raises(CADiffError, match="expected a detector of seed 3, found 0"):
        score(toy.params, "drawn", "cube", toy.samples, 3, tmp_path)
    with pytest.raises(CADiffError, match="expected held-out or good test images"):
        score(toy.params, "drawn", "cube", toy.samples[:8], 0, trained / "made")
