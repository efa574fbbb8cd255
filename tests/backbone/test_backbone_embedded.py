"""The shipped weights: whole, loadable by the same code, and able to do what the method needs of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cadiff.backbone import EMBEDDED, Backbone, CrossAttentionTap, load_backbone
from cadiff.data.images import to_tensor
from cadiff.params import BaseParams
from cadiff.pretraining.stream import picture
from cadiff.storage import read_json, sha256_file


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(BaseParams(device="cpu", dtype="float32"))


def test_every_file_is_the_one_on_the_card() -> None:
    card = read_json(EMBEDDED / "card.json")
    for name, checksum in card["sha256"].items():
        assert sha256_file(EMBEDDED / name) == checksum, name
    assert int(card["bytes"]) < 40e6


def test_fine_structure_survives_the_autoencoder(backbone: Backbone) -> None:
    pictures = [picture(0, 1_000_000 + k, 64) for k in range(12)]  # far beyond what it was trained on
    images = to_tensor(np.stack([p.image for p in pictures]))
    error = (backbone.decode(backbone.encode(images)) - images).square().mean().item()
    assert -10 * np.log10(error / 4) > 34


def test_a_defects_word_attends_to_its_mask(backbone: Backbone) -> None:
    """AUROC of the word's attention against the mask on pictures that it was not trained on; 0.5 is chance."""
    pictures = [p for p in (picture(0, 2_000_000 + k, 64) for k in range(60)) if p.defect][:24]
    latents = backbone.encode(to_tensor(np.stack([p.image for p in pictures])))
    prompts = [f"a photo of a {p.product} with {p.defect}" for p in pictures]
    ids = backbone.tokenize(prompts)
    words = [backbone.tokenizer(p.defect, add_special_tokens=False).input_ids[-1] for p in pictures]
    t = torch.full((len(pictures),), 300)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), CrossAttentionTap(backbone.unet) as tap:
        backbone.unet(backbone.schedule.add_noise(latents, noise, t), t, backbone.encode_text(ids))
        finest = [maps.mean(1) for maps in tap.maps if maps.shape[2] == latents.shape[-1] ** 2]
    attention = torch.stack(finest).mean(0)
    scores = []
    for row, (p, word) in enumerate(zip(pictures, words, strict=True)):
        place = int((ids[row] == word).nonzero()[0])
        cells = p.mask.reshape(16, 4, 16, 4).mean((1, 3)).ravel() > 0.25
        if cells.any():
            scores.append(roc_auc_score(cells, attention[row, :, place].numpy()))
    assert np.mean(scores) > 0.85, scores
