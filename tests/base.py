"""A small base with random weights in diffusers' layout: real components, nothing learnt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cadiff  # noqa: F401  (makes torchvision importable before diffusers asks for it)

# isort: split

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

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


def write_sd15_base(folder: Path) -> Path:
    """Stable Diffusion 1.5's folder as its authors published it in 2022, narrow: four levels, old names of the autoencoder's attention
    and the text encoder's weights, the tokenizer as ``vocab.json`` and ``merges.txt``, PNDM, and parts that nothing here reads."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    levels = (16, 32, 32, 32)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=levels, layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        sample_size=64, block_out_channels=(16, 16, 16, 16), layers_per_block=2, norm_num_groups=8, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    for part, name in ((unet, "unet"), (vae, "vae"), (build_text_encoder(tokenizer, 32), "text_encoder")):
        part.save_pretrained(folder / name, safe_serialization=True)
    _rename_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", _old_attention)
    _rename_weights(folder / "text_encoder" / "model.safetensors", lambda name: f"text_model.{name.removeprefix('text_model.')}")
    for name, gone in (("unet", ()), ("vae", ("scaling_factor", "shift_factor", "latents_mean", "latents_std"))):
        config = json.loads((folder / name / "config.json").read_text())
        kept = {key: value for key, value in config.items() if key not in gone} | {"_diffusers_version": "0.6.0"}
        (folder / name / "config.json").write_text(json.dumps(kept))
    _write_old_tokenizer(folder / "tokenizer", json.loads(tokenizer.backend_tokenizer.to_str())["model"])
    PNDMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False,
        skip_prk_steps=True, steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"not read")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not read: a pickle")
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0"}))
    return folder


def _old_attention(name: str) -> str:
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
    return name


def _rename_weights(path: Path, renamed: Callable[[str], str]) -> None:
    tensors = {renamed(name): tensor for name, tensor in load_file(path).items()}
    if path.name == "model.safetensors":  # a buffer that the class no longer has
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, path, {"format": "pt"})


def _write_old_tokenizer(folder: Path, model: dict) -> None:
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    (folder / "tokenizer_config.json").write_text(json.dumps({**marks, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}))
