"""Sampling: the same bits whatever an image is asked for with, both schedulers, guidance, healing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles import silenced_by_hand
from parameters import bare, sampling

from cadiff.backbone import attention_layers, load_backbone
from cadiff.errors import UsageError
from cadiff.generator import Generator
from cadiff.generator.reweighting import Reweighting, tapped
from cadiff.generator.sample import Request, in_lanes, sample, scheduler_for
from cadiff.generator.train import new_generator
from cadiff.params import IntensityParams


@pytest.fixture(scope="module")
def generator(tiny_base: Path) -> Generator:
    """Random weights throughout; the control's zero layers too, so that it acts."""
    params = bare(products={"nut": {}}, base={"path": str(tiny_base), "size": 64, "device": "cpu"})
    made = new_generator(params, "nut", ["chip", "rust"], load_backbone(params.base))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (*made.control.parameters(), made.tokens.vectors):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def request(generator: Generator, index: int, background: bool = False, **values: object) -> Request:
    """The ``index``-th of a set that differs in everything: types, number of types, masks, intensities, prompts."""
    types = (("rust",), ("chip",), ("rust", "chip"))[index % 3]
    masks = torch.zeros(len(types), 64, 64, dtype=torch.bool)
    for k in range(len(types)):
        masks[k, 4 * index : 4 * index + 20, 30 * k : 30 * k + 24] = True
    known = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(100 + index)) if background else None
    weights = tuple(0.5 + 0.3 * index + 0.1 * k for k in range(len(types)))
    return Request(generator.tokens.prompt(generator.backbone, list(types), index), types, masks, weights, index, known, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "settings", "backgrounds"),
    [
        (torch.float32, {"scheduler": "ddim"}, False),
        (torch.bfloat16, {"scheduler": "dpm", "guidance_scale": 2.0, "start": "background", "strength": 0.5, "blend": 1.0}, True),
    ],
)
def test_an_image_has_the_same_bits_whatever_it_is_asked_for_with(
    generator: Generator, dtype: torch.dtype, settings: dict, backgrounds: bool
) -> None:
    generator = dataclasses.replace(generator, backbone=dataclasses.replace(generator.backbone, dtype=dtype))
    params, intensity = sampling(steps=2, **settings), IntensityParams(threshold=0.3)
    requests = [request(generator, i, backgrounds and i % 2 == 0) for i in range(6)]
    requests = [dataclasses.replace(r, start=r.background if k % 4 == 0 else None) for k, r in enumerate(requests)]
    together, turned = sample(generator, requests, params, intensity), sample(generator, requests[::-1], params, intensity)
    parts = [sample(generator, requests[start:stop], params, intensity) for start, stop in ((0, 1), (1, 3), (3, 6))]
    for name in ("drawn", "known", "since"):
        values = getattr(together, name)
        assert torch.equal(values.nan_to_num(9), getattr(turned, name).flip(0).nan_to_num(9)), name
        if name != "since":  # as wide as the request with the most types
            assert torch.equal(values.nan_to_num(9), torch.cat([getattr(part, name) for part in parts]).nan_to_num(9)), name
    assert not torch.equal(together.drawn[0], together.drawn[3])


@pytest.mark.parametrize("blend", [None, 0.0])
def test_what_the_autoencoder_makes_of_a_background_is_told_where_it_is_needed(generator: Generator, blend: float | None) -> None:
    """To be set in by: of each background its own, nothing of a request without one, and no decoding where all of a window is kept."""
    requests = [request(generator, 0, True), request(generator, 1), request(generator, 2, True)]
    known = sample(generator, requests, sampling(steps=1, blend=blend), IntensityParams()).known
    assert known[1].isnan().all()
    if blend is None:
        assert known.isnan().all()
        return
    for k in (0, 2):
        assert torch.allclose(known[k], generator.backbone.decode(requests[k].background[None])[0], atol=1e-5)


def test_lanes_have_one_width_and_leave_nobody_out() -> None:
    assert in_lanes(6, 4) == [[0, 1, 2, 3], [4, 5, 5, 5]]
    assert in_lanes(3, None) == [[0, 1, 2]]
    assert in_lanes(0, 4) == []


