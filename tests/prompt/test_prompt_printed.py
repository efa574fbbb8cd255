"""Eq. 5 to 7 as they are printed, against sums written out from the paper; several embeddings a token."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from pydantic import ValidationError
from transformers import CLIPTextModel, CLIPTokenizer

from cadiff.backbone import Backbone, load_backbone
from cadiff.errors import UsageError
from cadiff.params import BaseParams, PromptParams
from cadiff.prompt import CONTEXT, LearnedTokens, contrastive_loss, localizing_loss

IMAGES, CONCEPTS, TEMPERATURE = 4, 3, 0.3


@pytest.fixture
def backbone(tiny_base: Path) -> Backbone:
    return load_backbone(BaseParams(path=str(tiny_base), device="cpu", dtype="float32"))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("with_itself", [False, True])
def test_equations_6_and_7_as_printed(with_itself: bool) -> None:
    """v[b][c] for every image b and every concept c; the denominator has 1[j != i], so no vector of image i, whatever its concept."""
    v = np.random.default_rng(0).normal(size=(IMAGES, CONCEPTS, 6))

    def pair(i: int, j: int, c: int) -> float:
        below = sum(
            np.exp(cosine(v[i, c], v[k, other]) / TEMPERATURE) for other in range(CONCEPTS) for k in range(IMAGES) if k != i
        )
        return -np.log(np.exp(cosine(v[i, c], v[j, c]) / TEMPERATURE) / below)

    places = itertools.product(range(CONCEPTS), range(IMAGES), range(IMAGES))
    expected = sum(pair(i, j, c) for c, i, j in places if with_itself or i != j) / CONCEPTS / IMAGES
    concepts = torch.arange(CONCEPTS).expand(IMAGES, -1).flatten()
    images = torch.arange(IMAGES)[:, None].expand(-1, CONCEPTS).flatten()
    vectors, over = torch.tensor(v).flatten(0, 1), "printed" if with_itself else "vectors"
    assert contrastive_loss(vectors, concepts, TEMPERATURE, over, images).item() == pytest.approx(expected, rel=1e-5)
    assert contrastive_loss(vectors, concepts, TEMPERATURE, over).item() != pytest.approx(expected, rel=1e-2), "without the indicator"


def test_equation_5_as_printed_averages_tokens_before_the_norm() -> None:
    """Two layers, an image with two tokens and one with one; errors of opposite sign cancel, and the norm is a sum over cells."""
    rng = np.random.default_rng(1)
    masks = rng.random((2, 3, 4, 4)) > 0.5
    positions = np.array([[2, 0, -1], [1, -1, -1]])
    layers = [rng.random((2, 2, side * side, 5)).astype(np.float32) for side in (4, 2)]
    expected = 0.0
    for layer, side in zip(layers, (4, 2), strict=True):
        step = 4 // side
        target = masks.reshape(2, 3, side, step, side, step).mean((3, 5)).reshape(2, 3, side * side)
        for b in range(2):
            held = [c for c in range(3) if positions[b, c] >= 0]
            mean = sum(layer[b].mean(0)[:, positions[b, c]] - target[b, c] for c in held) / len(held)
            expected += float((mean**2).sum()) / 2
    arguments = [torch.tensor(layer) for layer in layers], torch.tensor(positions), torch.tensor(masks)
    assert localizing_loss(*arguments, over="printed").item() == pytest.approx(expected, rel=1e-5)
    masks = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    masks[0, 0] = True  # all of the one token's map is missing, and all of the other's too much
    maps = torch.zeros(1, 1, 4, 2)
    maps[..., 1] = 1
    assert localizing_loss([maps], torch.tensor([[0, 1]]), masks, over="printed").item() == 0
    assert localizing_loss([maps], torch.tensor([[0, 1]]), masks).item() == pytest.approx(1)


def test_a_balanced_norm_of_the_tokens_mean_is_refused() -> None:
    with pytest.raises(ValidationError, match="balanced: expected false with localizing_over: printed"):
        PromptParams(balanced=True, localizing_over="printed")


def test_a_tokens_map_is_what_flows_from_all_of_its_embeddings() -> None:
    """Two embeddings a token: their maps' sum is set against the mask."""
    rng = np.random.default_rng(2)
    layer, masks = rng.random((1, 1, 4, 6)).astype(np.float32), rng.random((1, 2, 2, 2)) > 0.5
    expected = np.mean([
        ((layer[0, 0][:, at] + layer[0, 0][:, at + 1] - masks[0, c].flatten()) ** 2).mean() for c, at in enumerate((0, 3))
    ])  # fmt: skip
    found = localizing_loss([torch.tensor(layer)], torch.tensor([[0, 3]]), torch.tensor(masks), vectors=2)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_several_embeddings_a_token_stand_side_by_side_and_learn_apart(backbone: Backbone, tmp_path: Path) -> None:
    tokens = LearnedTokens(backbone, "nut", ["rust", "chip"], "anomaly", per_token=3)
    prompt = tokens.prompt(backbone, ["chip"], 0)
    ids = backbone.tokenize([tokens.spelt(prompt.text)])[0].tolist()
    for concept, row in ((CONTEXT, 0), ("chip", 6)):
        at = prompt.positions[concept]
        assert ids[at : at + 3] == tokens.ids[row : row + 3], concept
    assert prompt.vectors == 3
    assert prompt.text == "a photo of a <nut-context> with <nut-chip>", "as a stock pipeline is told"
    tokens.encode(backbone, [prompt]).square().sum().backward()
    gradient = tokens.vectors.grad
    assert gradient is not None
    assert gradient.abs().sum(1).gt(0).tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert not torch.allclose(gradient[6], gradient[7]), "their places tell them apart"
    with torch.no_grad():
        tokens.vectors.normal_()
    tokens.save(tmp_path)
    again = LearnedTokens(backbone, "nut", ["rust", "chip"], "anomaly", per_token=3)
    again.restore(tmp_path)
    assert torch.equal(again.vectors, tokens.vectors)
    with pytest.raises(UsageError, match="at most 30 tokens"):
        LearnedTokens(backbone, "nut", ["rust", "chip"], "anomaly", per_token=15).prompt(backbone, ["rust", "chip"], 0)


def test_a_stock_pipeline_reads_tokens_of_several_embeddings_as_we_do(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load_backbone(BaseParams(path=str(tiny_base), device="cpu", dtype="float32"))
    tokens = LearnedTokens(backbone, "nut", ["rust", "chip"], "anomaly", per_token=2)
    with torch.no_grad():
        tokens.vectors.normal_()
    tokens.save(tmp_path)
    prompt = tokens.prompt(backbone, ["chip", "rust"], 0)
    stock = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(tiny_base, subfolder="vae"),
        unet=UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet"),
        text_encoder=CLIPTextModel.from_pretrained(tiny_base, subfolder="text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(tiny_base, subfolder="tokenizer"),
        scheduler=DDIMScheduler.from_pretrained(tiny_base, subfolder="scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    stock.load_textual_inversion([str(path) for path in sorted(tmp_path.iterdir())], use_safetensors=True)
    theirs, _ = stock.encode_prompt(prompt.text, "cpu", 1, do_classifier_free_guidance=False)
    assert torch.allclose(tokens.encode(backbone, [prompt]), theirs, atol=1e-6)
