"""The tap on cross-attention, and loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cadiff.backbone import Backbone, CrossAttentionTap, attention_layers, load_backbone
from cadiff.errors import CADiffError, UsageError
from cadiff.params import BaseParams


@pytest.fixture(scope="module")
def backbone(tiny_base: Path) -> Backbone:
    return load_backbone(BaseParams(path=str(tiny_base), device="cpu", dtype="float32"))


def run(backbone: Backbone) -> torch.Tensor:
    torch.manual_seed(0)
    return backbone.unet(torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 32, 32)).sample


def test_a_tap_changes_nothing_records_every_layer_and_goes_without_trace(backbone: Backbone) -> None:
    plain, own = run(backbone), {n: layer.processor for n, layer in attention_layers(backbone.unet).items()}
    with CrossAttentionTap(backbone.unet) as tap:
        tapped = run(backbone)
        assert len(tap.maps) == len(own)
        assert all(torch.allclose(m.sum(-1), torch.ones(()), atol=1e-5) for m in tap.maps)
    assert torch.allclose(plain, tapped, atol=1e-5)
    assert {n: layer.processor for n, layer in attention_layers(backbone.unet).items()} == own
    assert torch.equal(run(backbone), plain)


def test_a_rewrite_acts_and_gradients_flow_through_maps(backbone: Backbone) -> None:
    plain = run(backbone)
    with CrossAttentionTap(backbone.unet, rewrite=lambda maps: maps * 0.5) as tap:
        assert not torch.allclose(run(backbone), plain, atol=1e-4)
        text = torch.randn(1, 32, 32, requires_grad=True)
        tap.clear()
        backbone.unet(torch.randn(1, 4, 8, 8), torch.tensor([500]), text)
        tap.maps[0][..., 1].sum().backward()
        assert text.grad is not None
        assert text.grad.abs().sum() > 0


def test_no_cross_attention_is_an_error() -> None:
    with pytest.raises(CADiffError, match="expected cross-attention layers"):
        attention_layers(nn.Linear(2, 2))


def test_latents_have_the_bases_reduction(backbone: Backbone) -> None:
    assert backbone.reduction == 8
    assert backbone.encode(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 8, 8)
    with pytest.raises(UsageError, match="multiple of 32"):
        backbone.latent_side(72)


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"base.path: expected a model in diffusers' layout.*config.json"):
        load_backbone(BaseParams(path=str(tmp_path), dtype="float32"))
