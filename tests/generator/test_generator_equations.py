"""Eq. 1-4 and 8 against plain numpy, on a small random base with real components; what is frozen keeps its bits."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from oracles import silenced_by_hand

from cadiff.backbone import Backbone, load_backbone
from cadiff.backbone.attention import attention_layers, attention_maps
from cadiff.data.images import to_tensor
from cadiff.errors import CADiffError, UsageError
from cadiff.generator.adapt import velocity_or_noise
from cadiff.generator.examples import Shown, draw_view, window_of
from cadiff.generator.joint import joint_loss, silencing_of
from cadiff.generator.train import new_generator
from cadiff.generator.windows import REFINED
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.seeds import torch_generator
from cadiff.storage import read_image, write_image

KINDS = ["chip", "rust", "scratch"]


@pytest.fixture
def backbone(small_params: Params) -> Backbone:
    return load_backbone(small_params.base)


def changed(params: Params, section: str, **values: object) -> Params:
    return params.model_copy(update={section: getattr(params, section).model_copy(update=values)})


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_equation_1_predicts_what_the_base_predicts(backbone: Backbone, kind: str) -> None:
    rng, t = np.random.default_rng(0), np.array([3, 700])
    x, noise = rng.normal(size=(2, 2, 4, 8, 8))
    schedule = backbone.schedule = DDPMScheduler.from_config(backbone.schedule.config, prediction_type=kind)
    found = velocity_or_noise(backbone, *map(torch.tensor, (x, noise, t)))
    alpha = schedule.alphas_cumprod.numpy().astype(float)[t][:, None, None, None]
    expected = noise if kind == "epsilon" else np.sqrt(alpha) * noise - np.sqrt(1 - alpha) * x
    assert np.allclose(found.numpy(), expected, atol=1e-6)


def test_another_prediction_is_refused(backbone: Backbone) -> None:
    backbone.schedule = DDPMScheduler.from_config(backbone.schedule.config, prediction_type="sample")
    x = torch.zeros(1, 4, 8, 8)
    with pytest.raises(CADiffError, match="expected prediction_type epsilon or v_prediction, found sample"):
        velocity_or_noise(backbone, x, x, torch.tensor([1]))


def test_equation_3_is_a_softmax_over_text_positions_per_head(backbone: Backbone) -> None:
    layer = next(iter(attention_layers(backbone.unet).values()))
    rng = np.random.default_rng(0)
    hidden, text = rng.normal(size=(2, 5, layer.to_q.in_features)), rng.normal(size=(2, 7, layer.to_k.in_features))
    weights = [part.weight.detach().numpy().astype(float) for part in (layer.to_q, layer.to_k)]
    query, key = hidden @ weights[0].T, text @ weights[1].T
    width = query.shape[-1] // layer.heads
    found = attention_maps(layer, torch.tensor(hidden).float(), torch.tensor(text).float()).detach().numpy()
    for b in range(2):
        for head in range(layer.heads):
            own = slice(head * width, (head + 1) * width)
            scores = np.exp(query[b][:, own] @ key[b][:, own].T / np.sqrt(width))
            assert np.allclose(found[b, head], scores / scores.sum(-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(("tokens", "mask_weight"), [("multi", 0.0), ("multi", 5.0), ("single", 0.0)])
def test_equations_2_4_and_8(
    backbone: Backbone, small_params: Params, nut_samples: list[SampleRow], monkeypatch: pytest.MonkeyPatch, tokens: str, mask_weight: float
) -> None:
    """The denoising error from what the U-Net was given and gave, inside the mask alone for a single token (Eq. 2), over
    the whole image otherwise (Eq. 4); the sum with gamma and beta (Eq. 8)."""
    params = changed(changed(small_params, "train", mask_weight=mask_weight), "prompt", tokens=tokens, gamma=0.3, beta=0.7)
    generator, seen = new_generator(params, "nut", KINDS, backbone), []
    own = generator.control.denoise

    def watched(unet: torch.nn.Module, noisy: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((noisy, t, own(unet, noisy, t, text, mask)))
        return seen[-1][2]

    monkeypatch.setattr(generator.control, "denoise", watched)
    rng = torch_generator(0, "equations")
    view = draw_view(Shown.of(nut_samples, params), generator.tokens, backbone, params, rng)
    loss, parts = joint_loss(generator, view, params, rng)
    noisy, t, predicted = (value.detach().numpy() for value in seen[0])
    latent = backbone.encode(view.image).numpy()
    alpha = backbone.schedule.alphas_cumprod.numpy()[t][:, None, None, None]
    noise = (noisy - np.sqrt(alpha) * latent) / np.sqrt(1 - alpha)
    error = (predicted - (np.sqrt(alpha) * noise - np.sqrt(1 - alpha) * latent)) ** 2
    inside = view.mask.numpy().reshape(len(latent), 1, 8, 8, 8, 8).mean((3, 5))
    weighed = error * inside / (4 * inside.sum()) if tokens == "single" else error * (1 + mask_weight * inside) / error.size
    assert parts["denoising"] == pytest.approx(weighed.sum(), rel=1e-3)
    assert loss.item() == pytest.approx(parts["denoising"] + 0.3 * parts["localizing"] + 0.7 * parts["contrastive"], rel=1e-5)


@pytest.mark.parametrize("batch", [1, 40])
def test_normals_come_in_their_share_and_warped_as_exemplars_are(
    backbone: Backbone, small_params: Params, nut_samples: list[SampleRow], batch: int
) -> None:
    """240 pictures, a quarter of them normals within four standard deviations, whatever the batch."""
    params = changed(small_params, "train", batch=batch, normal_share=0.25)
    shown, tokens = Shown.of(nut_samples, params), new_generator(params, "nut", KINDS, backbone).tokens
    views = [draw_view(shown, tokens, backbone, params, torch_generator(0, "share", step)) for step in range(240 // batch)]
    images, said = torch.cat([v.image for v in views]), torch.cat([v.positions for v in views])[:, 1:].ge(0).any(1)
    assert abs((~said).double().mean().item() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 240)
    assert torch.equal(torch.cat([v.concept_masks for v in views])[:, 1:].any(1).flatten(1).any(1), said)
    assert torch.cat([v.mask for v in views]).flatten(1).any(1).all(), "a normal keeps a mask"
    for whose, chosen in ((shown.normals, images[~said]), (shown.exemplars, images[said])):
        real = to_tensor(np.stack([picture.image for picture in whose])).flatten(1)
        assert (torch.cdist(chosen.flatten(1), real).amin(1) > 1).all(), "not warped"


def test_some_normals_name_their_anomaly_and_silence_it(backbone: Backbone, small_params: Params, nut_samples: list[SampleRow]) -> None:
    """Of 240 pictures half are normals, half of these have a silenced word; it is no concept of its picture, and has no attention
    in its mask."""
    params = changed(small_params, "train", batch=240, normal_share=0.5, silenced=0.5)
    generator = new_generator(params, "nut", KINDS, backbone)
    view = draw_view(Shown.of(nut_samples, params), generator.tokens, backbone, params, torch_generator(0, "silenced"))
    silent, shown = view.silenced >= 0, view.positions[:, 1:].ge(0).any(1)
    assert abs(silent.double().mean().item() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 240)
    assert not (silent & shown).any()
    for prompt, position, exemplar in zip(view.prompts, view.silenced.tolist(), shown.tolist(), strict=True):
        said = [prompt.positions[kind] for kind in KINDS if kind in prompt.positions]
        assert said == [position] if position >= 0 else len(said) == exemplar
    silencing = silencing_of(view, 8, torch.device("cpu"))
    assert silencing is not None
    maps = torch.rand(240, 2, 64, 32)
    quiet, inside = silencing(maps), view.mask[:, 0].reshape(240, 8, 8, 8, 8).amax((2, 4)).flatten(1).bool()
    for b, position in enumerate(view.silenced.tolist()):
        expected = maps[b].clone()
        if position >= 0:
            expected[:, inside[b], position] = 0
        assert torch.equal(quiet[b], expected)
    params = changed(small_params, "train", batch=4, normal_share=0.5)
    view = draw_view(Shown.of(nut_samples, params), generator.tokens, backbone, params, torch_generator(0, "silenced"))
    assert silencing_of(view, 8, torch.device("cpu")) is None, "off by default: the paper knows no such pictures"


def test_training_sees_nothing_of_a_silenced_words_value(
    backbone: Backbone, small_params: Params, nut_samples: list[SampleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One normal under a mask of the whole picture: the prediction that its error is taken of is that of U-Net and control in which
    the word's values are zero."""
    params = changed(small_params, "train", batch=1, normal_share=0.99, silenced=0.99)
    generator = new_generator(params, "nut", KINDS, backbone)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in generator.control.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # else its zero layers keep all that it sees to itself
        generator.tokens.vectors.mul_(30)
    view = draw_view(Shown.of(nut_samples, params), generator.tokens, backbone, params, torch_generator(0, "value"))
    view, token = dataclasses.replace(view, mask=torch.ones_like(view.mask)), int(view.silenced[0])
    assert token > 0
    own, seen = generator.control.denoise, []

    def watched(*inputs: torch.Tensor) -> torch.Tensor:
        seen.append((inputs, own(*inputs)))
        return seen[-1][1]

    monkeypatch.setattr(generator.control, "denoise", watched)
    joint_loss(generator, view, params, torch_generator(0, "noise"))
    inputs, found = seen[0]
    unet, copied = backbone.unet, generator.control.controlnet
    for models in ((unet, copied), (unet,), ()):
        expected = silenced_by_hand(models, token, lambda: own(*inputs))
        assert torch.allclose(found, expected, atol=1e-5) == (len(models) == 2), len(models)


