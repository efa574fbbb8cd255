"""SSC: the identity at the start, the hooks against diffusers' own residuals, Eq. 9-10 against plain torch."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cadiff.backbone import Backbone, load_backbone
from cadiff.control import SelfAdaptiveInteraction, SpatialControl
from cadiff.control.saim import InteractionBlock, grid_positions
from cadiff.control.spatial import joined, skip_channels
from cadiff.errors import CADiffError, UsageError
from cadiff.params import BaseParams, ControlParams
from cadiff.storage import sha256_folder


@pytest.fixture(scope="module")
def backbone(tiny_base: Path) -> Backbone:
    return load_backbone(BaseParams(path=str(tiny_base), device="cpu", dtype="float32"))


def inputs(backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    text = backbone.encode_text(backbone.tokenize(["a photo of a part"] * 2))
    return torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), text, (torch.rand(2, 1, 64, 64) > 0.5).float()


@pytest.mark.parametrize("interaction", ["none", "literal", "residual"])
def test_control_starts_as_the_identity(backbone: Backbone, interaction: str) -> None:
    latents, t, text, mask = inputs(backbone)
    control = SpatialControl.started(backbone, ControlParams(interaction=interaction, heads=2, start="copy"))
    with torch.no_grad():
        assert torch.allclose(control.denoise(backbone.unet, latents, t, text, mask), backbone.unet(latents, t, text).sample, atol=1e-5)


def test_heads_that_do_not_fit_the_channels_are_named(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match=r"control\.heads: expected a divisor of this base's channels \[.*\], found 7"):
        SpatialControl.started(backbone, ControlParams(heads=7, start="copy"))
    SpatialControl.started(backbone, ControlParams(heads=7, interaction="none", start="copy"))  # which has none


def test_plain_control_equals_diffusers_own_residuals(backbone: Backbone) -> None:
    latents, t, text, mask = inputs(backbone)
    control = SpatialControl.started(backbone, ControlParams(interaction="none", start="copy"))
    with torch.no_grad():
        for parameter in control.controlnet.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        down, mid = control.controlnet(latents, t, text, mask, return_dict=False)
        expected = backbone.unet(
            latents, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample
        found = control.denoise(backbone.unet, latents, t, text, mask)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, backbone.unet(latents, t, text).sample, atol=1e-2)


def test_a_block_computes_equation_9_and_10() -> None:
    torch.manual_seed(0)
    block = InteractionBlock(8, heads=2, positions=True)
    torch.nn.init.normal_(block.mlp[2].weight)
    y, y_c = torch.randn(1, 8, 2, 3), torch.randn(1, 8, 2, 3)

    def rms(x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    place = grid_positions(2, 3, 8)
    main, side = rms(y[0].flatten(1).T), rms(y_c[0].flatten(1).T)
    q, k, v = block.to_q(main + place), block.to_k(side + place), block.to_v(side)
    heads = [torch.softmax(q[:, s] @ k[:, s].T / math.sqrt(4), -1) @ v[:, s] for s in (slice(0, 4), slice(4, 8))]
    expected = block.mlp(torch.cat(heads, -1)).T.reshape(1, 8, 2, 3)
    assert torch.allclose(block(y, y_c), expected, atol=1e-5)


def test_positions_tell_every_cell_apart() -> None:
    place = grid_positions(6, 5, 16)
    distances = torch.cdist(place, place) + torch.eye(30) * 9
    assert distances.min() > 0.1


def test_there_is_one_block_per_skip_and_one_for_the_mid_block(backbone: Backbone) -> None:
    control = SpatialControl.started(backbone, ControlParams(heads=2, start="copy"))
    features = control.features(*inputs(backbone))
    assert [f.shape[1] for f in features] == list(skip_channels(control.controlnet))
    assert len(control.saim.blocks) == len(features)


@pytest.mark.parametrize("interaction", ["none", "literal", "residual"])
def test_a_saved_control_is_the_same_control(backbone: Backbone, tmp_path: Path, interaction: str) -> None:
    latents, t, text, mask = inputs(backbone)
    control = SpatialControl.started(backbone, ControlParams(heads=2, interaction=interaction, start="copy"))
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    control.save(tmp_path)
    again = SpatialControl.load(tmp_path, backbone)
    with torch.no_grad():
        assert torch.equal(
            control.denoise(backbone.unet, latents, t, text, mask), again.denoise(backbone.unet, latents, t, text, mask)
        )
    with pytest.raises(CADiffError, match="run the train stage"):
        SpatialControl.load(tmp_path / "nowhere", backbone)


@pytest.mark.parametrize(("part", "lost"), [("controlnet", "mid_block."), ("saim", "blocks.0.")])
def test_a_control_that_lacks_tensors_is_refused(backbone: Backbone, tmp_path: Path, part: str, lost: str) -> None:
    SpatialControl.started(backbone, ControlParams(heads=2, start="copy")).save(tmp_path)
    path = tmp_path / part / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if lost not in name}, path, {"format": "pt"})
    with pytest.raises(CADiffError, match=rf"{part}/: its weights lack \d+ of the model's tensors, .*{lost}.* first"):
        SpatialControl.load(tmp_path, backbone)


def test_a_saved_control_does_not_depend_on_the_folder_that_its_start_lies_in(backbone: Backbone, tmp_path: Path) -> None:
    SpatialControl.started(backbone, ControlParams(heads=2, start="copy")).save(tmp_path / "base")
    digests = set()
    for place in ("here", "there"):
        shutil.copytree(tmp_path / "base", tmp_path / place / "base")
        bringing = dataclasses.replace(backbone, path=str(tmp_path / place / "base"))
        SpatialControl.started(bringing, ControlParams(start="base", heads=2)).save(tmp_path / place / "control")
        digests.add(sha256_folder(tmp_path / place / "control"))
    assert len(digests) == 1


def test_a_start_that_the_base_does_not_bring_is_one_clear_line(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match=r"control\.start: base, but .* has no controlnet/ and saim/ .*Use recipe\.control\.start: copy"):
        SpatialControl.started(backbone, ControlParams(start="base"))


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, True),
        ({"interaction": "literal"}, False),
        ({"interaction": "none"}, False),
        ({"heads": 4}, False),
        ({"positions": False}, False),
    ],
)
def test_the_bases_own_control_is_taken_and_its_saim_where_it_has_the_form_that_is_asked_for(
    backbone: Backbone, tmp_path: Path, asked: dict, kept: bool
) -> None:
    own = SpatialControl.started(backbone, ControlParams(heads=2, start="copy"))
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    own.save(tmp_path)
    bringing = dataclasses.replace(backbone, path=str(tmp_path))
    control = SpatialControl.started(bringing, ControlParams(start="base", **{"heads": 2, **asked}))
    mine, theirs = control.controlnet.state_dict(), own.controlnet.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    if asked.get("interaction") == "none":
        assert len(control.saim.blocks) == 0
    else:
        pairs = zip(control.saim.blocks, own.saim.blocks, strict=True)
        assert {torch.equal(block.mlp[2].weight, old.mlp[2].weight) for block, old in pairs} == {kept}
    assert kept or not any(block.mlp[2].weight.any() for block in control.saim.blocks), "another form starts at the identity"
    assert control.saim.config["interaction"] == asked.get("interaction", "residual")
    assert control.training
    assert all(parameter.requires_grad for parameter in control.parameters())


def test_a_unet_with_other_skips_is_noticed(backbone: Backbone) -> None:
    latents, t, text, mask = inputs(backbone)
    control = SpatialControl.started(backbone, ControlParams(interaction="none", start="copy"))
    features = control.features(latents, t, text, mask)
    plain = SelfAdaptiveInteraction(interaction="none")
    with pytest.raises(CADiffError, match="were not met"), joined(backbone.unet, [features[0], *features], plain):
        pass


@pytest.mark.parametrize("reduction", [2, 8, 32])
def test_the_mask_reaches_the_latents_side_whatever_the_autoencoders_reduction(backbone: Backbone, reduction: int) -> None:
    control = SpatialControl.copy_of(backbone.unet, reduction, ControlParams(heads=2, start="copy"))
    embedded = control.controlnet.controlnet_cond_embedding(torch.zeros(1, 1, 64, 64))
    assert embedded.shape[-2:] == (64 // reduction, 64 // reduction)
