"""The published evaluation (protocol `legacy`) against what its code does, and what asks for it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from parameters import bare, file_text
from torch import nn

from cadiff.detection.batches import in_turn, load_training_data
from cadiff.detection.classifier import (
    Classifier,
    load_classifier,
    load_labelled,
    score_classifier,
    train_classifier,
    write_classifier,
)
from cadiff.detection.published import initialise, published, published_batch
from cadiff.detection.tiles import View
from cadiff.detection.training import _start
from cadiff.detection.unet import UNet
from cadiff.errors import UsageError
from cadiff.metrics.generated import VARIANTS
from cadiff.params import LEGACY, Params, check_legacy, load_params
from cadiff.records import GENERATED_SCHEMA, METRIC_SCHEMA, SAMPLE_SCHEMA, to_table
from cadiff.stages import Run, detect
from cadiff.storage import read_metadata, read_table, read_tensors, resize_mask, write_table
from cadiff.task import Task


def legacy(params: Params) -> Params:
    """The protocol alone, at the sizes that the parameters have: what they do is tested elsewhere."""
    return params.model_copy(update={"detector": params.detector.model_copy(update={"protocol": "legacy"})})


@pytest.mark.parametrize(("thickness", "kept"), [(3, 0.58), (6, 0.78), (40, 0.96)])
def test_the_published_rule_of_true_masks(thickness: int, kept: float) -> None:
    """Bilinear in 8 bits without antialiasing, as OpenCV has it, then cut to integers: lines of 1024 px at 256 px get thinner."""
    rng, ratios = np.random.default_rng(0), []
    rows, columns = np.mgrid[:1024, :1024] - 512
    for _ in range(8):
        angle = rng.uniform(0, np.pi)
        line = np.abs(columns * np.sin(angle) - rows * np.cos(angle) + rng.uniform(-40, 40)) < thickness / 2
        found = resize_mask(line, (256, 256), "cut")
        between = nn.functional.interpolate(torch.from_numpy(line)[None, None].float() * 255, (256, 256), mode="bilinear")
        assert np.array_equal(found, (between.round() / 255)[0, 0].to(torch.uint8).numpy() == 1)
        ratios.append(16 * found.sum() / line.sum())
    assert np.mean(ratios) == pytest.approx(kept, abs=0.04)


def test_weights_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    model = UNet(16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            assert module.weight.mean().item() == pytest.approx(0, abs=4 * 0.02 / module.weight.numel() ** 0.5), name
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05), name
            assert torch.equal(module.bias, before[f"{name}.bias"]), "their biases stay"
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=4 * 0.02 / module.weight.numel() ** 0.5), name
            assert not module.bias.any()


def test_a_legacy_detector_starts_from_them_and_ours_does_not(toy) -> None:
    starts = [_start(own.detector, "cube", 0, torch.device("cpu"), torch.float32).model for own in (legacy(toy.params), toy.params)]
    deviations = [torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, nn.Conv2d)]).std().item() for model in starts]
    assert deviations[0] == pytest.approx(0.02, rel=0.02)
    assert deviations[1] > 0.03


def test_a_legacy_batch_is_coins_of_real_normals_and_at_most_so_many_images_of_a_type(toy, good_row, tmp_path: Path) -> None:
    """No jitter, and nothing of the generator's path among the normals."""
    write_table(tmp_path / "good.parquet", to_table([good_row(7)], GENERATED_SCHEMA))
    data = load_training_data("cube", toy.samples, [toy.generated, tmp_path], View.of(toy.params), 2, "half")
    assert {name: len(pool) for name, pool in data.anomalies.items()} == {"blot": 2, "line": 2}
    batches = [published_batch(data, 8, torch.Generator().manual_seed(k)) for k in range(25)]
    marked = torch.stack([batch.mask.flatten(1).any(1) for batch in batches])
    assert abs(marked.double().mean().item() - 0.5) < 4 * np.sqrt(0.25 / 200)
    assert marked.sum(1).unique().numel() > 2, "not half of each batch"
    assert not any((batch.image == 7 / 127.5 - 1).flatten(1).all(1).any() for batch in batches)
    grey = ((torch.cat([batch.image for batch in batches]) + 1) * 127.5)
    assert torch.allclose(grey, grey.round(), atol=1e-3), "pictures as they are"


def test_of_a_union_each_type_has_so_many_images_in_all_as_many_of_each_source(toy, tmp_path: Path) -> None:
    assert in_turn([[1, 2, 3], [10]], 3) == [1, 10, 2]
    assert in_turn([[1, 2, 3], [10]], 9) == in_turn([[1, 2, 3], [10]]) == [1, 2, 3, 10]
    shutil.copytree(toy.generated, tmp_path / "other")
    sources = sorted([toy.generated, tmp_path / "other"])
    rows = {folder: read_table(folder / "blot.parquet", GENERATED_SCHEMA).to_pylist() for folder in sources}
    data = load_training_data("cube", toy.samples, sources, View.of(toy.params), 3, "half")
    assert {name: len(pool) for name, pool in data.anomalies.items()} == {"blot": 3, "line": 3}, "not 3 a folder"
    named = [(sources[0], 0), (sources[1], 0), (sources[0], 1)]
    expected = [f"{folder / 'blot.parquet'}: {rows[folder][index]['sample_id']}" for folder, index in named]
    assert [encoded.name for encoded in data.anomalies["blot"].encoded] == expected
    shards = {kind: [folder / f"{kind}.parquet" for folder in sources] for kind in ("blot", "line")}
    labels = load_labelled(shards, ["blot", "line"], 32, 3)[1]
    assert labels.bincount().tolist() == [3, 3]


