"""Writes the trained parts as a base in diffusers' layout, with a card and checksums beside the weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, ModelMixin
from transformers import CLIPTokenizer

from cadiff.backbone.save import save_part
from cadiff.pretraining.diffusion import build_schedule
from cadiff.storage import sha256_file, write_json


def export_base(out: Path, modules: Mapping[str, ModelMixin], tokenizer: CLIPTokenizer, card: dict[str, Any]) -> None:
    """Half-precision safetensors under ``out`` (replaced if there), and ``card.json`` with every file's SHA-256."""
    shutil.rmtree(out, ignore_errors=True)
    for name, module in modules.items():
        save_part(module.half(), out / name)
    tokenizer.save_pretrained(out / "tokenizer")
    build_schedule().save_pretrained(out / "scheduler")
    files = sorted(f for f in out.rglob("*") if f.is_file())
    sums = {f.relative_to(out).as_posix(): sha256_file(f) for f in files}
    size = sum(f.stat().st_size for f in files)
    write_json(out / "card.json", {**card, "bytes": size, "sha256": sums})


@torch.no_grad()
def unit_scale(vae: AutoencoderDC, images: torch.Tensor) -> None:
    """Registers the factor that brings the latents of ``images`` (b 3 h w) to unit variance."""
    vae.register_to_config(scaling_factor=float(1 / vae.encode(images).latent.std()))
