"""A small base with random weights in diffusers' layout: real components, nothing learnt."""

from __future__ import annotations

from pathlib import Path

import cadiff  # noqa: F401  (makes torchvision importable before diffusers asks for it)

# isort: split

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from cadiff.pretraining.diffusion import build_schedule, build_text_encoder, build_tokenizer


def write_tiny_base(folder: Path, width: int = 32) -> Path:
    """Three levels on 4-channel latents at an 8th of the side, as Stable Diffusion has them, but narrow."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width, attention_head_dim=2, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 16, 16), norm_num_groups=8, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    vae.save_pretrained(folder / "vae", safe_serialization=True)
    build_text_encoder(tokenizer, width).save_pretrained(folder / "text_encoder", safe_serialization=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    build_schedule().save_pretrained(folder / "scheduler")
    return folder