@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
@pytest.mark.parametrize("steps", [4, 10])
def test_both_schedulers_arrive_at_the_picture_that_the_network_knows(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, scheduler: str, steps: int
) -> None:
    """A network that predicts exactly, for data that is one point, must lead there from any noise."""
    target = 0.5 * torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(9))
    alphas = generator.backbone.schedule.alphas_cumprod

    def exact(unet: torch.nn.Module, latents: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        unet(latents, t, text)  # for the maps that focus is read from
        alpha, sigma = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        noise = (latents - alpha * target) / sigma
        return alpha * noise - sigma * target  # the velocity, which this base predicts

    assert generator.backbone.schedule.config["prediction_type"] == "v_prediction"
    monkeypatch.setattr(generator.control, "denoise", exact)
    params = sampling(scheduler=scheduler, steps=steps)  # type: ignore[arg-type]
    images = sample(generator, [request(generator, 0), request(generator, 1)], params, IntensityParams()).drawn
    expected = generator.backbone.decode(target[None])[0]
    assert torch.allclose(images, expected.expand_as(images), atol=2e-2)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
def test_a_base_saved_with_another_sampler_is_sampled_alike(generator: Generator, scheduler: str) -> None:
    """Fine-tunes are saved with Euler's, PNDM's or a stochastic DPM's file: its noise levels count, its sampler's options do not."""
    settings, requests = sampling(steps=3, scheduler=scheduler), [request(generator, 0)]
    expected = sample(generator, requests, settings, IntensityParams()).drawn
    plain = dict(generator.backbone.schedule.config)
    plain = {name: plain[name] for name in plain if name.startswith("beta_") or name in ("num_train_timesteps", "prediction_type")}
    plain |= {"timestep_spacing": generator.backbone.schedule.config["timestep_spacing"],
              "rescale_betas_zero_snr": generator.backbone.schedule.config["rescale_betas_zero_snr"]}  # fmt: skip
    others = ({}, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, {"use_karras_sigmas": True, "thresholding": True})
    for own in others:
        backbone = dataclasses.replace(generator.backbone, schedule=SimpleNamespace(config={**plain, **own}))  # type: ignore[arg-type]
        other = dataclasses.replace(generator, backbone=backbone)
        assert not scheduler_for(other, settings).config.get("clip_sample", False)
        assert torch.equal(sample(other, requests, settings, IntensityParams()).drawn, expected), own


def test_re_weighting_begins_no_earlier_than_the_first_step_that_is_taken(generator: Generator) -> None:
    params = sampling(steps=4, start="background", strength=0.5)
    asked = dataclasses.replace(request(generator, 0, background=True), start=torch.zeros(4, 8, 8))
    since = sample(generator, [asked], params, IntensityParams(delayed_focus=False)).since
    assert since.tolist() == [[2]], "of steps 0 to 3 the last two are taken"


def test_guidance_moves_the_conditional_half_and_a_scale_of_one_computes_no_other(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One DDIM step by hand: to x0 of the guided velocity."""
    own, calls = generator.control.denoise, []

    def counted(*inputs: torch.Tensor) -> torch.Tensor:
        calls.append(own(*inputs))
        return calls[-1]

    monkeypatch.setattr(generator.control, "denoise", counted)
    one = request(generator, 0)
    sample(generator, [one], sampling(steps=1), IntensityParams(threshold=9))
    (single,) = calls
    calls.clear()
    image = sample(generator, [one], sampling(steps=1, guidance_scale=3.0), IntensityParams(threshold=9)).drawn
    (double,) = calls
    assert len(double) == 2 * len(single)
    said, unsaid = (half[0].numpy().astype(float) for half in double.chunk(2))
    assert np.allclose(said, single[0].numpy(), atol=1e-4), "the first half is what is said"
    velocity = unsaid + 3.0 * (said - unsaid)
    schedule = generator.backbone.schedule
    assert (schedule.config["timestep_spacing"], schedule.config["prediction_type"]) == ("trailing", "v_prediction")
    alpha = float(schedule.alphas_cumprod[-1])  # the one step goes from the last noise level to none
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0)).numpy().astype(float)
    start = np.sqrt(alpha) * noise - np.sqrt(1 - alpha) * velocity
    expected = generator.backbone.decode(torch.tensor(start)[None].float())
    assert torch.allclose(image, expected, atol=1e-4)


def test_healing_takes_the_mask_from_the_control_and_acts_from_the_first_step(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, masks = generator.control.denoise, []

    def watched(unet: torch.nn.Module, latents: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        masks.append(mask)
        return own(unet, latents, t, text, mask)

    monkeypatch.setattr(generator.control, "denoise", watched)
    params, never = sampling(steps=2), IntensityParams(threshold=9)
    mixed = request(generator, 2, background=True, edits=True)
    mixed = Request(mixed.prompt, mixed.types, mixed.masks, (-1.0, 1.0), mixed.seed, mixed.background, True)
    healed, _, since = sample(generator, [mixed], params, never)
    assert since[0].tolist() == [0, -1], "the healed type at once, the drawn one when its focus is there"
    assert torch.equal(masks[0][0, 0].bool(), mixed.masks[1]), "the drawn type alone has a mask in the control"
    drawn = Request(mixed.prompt, mixed.types, mixed.masks, (-1.0, 1.0), mixed.seed, mixed.background, False)
    masks.clear()
    plain, _, since = sample(generator, [drawn], params, never)
    assert since[0].tolist() == [-1, -1]
    assert torch.equal(masks[0][0, 0].bool(), mixed.masks.any(0))
    assert not torch.equal(healed, plain)


def test_re_weighting_acts_in_the_controls_encoder_too(generator: Generator) -> None:
    """w = 0 everywhere is a word without a value: the values of its position set to zero by hand in diffusers' own attention."""
    unet, copied = generator.backbone.unet, generator.control.controlnet
    token, text = 3, 3 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(5))
    latents, mask, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(6)), torch.ones(1, 1, 64, 64), torch.tensor([400])
    everywhere = torch.ones(1, 1, dtype=torch.bool)
    silencing = Reweighting(torch.tensor([[token]]), mask.bool(), torch.zeros(1, 1), IntensityParams(), 8, everywhere)

    def denoised() -> torch.Tensor:
        return generator.control.denoise(unet, latents, t, text, mask)

    with torch.no_grad():
        by_hand = {models: silenced_by_hand(models, token, denoised) for models in ((), (unet,), (unet, copied))}
        for in_control, models in ((False, (unet,)), (True, (unet, copied))):
            with tapped(unet, copied, silencing, in_control) as tap:
                found = denoised()
                assert len(tap.maps) == len(attention_layers(unet)), "focus is read from the U-Net's maps alone"
            for others, expected in by_hand.items():
                assert torch.allclose(found, expected, atol=1e-5) == (others == models), (in_control, len(others))


