"""Training and scoring a real, small detector."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from parameters import save_each_step
from sklearn.metrics import average_precision_score, roc_auc_score

from cadiff.checkpoint import save_training
from cadiff.detection.scoring import load_model, score
from cadiff.detection.segmenter import predict
from cadiff.detection.tiles import View
from cadiff.detection.training import identity, train_detector
from cadiff.errors import CADiffError
from cadiff.records import CURVE_SCHEMA, METRIC_SCHEMA, SCORED_SCHEMA, ScoredRow, from_table, to_table
from cadiff.storage import decode_image, read_image, read_table, read_tensors, write_tensors
from cadiff.task import Task


def _train(toy, out: Path, work: Path, seed: int = 0, **detector) -> None:
    settings = toy.params.detector.model_copy(update=detector)
    params = toy.params.model_copy(update={"detector": settings})
    train_detector(Task(params, "cube", "drawn", toy.samples), [toy.generated], seed, out, work)


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    _train(toy, out / "made", out / "work")
    return out


def test_learns_what_it_was_shown(toy, trained) -> None:
    tables: list = []
    metrics = score(Task(toy.params, "cube", "drawn", toy.samples), 0, trained / "made", tables.append)
    values = {row.metric: row.value for row in metrics}
    assert {*values} == {
        "pixel_auroc", "pixel_ap", "pixel_f1max", "image_auroc", "image_ap", "image_f1max", "pro",
        "pixel_ap/blot", "pixel_ap/line", "pixel_ap_types",
    }  # fmt: skip
    assert values["pixel_ap"] > 0.8
    assert values["image_auroc"] > 0.9
    counts = {row.metric: row.n for row in metrics}
    assert (counts["pro"], counts["pixel_ap/blot"], counts["pixel_ap_types"]) == (12, 8, 12)
    assert {row.variant for row in metrics} == {"unet"}
    assert to_table(metrics, METRIC_SCHEMA).num_rows == 10
    assert sum(table.num_rows for table in tables) == 12
    assert tables[0].schema == SCORED_SCHEMA
    curve = read_table(trained / "made" / "curve-0.parquet", CURVE_SCHEMA).to_pandas()
    assert curve.step.iloc[-1] == 60
    assert curve.value.iloc[-5:].mean() < curve.value.iloc[:5].mean() / 3


def test_metrics_are_those_of_the_maps(toy, trained) -> None:
    path = trained / "made" / "seed-0.safetensors"
    tables: list = []
    metrics = score(Task(toy.params, "cube", "drawn", toy.samples), 0, trained / "made", tables.append)
    scored = from_table(pa.concat_tables(tables), ScoredRow)
    values = {row.metric: row.value for row in metrics}
    rows = [row for row in toy.samples if row.role in ("held_out", "test_good")]
    model, view = load_model(Task(toy.params, "cube", "drawn"), 0, path)[0], View.of(toy.params)
    maps = [predict(model, read_image(row.image_path), view) for row in rows]
    assert {map_.shape for map_ in maps} == {(32, 32), (32, 48), (44, 32)}
    masks = [read_image(r.mask_path, "L") > 0 if r.mask_path else np.zeros(m.shape, bool) for r, m in zip(rows, maps, strict=True)]

    def pixels(arrays, chosen):
        return np.concatenate([array.ravel() for array, row in zip(arrays, rows, strict=True) if row.anomaly_type in chosen])

    everything = (None, "blot", "line")
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(pixels(masks, everything), pixels(maps, everything)))
    for kind in ("blot", "line"):
        expected = average_precision_score(pixels(masks, (None, kind)), pixels(maps, (None, kind)))
        assert values[f"pixel_ap/{kind}"] == pytest.approx(expected)
    assert values["pixel_ap_types"] == pytest.approx((values["pixel_ap/blot"] + values["pixel_ap/line"]) / 2)
    image_labels = [row.role == "held_out" for row in rows]
    assert values["image_auroc"] == pytest.approx(
        roc_auc_score(image_labels, [r.image_score for r in scored])
    )
    for row, map_ in zip(scored, maps, strict=True):
        seen = decode_image(row.anomaly_map["bytes"], "L")
        assert np.abs(seen / 255 - map_).max() <= 0.5 / 255 + 1e-6


def test_stopped_and_resumed_gives_the_same_bytes(toy, trained, tmp_path, monkeypatch) -> None:
    work, out = tmp_path / "work", tmp_path / "made"
    checkpoint = work / "seed-0.safetensors"

    def stop_once_saved(*given: object) -> None:
        save_training(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr("cadiff.checkpoint.save_training", stop_once_saved)
    save_each_step(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        _train(toy, out, work)
    monkeypatch.undo()
    assert 0 < int(read_tensors(checkpoint)[1]["step"]) < 60
    assert not out.exists()
    _train(toy, out, work)
    for name in ("seed-0.safetensors", "curve-0.parquet"):
        assert (out / name).read_bytes() == (trained / "made" / name).read_bytes()


def test_finished_run_is_written_again_without_training(toy, trained, tmp_path) -> None:
    shutil.copytree(trained / "work", tmp_path / "work")
    _train(toy, tmp_path / "made", tmp_path / "work")
    written, before = (folder / "made" / "seed-0.safetensors" for folder in (tmp_path, trained))
    assert written.read_bytes() == before.read_bytes()


def test_another_seed_is_another_detector(toy, trained, tmp_path) -> None:
    _train(toy, tmp_path, tmp_path / "work", seed=1, epochs=1)
    _train(toy, tmp_path, tmp_path / "work", seed=2, epochs=1)
    one, two = (read_tensors(tmp_path / f"seed-{seed}.safetensors")[0]["head.weight"] for seed in (1, 2))
    assert not one.equal(two)


def test_refusals_name_what_to_do(toy, trained, tmp_path) -> None:
    path = trained / "made" / "seed-0.safetensors"
    shutil.copy(path, tmp_path / "seed-3.safetensors")
    with pytest.raises(CADiffError, match="expected a detector of seed 3, found 0"):
        score(Task(toy.params, "cube", "drawn", toy.samples), 3, tmp_path)
    with pytest.raises(CADiffError, match="expected held-out or good test images"):
        score(Task(toy.params, "cube", "drawn", toy.samples[:8]), 0, trained / "made")


def test_legacy_keeps_the_epoch_that_is_best_on_the_test_set_and_says_so(toy, tmp_path) -> None:
    def train(out: str, work: str, **detector) -> None:
        _train(toy, tmp_path / out, tmp_path / work, protocol="legacy", epochs=4, **detector)

    train("made", "work")
    path = tmp_path / "made" / "seed-0.safetensors"
    best = int(read_tensors(path)[1]["best_epoch"])
    assert 1 <= best <= 4
    # The same run cut off after each epoch: a learning rate that drops later changes nothing before.
    totals = []
    for epochs in range(1, 5):
        settings = toy.params.detector.model_copy(update={"epochs": 4, "protocol": "legacy"})
        legacy = toy.params.model_copy(update={"detector": settings})
        model = _after(legacy, toy, epochs * 5, tmp_path / f"epoch-{epochs}")
        found = {row.metric: row.value for row in score(Task(legacy, "cube", "drawn", toy.samples), 0, model)}
        totals.append(sum(found[name] for name in ("image_auroc", "pixel_auroc", "pixel_ap", "pro")))
    assert best == 1 + int(np.argmax(totals))
    rows = score(Task(legacy, "cube", "drawn", toy.samples), 0, tmp_path / "made")
    assert {row.protocol for row in rows} == {"legacy"}
    values = {row.metric: row.value for row in rows}
    assert sum(values[n] for n in ("image_auroc", "pixel_auroc", "pixel_ap", "pro")) == pytest.approx(max(totals))


class StopError(Exception):
    """Ends a run where a test wants it to."""


def _after(params, toy, steps: int, folder: Path) -> Path:
    """The detector after so many steps, with the schedule of the whole run."""

    def save(path, step, modules, optimizer, scaler):
        if step == steps:
            metadata = identity(Task(params, "cube", "drawn"), 0) | {"made_by": ""}
            write_tensors(folder / "seed-0.safetensors", modules["model"].state_dict(), metadata)
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        save_each_step(patch)
        patch.setattr("cadiff.checkpoint.save_training", save)
        with pytest.raises(StopError):
            train_detector(Task(params, "cube", "drawn", toy.samples), [toy.generated], 0, folder, folder / "work")
    return folder


def test_larger_pictures_are_learnt_and_scored_in_tiles_by_the_pretrained_network(toy, tmp_path) -> None:
    """Pictures of three shapes at twice their canvas, in tiles of half of that; stopped and resumed to the same bytes; the file says
    how pictures are to be seen, and one that was trained to see them otherwise is refused."""
    seeing = {"network": "efficientnet-lite0", "size": 64, "tile": 32}
    settings = {**seeing, "epochs": 1, "samples_per_epoch": 12, "batch": 4}
    _train(toy, tmp_path / "whole", tmp_path / "work", **settings)
    with pytest.MonkeyPatch.context() as patch:
        save_each_step(patch)
        patch.setattr("cadiff.checkpoint.save_training", _stopping(save_training))
        with pytest.raises(StopError):
            _train(toy, tmp_path / "parts", tmp_path / "again", **settings)
    _train(toy, tmp_path / "parts", tmp_path / "again", **settings)
    whole, parts = (tmp_path / name / "seed-0.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    metadata = read_tensors(whole)[1]
    assert {name: metadata[name] for name in ("network", "canvas", "size", "tile")} == {
        "network": "efficientnet-lite0", "canvas": "32", "size": "64", "tile": "32",
    }  # fmt: skip

    params = toy.params.model_copy(update={"detector": toy.params.detector.model_copy(update=settings)})
    tables: list = []
    rows = score(Task(params, "cube", "drawn", toy.samples), 0, tmp_path / "whole", tables.append)
    assert {row.variant for row in rows} == {"efficientnet-lite0"}
    shapes = {decode_image(row.anomaly_map["bytes"], "L").shape for row in from_table(pa.concat_tables(tables), ScoredRow)}
    assert shapes == {(64, 64), (64, 96), (88, 64)}, "maps are kept at the detector's scale"
    other = params.model_copy(update={"detector": params.detector.model_copy(update={"size": None})})
    with pytest.raises(CADiffError, match="expected a detector of size 32, found 64"):
        score(Task(other, "cube", "drawn", toy.samples), 0, tmp_path / "whole")


def _stopping(save):
    def stopped(*given: object) -> None:
        save(*given)
        raise StopError

    return stopped
