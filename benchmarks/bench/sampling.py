"""Sampling with all parts on, beside the stock pipeline: ``StableDiffusionControlNetPipeline`` of diffusers.

Both have the same U-Net, ControlNet, text encoder, autoencoder, sampler, steps, guidance and precision. Ours also has SAIM, the
re-weighting of attention with its reading of focus, a background that is kept, and that background's own way through the decoder.
Where the table does not say otherwise, they take the demo's ``generate.steps`` of its ``generate.scheduler``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cadiff  # noqa: F401  (makes torchvision importable before diffusers asks for it)

# isort: split

import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from cadiff.backbone import load_backbone
from cadiff.control import SpatialControl
from cadiff.generator import Generator
from cadiff.generator.sample import Request, sample, scheduler_for
from cadiff.params import Params
from cadiff.prompt import LearnedTokens

from .arithmetic import dtypes, matrix_peak, operations
from .place import PRODUCT, Setting
from .rows import Row, per_second, ratio, rounds, row

PART, KIND = "sampling", "rust"
Draw = Callable[[int], object]  # draws so many images together


def rates(setting: Setting, _: object) -> list[Row]:
    """Images a second of both, together and one at a time, and what share of the matrix peak the operations that they need come to."""
    return [one for dtype, computed in dtypes(setting.scale.dtypes).items() for one in rates_in(setting, dtype, computed)]


def rates_in(setting: Setting, dtype: str, computed: torch.dtype) -> list[Row]:
    scale = setting.scale
    params = setting.params(dtype)
    slow = params.generate.model_copy(update={"scheduler": "ddim", "steps": scale.many_steps})
    generator = generator_of(params)
    own, theirs = ours(generator, params), stock(params, computed, scheduler_for(generator, params.generate))
    slowly = stock(params, computed, scheduler_for(generator, slow))
    many = scale.images
    needed = {name: operations(lambda draw=draw: draw(many)) / many for name, draw in (("ours", own), ("stock", theirs))}
    found = rounds(
        setting.repeat,
        {
            "peak": matrix_peak(computed, scale.matrix),
            "ours": per_second(many, lambda: own(many)), "stock": per_second(many, lambda: theirs(many)),
            "ours alone": per_second(1, lambda: own(1)), "stock alone": per_second(1, lambda: theirs(1)),
            "stock slowly": per_second(1, lambda: slowly(1)),
        },
    )  # fmt: skip
    words = {
        "ours": f"ours, {many} together", "stock": f"stock, {many} together", "ours alone": "ours, one at a time",
        "stock alone": "stock, one at a time", "stock slowly": f"stock, one at a time with {scale.many_steps} DDIM steps",
    }  # fmt: skip
    told = [row(PART, f"{words[name]} ({dtype})", found[name], "images/s") for name in words]
    for above, below in (("ours", "stock"), ("ours alone", "stock alone"), ("ours", "stock alone"), ("ours", "stock slowly")):
        told.append(ratio(PART, f"{words[above]} / {words[below]} ({dtype})", found[above], found[below]))
    told.append(row(PART, f"matrix peak ({dtype})", [peak / 1e9 for peak in found["peak"]], "GFLOP/s", f"{scale.matrix} x {scale.matrix}"))
    for name, count in needed.items():
        used = [speed * count for speed in found[name]]
        note = f"{count / 1e9:.2f} GFLOP an image"
        told.append(ratio(PART, f"{words[name]}: share of the matrix peak ({dtype})", used, found["peak"], note))
    return told


def memory(setting: Setting, which: str) -> list[Row]:
    """One batch of one of both: its process's peak is what is told of it."""
    params, computed = setting.params(), dtypes(("auto",)).popitem()[1]
    generator = generator_of(params)
    if which == "ours":
        draw = ours(generator, params)
    else:
        scheduler = scheduler_for(generator, params.generate)
        del generator  # the stock pipeline has networks of its own
        draw = stock(params, computed, scheduler)
    draw(setting.scale.images)
    return []


def generator_of(params: Params) -> Generator:
    """What the base brings, as a trained generator has it: its control and SAIM, and tokens of a product."""
    backbone = load_backbone(params.base)
    tokens = LearnedTokens(backbone, PRODUCT, [KIND], params.prompt.initial_word, initial_context=params.prompt.initial_context)
    control = SpatialControl.load(Path(params.base.path), backbone).narrow(backbone.dtype)
    return Generator(backbone.narrow(), tokens.requires_grad_(False), control, "bench")


def ours(generator: Generator, params: Params) -> Draw:
    backbone, size = generator.backbone, params.base.size
    mask, prompt = square(size)[0].bool(), generator.prompt([KIND], 0)
    shape = (int(backbone.unet.config["in_channels"]), *[backbone.latent_side(size)] * 2)
    kept = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def draw(count: int) -> object:
        requests = [Request(prompt, (KIND,), mask, (1.2,), seed, background=kept) for seed in range(count)]
        return sample(generator, requests, params.generate, params.intensity)

    return draw


def stock(params: Params, dtype: torch.dtype, scheduler: Any) -> Draw:
    """diffusers' own pipeline, every weight in ``dtype``, as many steps as the scheduler is set to."""
    folder, size, steps = params.base.path, params.base.size, len(scheduler.timesteps)
    unet, vae, controlnet = (
        kind.from_pretrained(folder, subfolder=name, torch_dtype=dtype, low_cpu_mem_usage=False)
        for name, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL), ("controlnet", ControlNetModel))
    )
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=dtype)
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    pipeline = StableDiffusionControlNetPipeline(
        vae, text, tokenizer, unet, controlnet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)

    def draw(count: int) -> object:
        noise = [torch.Generator().manual_seed(seed) for seed in range(count)]
        return pipeline(
            ["a photo of a part with anomaly"] * count, image=square(size).expand(count, -1, -1, -1), generator=noise,
            num_inference_steps=steps, guidance_scale=params.generate.guidance_scale, output_type="np",
        ).images  # fmt: skip

    return draw


def square(size: int) -> torch.Tensor:
    """A mask (1 1 size size) that covers a sixteenth."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    return mask
