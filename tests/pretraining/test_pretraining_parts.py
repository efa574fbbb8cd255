"""The embedded base's making: the linear start of the autoencoder, captions, and both trainings resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cadiff.data.images import to_tensor
from cadiff.pretraining.autoencoder import build_autoencoder, patches_of, train_autoencoder
from cadiff.pretraining.diffusion import build_tokenizer, caption, train_diffusion
from cadiff.pretraining.stream import Stream, picture


@pytest.fixture(scope="module")
def stream() -> Stream:
    pictures = [picture(0, index, 64) for index in range(24)]
    return Stream(
        np.stack([p.image for p in pictures]), np.stack([p.mask for p in pictures]),
        np.array([p.product for p in pictures]), np.array([p.defect for p in pictures]),
    )  # fmt: skip


def test_the_autoencoder_starts_as_principal_components(stream: Stream) -> None:
    """48 - 24 components are lost: the error is the sum of their variances, no more."""
    patches = patches_of(stream.image, 20000)
    model = build_autoencoder(patches)
    images = to_tensor(stream.image)
    with torch.no_grad():
        error = (model.decode(model.encode(images).latent).sample - images).square().mean().item()
    variances = torch.linalg.eigvalsh(torch.cov(patches.T))
    assert error == pytest.approx(variances[:24].sum().item() / 48, rel=0.25)


def test_every_caption_word_is_one_token_and_positions_point_at_them(stream: Stream) -> None:
    tokenizer = build_tokenizer()
    captioned = caption(stream, np.arange(24), np.random.default_rng(0), tokenizer)
    for word in {w for phrase in [*stream.product, *stream.defect, "anomaly"] for w in str(phrase).split()}:
        ids = tokenizer(word, add_special_tokens=False).input_ids
        assert len(ids) == 1, word
        assert ids[0] != tokenizer.unk_token_id, word
    for row in range(24):
        place = int(captioned.defect_at[row])
        if place >= 0:
            assert tokenizer.decode(captioned.ids[row, place]).strip() == stream.defect[row].split()[-1]
    assert (captioned.defect_at >= 0).any()


def test_both_trainings_go_on_where_they_were(stream: Stream, tmp_path: Path) -> None:
    train_autoencoder(stream, tmp_path / "a", 1, batch=2)
    vae = train_autoencoder(stream, tmp_path / "a", 2, batch=2)
    train_diffusion(stream, vae, tmp_path / "d", 1, batch=2)
    unet, _, _ = train_diffusion(stream, vae, tmp_path / "d", 2, batch=2)
    assert all(torch.isfinite(p).all() for p in unet.parameters())
    assert (tmp_path / "d" / "diffusion.safetensors").exists()


