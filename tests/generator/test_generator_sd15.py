"""A folder with Stable Diffusion 1.5's exact classes and file names goes through adaptation, training and drawing; what one step of it
takes, counted without any weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from base import write_sd15_base
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from cadiff.backbone import load_backbone
from cadiff.generator import adapt_base, generate_shards, train_generator
from cadiff.masks import make_scenes
from cadiff.needs import configurations, needs, step_of
from cadiff.params import BaseParams, Params
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.storage import read_table
from cadiff.task import Task


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd15_base(tmp_path_factory.mktemp("sd15") / "base")


def of(params: Params, base: Path, **sections: dict[str, object]) -> Params:
    values = params.model_dump()
    return Params(**{**values, "base": {**values["base"], "path": str(base)}, **{k: {**values[k], **own} for k, own in sections.items()}})


def test_old_names_are_the_weights_that_they_name(base: Path) -> None:
    loaded = load_backbone(BaseParams(path=str(base), size=64, device="cpu", dtype="float32"))
    assert isinstance(loaded.vae, AutoencoderKL)
    stored = load_file(base / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(loaded.vae.encoder.mid_block.attentions[0].to_q.weight, stored["encoder.mid_block.attentions.0.query.weight"])
    text = load_file(base / "text_encoder" / "model.safetensors")
    found = loaded.text_encoder.get_input_embeddings().weight
    assert torch.equal(found, text["text_model.embeddings.token_embedding.weight"])
    assert loaded.vae.config["scaling_factor"] == 0.18215, "what the published configuration leaves out"
    ids = loaded.token_ids(["a photo of a nut"])
    assert loaded.tokenizer.convert_ids_to_tokens(ids[0])[1:6] == ["a</w>", "photo</w>", "of</w>", "a</w>", "nut</w>"]


def test_it_goes_through_adaptation_training_and_drawing(
    base: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    lean = {"accumulate": 2, "checkpointing": True}
    params = of(
        small_params, base, adapt={"steps": 1, "vae_steps": 1, "batch": 2}, train={"steps": 2, **lean}, control={"heads": 4},
        generate={"per_type": 1, "steps": 2, "guidance_scale": 2.0},
    )  # fmt: skip
    adapt_base(Task(params, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "work-a")
    train_generator(Task(params, "nut", "cadiff", nut_samples), tmp_path / "adapted", tmp_path / "generator", tmp_path / "work-t")
    scenes, made = make_scenes(Task(params, "nut", samples=nut_samples)), (tmp_path / "adapted", tmp_path / "generator")
    generate_shards(Task(params, "nut", "cadiff", nut_samples), *made, scenes, tmp_path / "out", tmp_path / "work-g")
    rows = read_table(tmp_path / "out" / "rust.parquet", GENERATED_SCHEMA).to_pylist()
    assert len(rows) == 1


def test_what_a_step_takes_is_counted_without_weights(base: Path, small_params: Params) -> None:
    params = of(small_params, base, train={"batch": 4}, control={"heads": 4})
    shapes = configurations(params.base)
    assert shapes is not None
    whole, loaded = step_of(params, *shapes), load_backbone(params.base)
    assert whole.frozen == sum(p.numel() for p in loaded.unet.parameters())
    assert whole.autoencoder == sum(p.numel() for p in loaded.vae.parameters())
    parts = step_of(of(params, base, train={"accumulate": 4}), *shapes)
    again = step_of(of(params, base, train={"checkpointing": True}), *shapes)
    assert parts.pictures == 1
    assert parts.activations < 0.35 * whole.activations
    assert again.activations < whole.activations, "little here, where the mask's own convolutions at 64 px are most of it"
    assert again.learning > whole.learning
    assert whole.learning == pytest.approx(4 * parts.learning, rel=0.01)
    assert 2 * whole.denoising < parts.learning < 3 * whole.denoising, "of what is frozen no gradient of weights is computed"
    assert whole.memory("adamw", True, True) - whole.memory("adamw-8bit", True, True) == 6 * whole.trained
    told = dict(needs(params))
    assert "train.batch 4 in 1 passes of 4 at 64 px" in told["need memory, training"]
    assert set(told) == {"need memory, training", "need memory, drawing", "need time", "need time, all", "need disk"}
    assert configurations(BaseParams(path="someone/not-here", dtype="float32")) is None
