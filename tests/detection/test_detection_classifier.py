"""The classifier learns to tell drawn types apart, resumes to the same bytes, and says nothing where nothing can be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from parameters import save_each_step
from PIL import Image

from cadiff.checkpoint import save_training
from cadiff.detection.classifier import METRIC, Classifier, batch_indices, classify, load_labelled, square
from cadiff.errors import UsageError
from cadiff.metrics.networks import find_networks
from cadiff.records import GENERATED_SCHEMA, METRIC_SCHEMA, to_table
from cadiff.storage import encode_png, read_tensors, sha256_file, write_table, write_tensors
from cadiff.task import Task


def _params(toy, **settings):
    values = toy.params.classifier.model_copy(update={"epochs": 5, "learning_rate": 3e-4, **settings})
    return toy.params.model_copy(update={"classifier": values})


def _classify(toy, work: Path, **settings):
    return classify(Task(_params(toy, **settings), "cube", "drawn", toy.samples), [toy.generated], 0, work)


def test_tells_blots_from_lines(toy, tmp_path, monkeypatch) -> None:
    rows = _classify(toy, tmp_path / "work")
    assert [row.metric for row in rows] == [METRIC, f"{METRIC}/blot", f"{METRIC}/line"]
    assert [row.n for row in rows] == [8, 4, 4]
    assert rows[0].value == pytest.approx((rows[1].value + rows[2].value) / 2)
    assert rows[0].value >= 0.75
    assert {(row.variant, row.protocol) for row in rows} == {("efficientnet-lite0(imagenet)", "strict")}
    assert to_table(rows, METRIC_SCHEMA).num_rows == 3

    def save_and_stop(path, step, *rest):
        save_training(path, step, *rest)
        if step >= 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cadiff.checkpoint.save_training", save_and_stop)
        save_each_step(patch)
        with pytest.raises(KeyboardInterrupt):
            classify(Task(_params(toy), "cube", "drawn", toy.samples), [toy.generated], 0, tmp_path / "again")
    checkpoint = "classifier-0.safetensors"
    assert read_tensors(tmp_path / "again" / checkpoint)[1]["step"] == "3"
    assert _classify(toy, tmp_path / "again") == rows
    whole, resumed = ((tmp_path / name / checkpoint).read_bytes() for name in ("work", "again"))
    assert whole == resumed


def test_a_picture_is_stretched_to_a_square_of_its_canvas_or_256_px(toy, make_row, tmp_path) -> None:
    def of(size: int | str) -> int:
        return square(toy.params.model_copy(update={"dataset": toy.params.dataset.model_copy(update={"size": size})}))

    assert [of(64), of(256), of(1024), of("native")] == [64, 256, 256, 256]
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    rows = [make_row(kind, [kind], encode_png(image), encode_png(image[..., 0])) for kind in ("blot", "line")]
    for row in rows:
        write_table(tmp_path / f"{row.sample_id}.parquet", to_table([row], GENERATED_SCHEMA))
    shards = {row.sample_id: [tmp_path / f"{row.sample_id}.parquet"] for row in rows}
    images, labels, _ = load_labelled(shards, ["blot", "line"], 40)
    assert (len(images), labels.tolist()) == (2, [0, 1])
    assert np.array_equal(images[1], np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling.LANCZOS)))


def test_every_epoch_has_each_image_once() -> None:
    drawn = torch.cat([batch_indices(10, 4, step, (0, "x")) for step in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()
    assert torch.equal(drawn[4:8], batch_indices(10, 4, 1, (0, "x")))
    assert not torch.equal(drawn[:4], batch_indices(10, 4, 0, (1, "x")))


def test_nothing_is_said_where_there_is_nothing_to_tell_apart(toy, tmp_path) -> None:
    one_type = [row for row in toy.samples if row.anomaly_type != "line"]
    assert classify(Task(_params(toy), "cube", "drawn", one_type), [toy.generated], 0, tmp_path) == []
    (tmp_path / "typeless").mkdir()
    (tmp_path / "typeless" / "anomaly.parquet").write_bytes((toy.generated / "blot.parquet").read_bytes())
    assert classify(Task(_params(toy), "cube", "drawn", toy.samples), [tmp_path / "typeless"], 0, tmp_path) == []


def test_resnet34_starts_from_a_checked_file_or_from_scratch(toy, tmp_path) -> None:
    scratch = Classifier("resnet34", 3)
    assert scratch.variant == "resnet34(scratch)"
    assert scratch(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    weights = {name: tensor for name, tensor in scratch.model.state_dict().items() if not name.startswith("fc.")}
    path = tmp_path / "mine.safetensors"
    write_tensors(path, weights | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)})
    with pytest.raises(UsageError, match=r"classifier.weights: .*mine.safetensors: expected the published resnet34"):
        find_networks(_params(toy, network="resnet34", weights=str(path)))
    digest = sha256_file(path)
    found = find_networks(_params(toy, network="resnet34", weights=f"{path}@{digest}"))[2]
    loaded = Classifier("resnet34", 3, found)
    assert loaded.variant == f"resnet34(imagenet@{digest[:8]})"
    assert torch.equal(loaded.model.conv1.weight, scratch.model.conv1.weight)
    with pytest.raises(UsageError, match=r"expected SHA-256 0{64}, found"):
        find_networks(_params(toy, network="resnet34", weights=f"{path}@{64 * '0'}"))
    with pytest.raises(UsageError, match=r"resnet34-b627a593.pth, which is not there"):
        find_networks(_params(toy, network="resnet34", weights=str(tmp_path / "resnet34-b627a593.pth")))
