"""Writes a part of a base or a control in diffusers' layout."""

from __future__ import annotations

from pathlib import Path

from diffusers import ModelMixin

from cadiff.storage import read_json, write_json


def save_part(module: ModelMixin, folder: Path) -> None:
    """``config.json`` and safetensors, without the folder that the part was loaded from.

    diffusers keeps that as ``_name_or_path``: the same training would have other bytes, and another digest, in another checkout.
    """
    module.save_pretrained(folder, safe_serialization=True)
    config = read_json(folder / "config.json")
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", config)