def test_a_legacy_classifier_passes_five_times_and_sees_no_normalisation(toy, tmp_path: Path) -> None:
    quick = {"epochs": 1, "learning_rate": 1e-4, "network": "resnet34", "batch": 5}
    params = legacy(toy.params).model_copy(update={"classifier": toy.params.classifier.model_copy(update=quick)})
    trained = train_classifier(Task(params, "cube", "drawn", toy.samples), [toy.generated], 0, tmp_path / "work")
    assert trained is not None
    assert trained.card.variant == "resnet34(scratch,plain)"
    assert read_tensors(tmp_path / "work" / "classifier-0.safetensors")[1]["step"] == "15", "five times 15 images in batches of 5"
    rows = score_classifier(Task(params, "cube", "drawn", toy.samples), 0, trained)
    assert {(row.variant, row.protocol) for row in rows} == {("resnet34(scratch,plain)", "legacy")}
    write_classifier(trained, tmp_path, 0)
    again = load_classifier(trained.card, tmp_path / "classifier-0.safetensors", torch.device("cpu"))
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(again(image), again.model((image + 1) / 2)), "values from 0 to 1"
        assert not torch.equal(again(image), Classifier("resnet34", 2).eval()(image))
    shards = {"blot": [toy.generated / "blot.parquet"], "line": [toy.generated / "line.parquet"]}
    assert [int((load_labelled(shards, ["blot", "line"], 32, 2)[1] == label).sum()) for label in (0, 1)] == [2, 2]


def test_what_asks_for_it_by_name_must_be_it(tmp_path: Path) -> None:
    asked = {"detector": {**LEGACY["detector"], "protocol": "legacy"}, "metrics": dict(LEGACY["metrics"])}

    def loaded(products: dict[str, object], **sections: object) -> Params:
        (tmp_path / "params.yaml").write_text(file_text({"products": products, **sections}))
        return load_params(tmp_path / "params.yaml")

    assert loaded({"a": {}}, **asked).detector.protocol == "legacy"
    with pytest.raises(UsageError, match=r"a: detector\.size: expected 256 with recipe\.detector\.protocol: legacy, .*, found 128; or set"):
        loaded({"a": {}}, detector={"protocol": "legacy"})
    with pytest.raises(UsageError, match=r"a: recipe\.metrics\.mask_rule: expected cut"):
        loaded({"a": {"metrics": {"mask_rule": "half"}}}, **asked)
    with pytest.raises(UsageError, match=r"a: recipe\.detector\.published: expected false with protocol: legacy"):
        loaded({"a": {}}, **{**asked, "detector": {**asked["detector"], "published": True}})
    beside = published(loaded({"a": {}}, detector={"published": True, "epochs": 7, "seeds": [1, 2]}))
    check_legacy(beside)
    assert (beside.detector.protocol, beside.detector.epochs, beside.detector.seeds) == ("legacy", 7, [1, 2])


@pytest.mark.slow
def test_the_stage_measures_by_both_evaluations_side_by_side(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = bare(
        products={"cube": {}}, dataset={"size": 32}, base={"size": 32, "device": "cpu"}, metrics={"size": 32}, methods=["exemplars"],
        detector={"width": 4, "epochs": 1, "samples_per_epoch": 8, "published": True}, classifier={"epochs": 1},
    )  # fmt: skip
    run = Run("detect", params.for_product("cube"), "cube", "exemplars")
    real = next(row for row in toy.samples if row.anomaly_type == "blot" and row.role == "held_out")
    samples = [row for row in toy.samples if row.role != "exemplar"] + [dataclasses.replace(real, sample_id="e", role="exemplar")]
    write_table(run.samples_path, to_table(samples, SAMPLE_SCHEMA))
    shutil.copytree(toy.generated, run.generated)
    detect(run)
    ours, theirs = (read_table(run.evaluated / name, METRIC_SCHEMA).to_pandas() for name in ("metrics.parquet", "published.parquet"))
    assert set(ours["protocol"]) == {"strict"}
    assert set(theirs["protocol"]) == {"legacy"}
    assert {"pixel_ap", "image_f1max", "classification_accuracy"} <= set(ours["metric"]) & set(theirs["metric"])
    told = [{name for name in frame["metric"] if name.startswith("ic_lpips(") and "/" not in name} for frame in (ours, theirs)]
    assert [len(names) for names in told] == [1, len({(cap, single) for _, cap, single in VARIANTS})]
    seen = [read_metadata(folder / "seed-0.safetensors")["size"] for folder in (run.detector, run.detector / "published")]
    assert seen == ["32", "256"]