def observed(positions: list[list[int]], healed: list[list[bool]], params: IntensityParams) -> Reweighting:
    """A batch at 32x32 latents, each type's mask the upper left quarter: 16 of the 64 cells that focus is read from."""
    masks = torch.zeros(len(positions), len(positions[0]), 64, 64, dtype=torch.bool)
    masks[:, :, :32, :32] = True
    return Reweighting(torch.tensor(positions), masks, torch.full(masks.shape[:2], 1.5), params, 32, torch.tensor(healed))


def maps_with(lit: dict[tuple[int, int], int], images: int) -> list[torch.Tensor]:
    """Two layers of two heads at 8x8 whose mean has, for (image, token), so many of the mask's cells above the map's mean;
    a level beside them is to be left out."""
    maps = torch.full((images, 2, 8, 8, 4), 0.1)
    for (image, token), cells in lit.items():
        quarter = torch.full((16,), 0.1)
        quarter[:cells] = 0.9
        maps[image, :, :4, :4, token] = quarter.view(4, 4)
    level, spread = maps.flatten(2, 3), torch.tensor([0.05, -0.05]).view(1, 2, 1, 1)  # heads and layers differ, means do not
    return [level + spread, level - spread, torch.rand(images, 2, 16, 4)]


def test_re_weighting_starts_per_image_and_type_once_its_focus_exceeds_the_threshold_and_stays_on() -> None:
    rewriting = observed([[1, 2], [1, -1]], [[False, False], [False, False]], IntensityParams(threshold=0.75))
    before = torch.rand(2, 2, 64, 4)
    assert torch.equal(rewriting(before), before), "nothing acts before anything was read"
    at_threshold, above = 12, 13  # of 16 cells: 0.75 is not more than 0.75
    first = rewriting.observe(maps_with({(0, 1): above, (0, 2): at_threshold, (1, 1): 4}, 2), step=5)
    assert [first.focus[0, 0].item(), first.focus[0, 1].item(), first.focus[1, 0].item()] == [13 / 16, 12 / 16, 4 / 16]
    assert not first.acting.any(), "a map that is read at one step acts from the next"
    assert rewriting.focus.active.tolist() == [[True, False], [False, False]]
    assert rewriting.focus.since.tolist() == [[6, -1], [-1, -1]]
    second = rewriting.observe(maps_with({(0, 1): 1, (0, 2): above, (1, 1): 16}, 2), step=6)
    assert second.acting.tolist() == [[True, False], [False, False]]
    assert rewriting.focus.active.tolist() == [[True, True], [True, False]], "on stays on; a type that is not there never begins"
    assert rewriting.focus.since.tolist() == [[6, 7], [7, -1]]
    after = rewriting(before)
    assert torch.allclose(after[1, :, 0, 1], 1.5 * before[1, :, 0, 1])
    assert torch.equal(after[..., 63, :], before[..., 63, :]), "outside of the masks nothing changes"


@pytest.mark.parametrize(("delayed", "expected"), [(True, [[-1, 0]]), (False, [[0, 0]])])
def test_without_delay_and_where_it_heals_re_weighting_acts_from_the_first_step(delayed: bool, expected: list[list[int]]) -> None:
    rewriting = observed([[1, 2]], [[False, True]], IntensityParams(threshold=9, delayed_focus=delayed))
    assert rewriting.focus.since.tolist() == expected
    reading = rewriting.observe(maps_with({(0, 1): 16, (0, 2): 16}, 1), step=0)
    assert reading.acting.tolist() == [[not delayed, True]]
    assert rewriting.focus.since.tolist() == expected, "what acts does not begin again"


def test_a_base_without_maps_where_focus_is_read_is_one_clear_line() -> None:
    rewriting = observed([[1]], [[False]], IntensityParams())
    with pytest.raises(UsageError, match=r"base.size: focus is read at 8x8, but this base has maps of \[5\] only; set another"):
        rewriting.observe([torch.rand(1, 2, 25, 4)], step=0)
