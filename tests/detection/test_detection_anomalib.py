"""anomalib's detectors: their losses against anomalib's own training steps, resumed runs, what is frozen, what is refused."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models
from parameters import bare, save_each_step
from safetensors.torch import save_file

from cadiff.detection import anomalib_peers as peers
from cadiff.detection import fit_peer, score_peer
from cadiff.detection.tiles import View
from cadiff.errors import CADiffError, UsageError
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.storage import read_image, read_tensors, sha256_file
from cadiff.task import Task

pytest.importorskip("anomalib", reason="anomalib is not installed (the extra `anomalib`)")

CPU = torch.device("cpu")
STREAM = (0, "peer", "any", "cube")


def settled(params: Params, **peers: Any) -> Params:
    """In float32: a rounding would hide what differs."""
    settings = {"steps": 2, "batch": 2, **peers}
    return params.model_copy(
        update={"base": params.base.model_copy(update={"dtype": "float32"}), "peers": params.peers.model_copy(update=settings)}
    )


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A ResNet-18 of random weights, as a user names one that nobody published."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(torchvision.models.resnet18(weights=None).state_dict(), path)
    return {"backbone": "resnet18", "weights": f"{path}@{sha256_file(path)}"}


def normals(toy) -> list[SampleRow]:
    return [row for row in toy.samples if row.role == "normal"]


@pytest.fixture
def squares(toy) -> peers.Squares:
    return peers.Squares(normals(toy), View.of(toy.params))


@pytest.fixture
def pictures(squares) -> torch.Tensor:
    return torch.from_numpy(np.stack([squares[k] for k in range(4)]).transpose(0, 3, 1, 2).copy()).float() / 255


def test_a_square_is_the_whole_picture_stretched(toy, squares) -> None:
    for row, square in zip(normals(toy), squares, strict=True):
        assert np.array_equal(square, read_image(row.image_path, "RGB", (32, 32)))


@pytest.mark.parametrize("method", ["draem", "sspcab"])
def test_the_loss_is_that_of_anomalibs_training_step(toy, pictures, method: str, tmp_path: Path) -> None:
    """Their Lightning module with the same weights, the same simulated anomalies and the same random numbers."""
    from anomalib.models import Draem

    network = peers.build(settled(toy.params), method, STREAM, CPU)
    theirs = Draem(dtd_dir=tmp_path, enable_sspcab=method == "sspcab")
    theirs.model.load_state_dict(network.model.state_dict())
    theirs.augmenter = peers.simulator()
    torch.manual_seed(5)
    ours = network.loss(pictures).item()
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it logs, and no trainer listens
        expected = theirs.training_step(SimpleNamespace(image=pictures))["loss"].item()
    assert ours == pytest.approx(expected, rel=1e-5)


def test_a_stopped_run_ends_as_an_undisturbed_one_and_leaves_no_checkpoint(toy, squares, tmp_path: Path) -> None:
    params, product = settled(toy.params), "cube"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit_peer(Task(params, product, "draem", toy.samples), 0, whole, whole / "work")
    stream = (0, "peer", "draem", product)
    network, losses = peers.build(params, "draem", stream, CPU), []

    def stopping(images: torch.Tensor) -> torch.Tensor:
        losses.append(network.loss(images))
        if len(losses) == 2:
            raise KeyboardInterrupt
        return losses[-1]

    with pytest.MonkeyPatch.context() as patch:
        save_each_step(patch)
        with pytest.raises(KeyboardInterrupt):
            peers._train(
                params, dataclasses.replace(network, loss=stopping), squares, stream,
                parts / "work/seed-0.safetensors", CPU,
            )  # fmt: skip
    assert (parts / "work/seed-0.safetensors").exists()
    fit_peer(Task(params, product, "draem", toy.samples), 0, parts, parts / "work")
    assert (whole / "seed-0.safetensors").read_bytes() == (parts / "seed-0.safetensors").read_bytes()
    assert [path.name for path in (parts / "work").iterdir()] == ["finished-seed-0.safetensors"]

    rows = score_peer(Task(params, product, "draem", toy.samples), 0, whole)
    assert {row.variant.split("(")[0] for row in rows} == {"draem"}
    assert all("steps=2" in row.variant and "textures=3" in row.variant for row in rows)
    with pytest.raises(CADiffError, match=r"seed-0.safetensors: expected a detector of settings"):
        score_peer(Task(settled(params, steps=3), product, "draem", toy.samples), 0, whole)


def test_what_is_simulated_differs_inside_its_mask_alone(pictures) -> None:
    torch.manual_seed(0)
    shown, masks = peers.simulator()(pictures.repeat(5, 1, 1, 1))
    moved = (shown != pictures.repeat(5, 1, 1, 1)).any(1, keepdim=True)
    assert not (moved & (masks == 0)).any()
    assert 3 <= (masks.amax((1, 2, 3)) > 0).sum() <= 17, "half of the images stay as they are"
    assert (moved & (masks > 0)).sum() > 0.9 * masks.sum(), "what was laid over shows"


@pytest.mark.parametrize("method", ["rd4ad", "cfa"])
def test_a_backbone_is_taken_as_it_is_and_never_learns(toy, squares, backbone, method: str, tmp_path: Path) -> None:
    params = settled(toy.params, **backbone)
    file, digest = backbone["weights"].split("@")
    given = read_tensors(Path(file))[0]
    network = peers.build(params, method, STREAM, CPU)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    frozen = [name for name in before if name.startswith(peers.FROZEN) and name.endswith("layer3.0.conv1.weight")]
    assert len(frozen) == 1
    assert torch.equal(before[frozen[0]], given["layer3.0.conv1.weight"])
    peers._train(params, network, squares, STREAM, tmp_path / "checkpoint.safetensors", CPU)
    after = network.model.state_dict()
    for name, value in after.items():
        if name.startswith(peers.FROZEN) and "num_batches" not in name:
            assert torch.equal(value, before[name]), f"{name} of the backbone has changed"
    assert any(not torch.equal(after[name], before[name]) for name in after if not name.startswith(peers.FROZEN))

    fit_peer(Task(params, "cube", method, toy.samples), 0, tmp_path, tmp_path)
    tensors, metadata = read_tensors(tmp_path / "seed-0.safetensors")
    assert not any(name.startswith(peers.FROZEN) for name in tensors), "the user has it"
    assert f"resnet18@{digest[:8]}" in metadata["variant"]
    found = peers.load_anomalib(Task(params, "cube", method), 0, tmp_path).score(normals(toy)[:3])
    assert [map_.shape for map_ in found.maps] == [(32, 32), (32, 48), (44, 32)]
    assert all(np.isfinite(map_).all() for map_ in found.maps)
    assert found.images.shape == (3,)


def test_cfas_memory_is_the_plain_mean_of_all_images(toy, squares, backbone) -> None:
    """anomalib's own, for batches of one size; in float32 whatever the run computes in, else its distances are noise."""
    network = peers.build(settled(toy.params, **backbone), "cfa", STREAM, CPU)
    network.model.eval()
    parts = [peers.as_taken(network, [squares[k], squares[k + 1]], CPU) for k in (0, 2, 4)]
    network.model.initialize_centroid([SimpleNamespace(image=part) for part in parts])
    theirs = network.model.memory_bank.clone()
    assert network.prepare is not None
    network.prepare(iter([torch.cat(parts[:2])[:3], torch.cat([parts[1][1:], parts[2]])]))
    assert torch.allclose(network.model.memory_bank, theirs, atol=1e-5)
    network.model.train()
    exact = network.loss(parts[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.loss(parts[0]), exact)


def test_rd4ad_draws_the_normals_features_better_the_longer_it_learns(toy, squares, backbone, tmp_path: Path) -> None:
    means = []
    for steps in (1, 8):
        params = settled(toy.params, **backbone, steps=steps)
        network = peers.build(params, "rd4ad", STREAM, CPU)
        peers._train(params, network, squares, STREAM, tmp_path / f"{steps}.safetensors", CPU)
        means.append(network.loss(peers.as_taken(network, list(squares), CPU)).item())
    assert means[1] < 0.8 * means[0]


def test_what_is_wanting_is_named(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(params: Params, method: str) -> None:
        fit_peer(Task(params, "cube", method, toy.samples), 0, tmp_path, tmp_path)

    with pytest.raises(UsageError, match=r"peers\.weights: .* expected hub .* or a file, found null"):
        fit(settled(toy.params), "cfa")
    small = bare(products={"cube": {}}, dataset={"size": 16}, base={"size": 16, "device": "cpu"})
    with pytest.raises(UsageError, match=r"detector\.size: expected pictures of at least 32 px .*, found 16 px"):
        fit(small, "sspcab")
    with pytest.raises(CADiffError, match="expected normal images to train on"):
        fit_peer(Task(toy.params, "cube", "draem", [row for row in toy.samples if row.role != "normal"]), 0, tmp_path, tmp_path)
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(UsageError, match=r"methods\.detectors: draem needs anomalib, which is not installed\. pip install"):
        fit(settled(toy.params), "draem")
