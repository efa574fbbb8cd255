"""Sampling of windows with intensity-controlled attention: one batch mixes types, masks and intensities (Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cadiff.backbone import Backbone, CrossAttentionTap
from cadiff.devices import LEANER_DRAWING, within_memory
from cadiff.generator.model import Generator
from cadiff.generator.reweighting import Reading, Reweighting, tapped
from cadiff.intensity import touched_cells
from cadiff.params import GenerateParams, IntensityParams
from cadiff.prompt import Prompt

LANES = 8


@dataclass(frozen=True)
class Request:
    """One square of ``base.size`` px to draw: its prompt, one mask and one intensity per anomaly type, its own noise. Where nothing is
    ``asked`` for, what is in a mask is drawn anew all the same, as a normal part, and the control sees no mask.

    ``background`` holds the latents of what is there, kept outside the dilated masks; None: all is generated. ``edits``:
    the background is an existing picture whose defects a type with w <= 0 heals (docs/method.md). ``start`` holds the
    latents that the drawing starts from where ``strength`` is below 1; None: it starts from noise.
    """

    prompt: Prompt
    types: tuple[str, ...]
    masks: Bool[Tensor, "k h w"]
    intensities: tuple[float, ...]
    seed: int
    background: Float[Tensor, "c hl wl"] | None = None
    edits: bool = False
    start: Float[Tensor, "c hl wl"] | None = None
    asked: bool = True

    @property
    def heals(self) -> list[bool]:
        """Per type, whether it is taken out of the picture instead of drawn into it."""
        return [self.edits and w <= 0 for w in self.intensities]


def scheduler_for(generator: Generator, params: GenerateParams) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """The sampler on the base's own noise levels and prediction. What else its file says was meant for another sampler."""
    config = generator.backbone.schedule.config
    scheduler: DDIMScheduler | DPMSolverMultistepScheduler
    if params.scheduler == "ddim":  # latents have no bounds to be clipped to
        scheduler = DDIMScheduler.from_config(config, clip_sample=False, thresholding=False)
    else:  # of order 2; a stochastic one would draw its noise from a stream that nobody seeds
        sigmas = dict.fromkeys((f"use_{kind}_sigmas" for kind in ("karras", "exponential", "beta", "flow")), False)
        scheduler = DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", thresholding=False, **sigmas
        )
    scheduler.set_timesteps(params.steps)
    return scheduler


def lanes(backbone: Backbone, size: int) -> int | None:
    """How many squares of ``size`` px are computed together on this device; None: as many as there are.

    On a CPU the kernel that is chosen for a shape decides the last bits, so the shape must not depend on how many
    images were asked for. Eight of them fill a core at small latents, unless more are asked for, and one alone does not wait long for
    seven others (`make bench`); at large latents one does.
    """
    if backbone.device.type != "cpu":
        return None
    return LANES if backbone.latent_side(size) <= 32 else 1


def in_lanes(count: int, width: int | None) -> list[list[int]]:
    """The indices of ``count`` images in groups of exactly ``width``; the last group repeats its last image."""
    width = width or max(count, 1)
    groups = [list(range(start, min(start + width, count))) for start in range(0, count, width)]
    return [group + group[-1:] * (width - len(group)) for group in groups]


class Sampled(NamedTuple):
    """What was drawn and what the autoencoder makes of what each drawing started from, or of its background (nan where there is none),
    in [-1, 1] on the CPU; and the step at which each type's re-weighting began (-1: never)."""

    drawn: Float[Tensor, "b 3 s s"]
    known: Float[Tensor, "b 3 s s"]
    since: Int[Tensor, "b k"]


