"""Stable Diffusion 1.5's architecture as its config.json files publish it, without weights: what a step takes can be counted before
anything was downloaded."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig

NAME = "stable-diffusion-v1-5"  # of the hub's repositories of it, whoever keeps one

UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 768, "attention_head_dim": 8,
}  # fmt: skip
VAE: dict[str, Any] = {
    "sample_size": 512, "latent_channels": 4, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4, "scaling_factor": 0.18215,
}  # fmt: skip


def is_sd15(path: str) -> bool:
    """Whether a base's path is the hub's name of Stable Diffusion 1.5."""
    return path.count("/") == 1 and path.endswith(f"/{NAME}")


def networks() -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """The U-Net and the autoencoder; their weights are random, and none on the meta device."""
    return UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)


def text_configuration() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip


def configurations() -> tuple[dict[str, Any], dict[str, Any], CLIPTextConfig]:
    """Of U-Net, autoencoder and text encoder, as ``load_config`` reads them from a folder."""
    return {"_class_name": "UNet2DConditionModel", **UNET}, {"_class_name": "AutoencoderKL", **VAE}, text_configuration()
