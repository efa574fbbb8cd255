"""The loss of joint training (Eq. 8), and its gradients in as many passes as memory asks for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cadiff.backbone import Backbone
from cadiff.generator.adapt import velocity_or_noise
from cadiff.generator.examples import View
from cadiff.generator.model import Generator
from cadiff.generator.reweighting import Reweighting, tapped
from cadiff.generator.steps import in_passes
from cadiff.params import IntensityParams, Params, PromptParams
from cadiff.prompt import contrastive_loss, localizing_loss, spread


def joint_loss(generator: Generator, view: View, params: Params, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    """L = L_CALDM + gamma L_loc + beta L_contrastive (Eq. 8), and its parts."""
    noise, t = noise_of(generator.backbone, view, rng)
    with generator.backbone.autocast():
        text = generator.encode(view.prompts)
    loss, parts = pictures_loss(generator, view, view, noise, t, text, params)
    if params.prompt.contrastive and params.prompt.beta:
        contrast = contrast_of(generator, view, text, params.prompt)
        loss, parts["contrastive"] = loss + params.prompt.beta * contrast, contrast.item()
    return loss, parts


def learn(
    generator: Generator, view: View, params: Params, rng: torch.Generator, scaler: torch.amp.GradScaler
) -> dict[str, float]:
    """Adds the gradients of `joint_loss` to what learns, with the batch taken in ``train.accumulate`` passes; its parts.

    Each pass holds the activations of its own pictures alone. The text encoder sees the whole batch once, as Eq. 6-7 compare all of its
    vectors; the gradients of all passes meet at its output.
    """
    if params.train.accumulate == 1:
        loss, parts = joint_loss(generator, view, params, rng)
        scaler.scale(loss).backward()
        return parts
    noise, t = noise_of(generator.backbone, view, rng)
    with generator.backbone.autocast():
        text = generator.encode(view.prompts)
    given, parts = text.detach().requires_grad_(), dict[str, float]()
    for rows in in_passes(len(t), params.train.accumulate):
        loss, own = pictures_loss(generator, view.part(rows), view, noise[rows], t[rows], given[rows], params)
        scaler.scale(loss).backward()
        parts = {name: parts.get(name, 0.0) + value for name, value in own.items()}
    ends = [(text, given.grad)] if text.requires_grad else []
    if params.prompt.contrastive and params.prompt.beta:
        contrast = contrast_of(generator, view, text, params.prompt)
        parts["contrastive"] = contrast.item()
        ends += [(scaler.scale(params.prompt.beta * contrast), None)] if contrast.requires_grad else []
    torch.autograd.backward([end for end, _ in ends], [grad for _, grad in ends])
    return parts


def noise_of(backbone: Backbone, view: View, rng: torch.Generator) -> tuple[Float[Tensor, "b c hl wl"], Int[Tensor, " b"]]:
    """Each picture's noise and noise level, drawn on the CPU."""
    side = backbone.latent_side(view.image.shape[-1])
    noise = torch.randn((len(view.image), int(backbone.unet.config["in_channels"]), side, side), generator=rng)
    return noise.to(backbone.device), torch.randint(0, len(backbone.schedule), (len(noise),), generator=rng).to(backbone.device)


def pictures_loss(
    generator: Generator, view: View, whole: View, noise: Tensor, t: Tensor, text: Float[Tensor, "b tokens d"], params: Params
) -> tuple[Tensor, dict[str, float]]:
    """L_CALDM + gamma L_loc, which are means over pictures: the share of these ones in those of the ``whole`` batch, and its parts."""
    backbone, prompt, share = generator.backbone, params.prompt, len(view.image) / len(whole.image)
    latent = backbone.encode(view.image, narrow=True)
    mask, positions = view.mask.to(backbone.device), view.positions.to(backbone.device)
    silencing = silencing_of(view, latent.shape[-1], backbone.device)
    with tapped(backbone.unet, generator.controlnet, silencing) as tap, backbone.autocast():
        predicted = generator.denoise(backbone.schedule.add_noise(latent, noise, t), t, text, mask)
        maps = list(tap.maps)
    error = (predicted.float() - velocity_or_noise(backbone, latent, noise, t)).square()
    cells = cells_of(mask, error)
    if prompt.tokens == "single":  # Textual Inversion on the anomaly region: Eq. 2 inside the mask
        denoising = (error * cells).sum() / (cells_of(whole.mask.to(mask), error).sum() * error.shape[1]).clamp(min=1)
    else:
        denoising = (error * (1 + params.train.mask_weight * cells)).mean() * share
    loss, parts = denoising, {"denoising": denoising.item()}
    if prompt.localizing and prompt.gamma:
        masks = view.concept_masks.to(backbone.device)
        if prompt.localizing_over == "tokens":  # a mean over all tokens that are there
            share = int((view.positions >= 0).sum()) / max(int((whole.positions >= 0).sum()), 1)
        localizing = localizing_loss(maps, positions, masks, prompt.balanced, prompt.vectors, prompt.localizing_over) * share
        loss, parts["localizing"] = loss + prompt.gamma * localizing, localizing.item()
    return loss, parts


def cells_of(mask: Float[Tensor, "b 1 h w"], latents: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 1 hl wl"]:
    """The share of each latent cell that a mask covers."""
    return F.interpolate(mask, size=latents.shape[-2:], mode="area")


def contrast_of(generator: Generator, view: View, text: Float[Tensor, "b tokens d"], prompt: PromptParams) -> Float[Tensor, ""]:
    """L_contrastive (Eq. 6-7) of the contextual vectors of what each picture shows, or of all concepts, as its second prompt says them;
    of several embeddings a token their mean."""
    positions = view.positions.to(text.device)
    if prompt.contrastive_of == "all":
        with generator.backbone.autocast():
            text = generator.encode(view.everything)
        rows = [[said.positions[concept] for concept in generator.tokens.concepts] for said in view.everything]
        positions = torch.tensor(rows, device=text.device)
    present, index = positions >= 0, spread(positions, prompt.vectors).clamp(min=0)
    each = text.float().gather(1, index[..., None].expand(-1, -1, text.shape[-1])).unflatten(1, (-1, prompt.vectors)).mean(2)
    concepts = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)[present]
    images = torch.arange(len(positions), device=positions.device)[:, None].expand_as(positions)[present]
    apart = images if prompt.contrastive_without == "image" else None
    return contrastive_loss(each[present], concepts, prompt.temperature, prompt.contrastive_over, apart)


def silencing_of(view: View, side: int, device: torch.device) -> Reweighting | None:
    """Eq. 11 with w = 0 for a batch's silenced words: masked, in both models, at every noise level, whatever ``intensity`` says.
    None where it has none."""
    if not (view.silenced >= 0).any():
        return None
    positions = view.silenced[:, None].to(device)
    always = torch.ones_like(positions, dtype=torch.bool)
    zero, vectors = torch.zeros(positions.shape, device=device), max(said.vectors for said in view.prompts)
    return Reweighting(positions, view.mask.bool().to(device), zero, IntensityParams(), side, always, vectors)