@within_memory(LEANER_DRAWING)
def sample(
    generator: Generator, requests: Sequence[Request], params: GenerateParams, intensity: IntensityParams,
    record: Callable[[Reading], None] | None = None,
) -> Sampled:  # fmt: skip
    """Draws the requests.

    Noise is drawn per request from its own seed, on the CPU. On a CPU what is drawn has the same bits whatever else is
    asked for with it, and in whichever order. ``record`` is told of every step, of some of the requests at a time.

    Raises:
        CADiffError: if the device's memory is full.
    """
    size, most = requests[0].masks.shape[-1], max(1, *(len(r.types) for r in requests))
    drawn = torch.empty(len(requests), 3, size, size)
    found = Sampled(drawn, torch.full_like(drawn, torch.nan), torch.full((len(requests), most), -1))
    alike = [(r.background is not None, r.start is not None) for r in requests]  # what is kept of a picture, and the first step
    for kind in sorted(set(alike)):
        chosen = [i for i, own in enumerate(alike) if own == kind]
        for group in in_lanes(len(chosen), lanes(generator.backbone, size)):
            rows = [chosen[i] for i in group]
            told = None if record is None else partial(_of_images, record, rows)
            part = _sample_together(generator, [requests[i] for i in rows], most, params, intensity, told)
            for whole, values in zip(found, part, strict=True):
                whole[rows] = values
    return found


def _of_images(record: Callable[[Reading], None], rows: Sequence[int], reading: Reading) -> None:
    """Passes a reading on with the places of its images among those asked for."""
    record(replace(reading, images=tuple(rows)))


@torch.no_grad()
def _sample_together(
    generator: Generator, requests: Sequence[Request], most: int, params: GenerateParams, intensity: IntensityParams,
    record: Callable[[Reading], None] | None,
) -> Sampled:  # fmt: skip
    backbone = generator.backbone
    side = backbone.latent_side(requests[0].masks.shape[-1])
    shape = (int(backbone.unet.config["in_channels"]), side, side)
    streams = [torch.Generator().manual_seed(r.seed) for r in requests]
    noise = torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(backbone.device)
    rewriting, union, control = _conditions(requests, most, intensity, side, backbone.device)
    text = generator.encode([r.prompt for r in requests])
    empty = backbone.encode_text(backbone.tokenize([""])).expand_as(text) if params.guidance_scale > 1 else None
    scheduler = scheduler_for(generator, params)
    first, latents = _start(requests, noise, scheduler, params.taken)
    rewriting.focus.since = torch.where(rewriting.focus.active, first, rewriting.focus.since)  # no earlier step is taken
    with tapped(backbone.unet, generator.controlnet, rewriting, intensity.in_control) as tap:
        for step, t in enumerate(scheduler.timesteps[first:], start=first):
            scaled = scheduler.scale_model_input(latents, t)
            with backbone.autocast():
                predicted, reading = _predicted(partial(_guided, generator, scaled, t, control), text, empty, rewriting, tap, step)
            if record is not None:
                record(reading)
            if empty is not None:
                conditional, without = predicted.chunk(2)
                predicted = without + params.guidance_scale * (conditional - without)
            latents = scheduler.step(predicted, t, latents, return_dict=False)[0]
            latents = _keep_background(latents, requests, union, noise, scheduler, step, params.dilate)
    images = backbone.decode(latents)
    begun = [r.background if r.start is None else r.start for r in requests if r.background is not None]
    known = backbone.decode(torch.stack(begun)) if begun and params.blend is not None else torch.full_like(images, torch.nan)
    return Sampled(images, known, rewriting.focus.since.cpu())


def _guided(
    generator: Generator, latents: Float[Tensor, "b c hl wl"], t: Tensor, control: Float[Tensor, "b 1 h w"],
    texts: Sequence[Float[Tensor, "b tokens d"]],
) -> Float[Tensor, "n c hl wl"]:  # fmt: skip
    """The predictions under each of some texts, one after the other in one batch: it is the larger ones that fill a processor."""
    every = len(texts)
    return generator.denoise(torch.cat([latents] * every), t, torch.cat(list(texts)), torch.cat([control] * every)).float()


