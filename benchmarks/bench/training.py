"""A training step with all losses, beside a plain one of diffusers' own scripts on the same shapes.

The plain step is that of ``train_controlnet.py`` with a learned embedding as in ``textual_inversion.py``: the same frozen U-Net, the same
ControlNet and text encoder, no SAIM, no attention maps, no localising or contrastive loss.
"""

from __future__ import annotations

from collections.abc import Callable

import cadiff  # noqa: F401  (makes torchvision importable before diffusers asks for it)

# isort: split

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel

from cadiff.backbone import load_backbone
from cadiff.generator import Generator
from cadiff.generator.examples import Shown, View, draw_view
from cadiff.generator.joint import joint_loss
from cadiff.generator.train import new_generator
from cadiff.params import Params
from cadiff.seeds import torch_generator

from .arithmetic import dtypes, matrix_peak, operations
from .place import PRODUCT, Setting
from .rows import Row, per_second, ratio, rounds, row

PART = "training"
LEARNED = 1  # the token whose embedding the plain step learns; which one it is costs nothing
Step = Callable[[], None]


def rates(setting: Setting, _: object) -> list[Row]:
    """Steps a second of both on a batch that is there, of ours also with the batch drawn, and the shares of the matrix peak."""
    return [one for dtype, computed in dtypes(setting.scale.dtypes).items() for one in rates_in(setting, dtype, computed)]


def rates_in(setting: Setting, dtype: str, computed: torch.dtype) -> list[Row]:
    scale = setting.scale
    params = setting.params(dtype)
    shown = Shown.of(setting.samples(params), params)
    backbone = load_backbone(params.base)
    generator = new_generator(params, PRODUCT, sorted(set(shown.types)), backbone)
    backbone.narrow()
    view = draw_view(shown, generator.tokens, backbone, params, torch_generator(0, "bench"))
    own, whole = ours(generator, params, lambda: view), ours(generator, params, drawing(generator, params, shown))
    theirs = plain(params, computed, view)
    needed, count = {"ours": operations(own), "plain": operations(theirs)}, scale.train_steps
    found = rounds(
        setting.repeat,
        {
            "peak": matrix_peak(computed, scale.matrix), "ours": per_second(count, times(count, own)),
            "whole": per_second(count, times(count, whole)), "plain": per_second(count, times(count, theirs)),
        },
    )  # fmt: skip
    said = f"{dtype}, batch {scale.batch}"
    words = {"ours": "ours", "whole": "ours with its batch drawn", "plain": "plain ControlNet and token of diffusers"}
    told = [row(PART, f"{words[name]} ({said})", found[name], "steps/s") for name in words]
    told.append(ratio(PART, f"ours / plain ({said})", found["ours"], found["plain"]))
    told.append(ratio(PART, f"ours with its batch drawn / plain ({said})", found["whole"], found["plain"]))
    for name, flops in needed.items():
        used, note = [speed * flops for speed in found[name]], f"{flops / 1e9:.1f} GFLOP a step"
        told.append(ratio(PART, f"{words[name]}: share of the matrix peak ({said})", used, found["peak"], note))
    return told


def times(count: int, step: Step) -> Step:
    def steps() -> None:
        for _ in range(count):
            step()

    return steps


def drawing(generator: Generator, params: Params, shown: Shown) -> Callable[[], View]:
    rng = torch_generator(0, "bench", "drawn")
    return lambda: draw_view(shown, generator.tokens, generator.backbone, params, rng)


def ours(generator: Generator, params: Params, view: Callable[[], View]) -> Step:
    """A step as ``cadiff.generator.train`` takes it, but for its bookkeeping."""
    trained = [*generator.tokens.parameters(), *generator.control.parameters()]  # type: ignore[union-attr]
    optimiser, rng = torch.optim.AdamW(trained, lr=1e-5), torch_generator(0, "bench", "noise")

    def step() -> None:
        optimiser.zero_grad()
        joint_loss(generator, view(), params, rng)[0].backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()

    return step


def plain(params: Params, dtype: torch.dtype, view: View) -> Step:
    """A step as both scripts take it with mixed precision: frozen weights in ``dtype``, what is learned in float32."""
    folder, whole = params.base.path, {"low_cpu_mem_usage": False}  # the other way asks for one more package
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype, **whole).requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype, **whole).requires_grad_(False)
    controlnet = ControlNetModel.from_pretrained(folder, subfolder="controlnet", torch_dtype=torch.float32, **whole).train()
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32).requires_grad_(False)
    schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    embedding = text.get_input_embeddings().requires_grad_(True).weight
    before, kept = embedding.detach().clone(), torch.arange(len(embedding)) != LEARNED
    optimiser = torch.optim.AdamW([*controlnet.parameters(), embedding], lr=1e-5)
    ids = torch.full((len(view.image), text.config.max_position_embeddings), LEARNED)

    def step() -> None:
        with torch.no_grad():
            latent = vae.encode(view.image.to(dtype)).latent_dist.sample().float() * vae.config["scaling_factor"]
        noise, t = torch.randn_like(latent), torch.randint(0, len(schedule), (len(latent),))
        noisy = schedule.add_noise(latent, noise, t)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            hidden = text(ids)[0]
            down, middle = controlnet(noisy, t, hidden, view.mask, return_dict=False)
            added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            predicted = unet(noisy, t, hidden, **added).sample
        F.mse_loss(predicted.float(), schedule.get_velocity(latent, noise, t)).backward()
        torch.nn.utils.clip_grad_norm_(controlnet.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():  # all other tokens stay what they were
            embedding[kept] = before[kept]

    return step
