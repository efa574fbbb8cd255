"""Sampling with intensity-controlled attention: one batch mixes types, masks and intensities (Eq. 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cadiff.backbone import CrossAttentionTap
from cadiff.generator.train import Generator
from cadiff.intensity import focus_degree, mask_cells, reweight
from cadiff.params import GenerateParams, IntensityParams
from cadiff.prompt import Prompt


@dataclass(frozen=True)
class Request:
    """One image to draw: its prompt, one mask and one intensity per anomaly type, its own noise.

    ``background`` holds a real normal image's latents, kept outside the dilated masks; None: all is generated.
    """

    prompt: Prompt
    types: tuple[str, ...]
    masks: Bool[Tensor, "k h w"]
    intensities: tuple[float, ...]
    seed: int
    background: Float[Tensor, "c hl wl"] | None = None


@dataclass
class Focus:
    """The delayed focus scheduler's state, per image and type: whether re-weighting acts, and since which step."""

    active: Bool[Tensor, "b k"]
    since: Int[Tensor, "b k"]


class Reweighting:
    """IAR during one batch's denoising: rewrites maps as they pass, and reads the focus after each step."""

    def __init__(self, positions: Tensor, masks: Tensor, intensity: Tensor, params: IntensityParams, side: int) -> None:
        self.positions, self.masks, self.intensity, self.params = positions, masks, intensity, params
        self.side = params.resolution or max(side // 4, 8)
        self.enabled = True
        begun = torch.full(positions.shape, not params.delayed_focus, device=positions.device)
        self.focus = Focus(begun & (positions >= 0), torch.where(begun, 0, -1))
        self._inside: dict[int, Tensor] = {}

    def inside(self, cells: int) -> Bool[Tensor, "b k cells"]:
        """The masks at the resolution of a map with this many cells."""
        if cells not in self._inside:
            self._inside[cells] = mask_cells(self.masks, round(cells**0.5))
        return self._inside[cells]

    def __call__(self, maps: Float[Tensor, "b heads cells tokens"]) -> Float[Tensor, "b heads cells tokens"]:
        if not self.enabled:
            return maps
        inside = self.inside(maps.shape[2])
        return reweight(maps, self.positions, inside, self.intensity, self.focus.active, self.params.masked_focus)

    def observe(self, maps: Sequence[Tensor], step: int) -> None:
        """Starts re-weighting, from the next step on, where the focus has passed the threshold; it stays on."""
        level = [layer.float().mean(1) for layer in maps if layer.shape[2] == self.side**2]
        mean = torch.stack(level).mean(0)
        index = self.positions.clamp(min=0)[:, None, :].expand(-1, mean.shape[1], -1)
        attention = mean.gather(2, index).transpose(1, 2)
        reached = focus_degree(attention, self.inside(self.side**2)) > self.params.threshold
        begins = reached & ~self.focus.active & (self.positions >= 0)
        self.focus.since = torch.where(begins, step + 1, self.focus.since)
        self.focus.active = self.focus.active | begins


def scheduler_for(generator: Generator, params: GenerateParams) -> DDIMScheduler | DPMSolverMultistepScheduler:
    kind = DDIMScheduler if params.scheduler == "ddim" else DPMSolverMultistepScheduler
    scheduler = kind.from_config(generator.backbone.schedule.config)
    scheduler.set_timesteps(params.steps)
    return scheduler


@torch.no_grad()
def sample(
    generator: Generator, requests: Sequence[Request], params: GenerateParams, intensity: IntensityParams
) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, "b k"]]:
    """Images in [-1, 1] on the CPU, and the step at which each type's re-weighting began (-1: never).

    Noise is drawn per image from its own seed, on the CPU.
    """
    backbone, device = generator.backbone, generator.backbone.device
    most = max(1, *(len(r.types) for r in requests)) if requests else 1
    size = requests[0].masks.shape[-1]
    side = backbone.latent_side(size)
    masks = torch.stack([_padded(r.masks, most) for r in requests]).to(device)
    positions = torch.tensor([[r.prompt.positions[t] for t in r.types] + [-1] * (most - len(r.types)) for r in requests], device=device)
    weights = torch.tensor([[*r.intensities, *[1.0] * (most - len(r.types))] for r in requests], device=device)
    channels = int(backbone.unet.config["in_channels"])
    noise = torch.stack(
        [torch.randn(channels, side, side, generator=torch.Generator().manual_seed(r.seed)) for r in requests]
    ).to(device)
    union = masks.any(1, keepdim=True)
    text = generator.tokens.encode(backbone, [r.prompt for r in requests])
    empty = backbone.encode_text(backbone.tokenize([""])).expand_as(text) if params.guidance_scale > 1 else None
    scheduler, rewriting = scheduler_for(generator, params), Reweighting(positions, masks, weights, intensity, side)
    first, latents = _start(requests, noise, scheduler, params.strength)
    with CrossAttentionTap(backbone.unet, rewriting) as tap:
        for step, t in enumerate(scheduler.timesteps[first:], start=first):
            tap.clear()
            scaled = scheduler.scale_model_input(latents, t)
            with backbone.autocast():
                predicted = generator.control.denoise(backbone.unet, scaled, t, text, union.float()).float()
                rewriting.observe(tap.maps, step)
                if empty is not None:
                    rewriting.enabled = False  # the conditional half alone is re-weighted
                    without = generator.control.denoise(backbone.unet, scaled, t, empty, union.float()).float()
                    rewriting.enabled = True
                    predicted = without + params.guidance_scale * (predicted - without)
            latents = scheduler.step(predicted, t, latents, return_dict=False)[0]
            latents = _keep_background(latents, requests, union, noise, scheduler, step, params.dilate)
    return backbone.decode(latents), rewriting.focus.since.cpu()


def _start(
    requests: Sequence[Request], noise: Tensor, scheduler: DDIMScheduler | DPMSolverMultistepScheduler, strength: float
) -> tuple[int, Tensor]:
    """The first step and its latents: pure noise, or the backgrounds noised to where ``strength`` of the steps remain.

    A batch in which an image has no background starts from noise.
    """
    first = len(scheduler.timesteps) - max(1, round(strength * len(scheduler.timesteps)))
    known = [r.background for r in requests if r.background is not None]
    if first == 0 or len(known) < len(requests):
        return 0, noise * scheduler.init_noise_sigma
    if isinstance(scheduler, DPMSolverMultistepScheduler):
        scheduler.set_begin_index(first)
    t = scheduler.timesteps[first].expand(len(requests))
    return first, scheduler.add_noise(torch.stack(known).to(noise), noise, t)


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
    cells = F.adaptive_max_pool2d(union[kept].float(), latents.shape[-1])
    cells = F.max_pool2d(cells, 2 * dilate + 1, stride=1, padding=dilate)
    latents = latents.clone()
    latents[kept] = torch.where(cells > 0, latents[kept], known)
    return latents