def _predicted(
    denoise: Callable[[Sequence[Tensor]], Tensor], text: Tensor, empty: Tensor | None, rewriting: Reweighting, tap: CrossAttentionTap,
    step: int,
) -> tuple[Float[Tensor, "n c hl wl"], Reading]:  # fmt: skip
    """A step's prediction under re-weighting, followed by that under the ``empty`` text where there is one, and what the focus was; a
    second pass where each step is to be tested by its own maps. The maps are let go once they are read."""
    texts = [text] if empty is None else [text, empty]
    if not rewriting.tests_each_step:
        predicted = denoise(texts)
        reading = rewriting.observe(tap.maps, step)
        tap.clear()
        return predicted, reading
    rewriting.enabled = False
    predicted = denoise(texts)
    rewriting.enabled = True
    reading = rewriting.test(tap.maps, step)
    tap.clear()
    if reading.acting.any():
        predicted = torch.cat([denoise([text]), *predicted.chunk(len(texts))[1:]])
        tap.clear()
    return predicted, reading


def _conditions(
    requests: Sequence[Request], most: int, params: IntensityParams, side: int, device: torch.device
) -> tuple[Reweighting, Bool[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]:
    """The re-weighting, the union of each image's masks, and of those that the ControlNet is to draw into.

    A type that is healed has no control: a mask there would ask for the defect's shape again. Nor has a normal that is drawn anew.
    """

    def padded(rows: Sequence[Sequence[object]], filler: object) -> Tensor:
        return torch.tensor([[*row, *[filler] * (most - len(row))] for row in rows], device=device)

    masks = torch.stack([_padded(r.masks, most) for r in requests]).to(device)
    positions = padded([[r.prompt.positions.get(t, -1) for t in r.types] for r in requests], -1)
    healed = padded([r.heals for r in requests], False)
    weights = padded([r.intensities for r in requests], 1.0)
    asked = torch.tensor([r.asked for r in requests], device=device)[:, None, None, None]
    control = (masks & ~healed[..., None, None] & asked).any(1, keepdim=True).float()
    rewriting = Reweighting(positions, masks, weights, params, side, healed, max(r.prompt.vectors for r in requests))
    return rewriting, masks.any(1, keepdim=True), control


def _start(
    requests: Sequence[Request], noise: Tensor, scheduler: DDIMScheduler | DPMSolverMultistepScheduler, strength: float
) -> tuple[int, Tensor]:
    """The first step and its latents: pure noise, or what the requests start from, noised to where ``strength`` of the steps remain.

    All requests have such a start, or none has.
    """
    first = len(scheduler.timesteps) - max(1, round(strength * len(scheduler.timesteps)))
    starts = [r.start for r in requests if r.start is not None]
    if strength == 1 or not starts:
        return 0, noise * scheduler.init_noise_sigma
    if isinstance(scheduler, DPMSolverMultistepScheduler):
        scheduler.set_begin_index(first)
    t = scheduler.timesteps[first].expand(len(requests))
    return first, scheduler.add_noise(torch.stack(starts).to(noise), noise, t)


def _padded(masks: Bool[Tensor, "k h w"], most: int) -> Bool[Tensor, "most h w"]:
    return torch.cat([masks, torch.zeros(most - len(masks), *masks.shape[1:], dtype=torch.bool)])


def _keep_background(
    latents: Tensor, requests: Sequence[Request], union: Bool[Tensor, "b 1 h w"], noise: Tensor,
    scheduler: DDIMScheduler | DPMSolverMultistepScheduler, step: int, dilate: int,
) -> Tensor:  # fmt: skip
    """Outside the dilated masks, the background's latents at the noise level that the step arrived at."""
    kept = [i for i, r in enumerate(requests) if r.background is not None]
    if not kept:
        return latents
    known = torch.stack([r.background for r in requests if r.background is not None]).to(latents)
    if step + 1 < len(scheduler.timesteps):
        known = scheduler.add_noise(known, noise[kept], scheduler.timesteps[step + 1].expand(len(kept)))
    side = latents.shape[-1]
    touched = touched_cells(union[kept], side).float().unflatten(2, (side, side))
    cells = F.max_pool2d(touched, 2 * dilate + 1, stride=1, padding=dilate)
    latents = latents.clone()
    latents[kept] = torch.where(cells > 0, latents[kept], known)
    return latents