def darkened(rows: list[SampleRow], by: int, folder: Path) -> list[SampleRow]:
    """The exemplars' files darker, the others as they are."""
    made = []
    for row in rows:
        path = folder / f"{row.sample_id}.png"
        if row.role == "exemplar":
            write_image(path, read_image(row.image_path) // by)
        made.append(dataclasses.replace(row, image_path=str(path)) if row.role == "exemplar" else row)
    return made


def test_exemplars_are_as_bright_as_normals_where_asked(
    backbone: Backbone, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Exemplars made four times darker: `own` leaves them so, `normals` does not; what that takes beyond white is white."""
    rows = darkened(nut_samples, 4, tmp_path)
    tokens = new_generator(small_params, "nut", KINDS, backbone).tokens

    def seen(exposure: str) -> torch.Tensor:
        params = changed(small_params, "train", exposure=exposure, batch=16, normal_share=0.0)
        return draw_view(Shown.of(rows, params), tokens, backbone, params, torch_generator(0, "light")).image

    normal = np.mean([picture.image.mean() / 127.5 for picture in Shown.of(rows, small_params).normals])
    assert (seen("own") + 1).mean().item() < 0.4 * normal
    assert (seen("normals") + 1).mean().item() == pytest.approx(normal, rel=0.15)
    assert seen("normals").max() <= 1


@pytest.mark.parametrize("cut", ["around", "whole"])
def test_training_sees_windows_of_the_masks_at_the_places_and_scales_of_drawing(
    backbone: Backbone, windowed_params: Params, nut_samples: list[SampleRow], cut: str
) -> None:
    """At a canvas of twice the base's side: an exemplar's mask is in its window, and so is the one that a normal keeps."""
    still = {"crop": 0.0, "translate": 0.0, "rotate": 0.0, "batch": 60, "normal_share": 0.3}
    params = changed(changed(windowed_params, "window", cut=cut), "train", **still)
    shown, tokens = Shown.of(nut_samples, params), new_generator(params, "nut", KINDS, backbone).tokens
    view = draw_view(shown, tokens, backbone, params, torch_generator(0, "windows"))
    areas = view.mask.flatten(1).sum(1)
    assert (areas > 0).all()
    real = [picture.mask.sum() for picture in shown.exemplars]
    if cut == "whole":
        assert areas.max() <= 1.5 * max(real) / 4, "all of 128 px in 64"
    else:
        assert areas.max() > max(real) / 2.5, "a part of it, so that it is larger than it would be"
        boxes = [mask[0].nonzero().float().mean(0) for mask in view.mask.bool()]
        assert torch.stack(boxes).std(0).min() > 4, "not always in the middle"


def test_a_mask_that_is_drawn_shrunk_is_now_and_then_seen_close(windowed_params: Params, nut_samples: list[SampleRow]) -> None:
    """Drawing goes over such a mask at the base's own scale, so training shows it so: windows of 64 px on it, a quarter of them."""
    params = changed(windowed_params, "base", size=16)
    shown = Shown.of(nut_samples, params)
    large = max(range(len(shown.boxes)), key=lambda k: shown.boxes[k][2] - shown.boxes[k][0] + shown.boxes[k][3] - shown.boxes[k][1])
    windows = [window_of(shown, large, params, torch_generator(0, "close", k)) for k in range(200)]
    scales = np.array([window.scale(16) for window in windows])
    assert 0.15 < (scales <= REFINED).mean() < 0.35
    assert all(window.of(shown.exemplars[large].mask).any() for window in windows)


def test_a_picture_smaller_than_what_the_base_draws_is_one_clear_line(windowed_params: Params, nut_samples: list[SampleRow]) -> None:
    """At their own size these are 64 px; whole pictures are brought to any."""
    params = changed(changed(windowed_params, "dataset", size="native"), "base", size=96)
    with pytest.raises(UsageError, match=r"\.png: 64 x 64 px, smaller than what the base draws \(base.size: 96\)"):
        Shown.of(nut_samples, params)
    assert len(Shown.of(nut_samples, changed(params, "window", cut="whole")).exemplars) == len(KINDS) * 2


def test_switched_off_regularisers_have_no_part(backbone: Backbone, small_params: Params, nut_samples: list[SampleRow]) -> None:
    shown = Shown.of(nut_samples, small_params)
    for switches in ({"localizing": False}, {"contrastive": False}, {"localizing": False, "contrastive": False}):
        params = changed(small_params, "prompt", **switches)
        generator, rng = new_generator(params, "nut", KINDS, backbone), torch_generator(0, "off")
        loss, parts = joint_loss(generator, draw_view(shown, generator.tokens, backbone, params, rng), params, rng)
        assert set(parts) == {"denoising", "localizing", "contrastive"} - set(switches)
        weights = {"denoising": 1.0, "localizing": params.prompt.gamma, "contrastive": params.prompt.beta}
        assert loss.item() == pytest.approx(sum(weights[name] * value for name, value in parts.items()), rel=1e-5)


def test_training_changes_what_learns_and_not_a_bit_of_what_is_frozen(
    backbone: Backbone, small_params: Params, nut_samples: list[SampleRow]
) -> None:
    generator = new_generator(small_params, "nut", KINDS, backbone)
    frozen = {"unet": backbone.unet, "vae": backbone.vae, "text": backbone.text_encoder}
    before = {name: copy.deepcopy(module.state_dict()) for name, module in frozen.items()}
    learnt = [*generator.tokens.parameters(), *generator.control.parameters()]
    starts = [parameter.detach().clone() for parameter in learnt]
    optimiser, shown = torch.optim.AdamW(learnt, lr=1e-2), Shown.of(nut_samples, small_params)
    for step in range(3):
        rng = torch_generator(0, "frozen", step)
        wide = changed(small_params, "train", batch=6)
        loss, _ = joint_loss(generator, draw_view(shown, generator.tokens, backbone, wide, rng), wide, rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, module in frozen.items():
        assert all(torch.equal(before[name][key], value) for key, value in module.state_dict().items()), name
    assert all(not torch.equal(start, parameter) for start, parameter in zip(starts, learnt, strict=True))
