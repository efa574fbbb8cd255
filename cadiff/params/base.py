"""Sections of the latent diffusion model: which one, what of a picture it draws, its fine-tuning on a product."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from cadiff.params.section import Section


class BaseParams(Section):
    """The latent diffusion model: ``embedded``, a folder in diffusers' layout, or a hub name."""

    path: str = Field("embedded", description="embedded, a folder in diffusers' layout, or a hub name")
    variant: str | None = Field(None, description="of the weights' files, such as fp16; null: those without one")
    revision: str | None = Field(None, description="of a hub name: the commit, tag or branch that is meant; null: the newest that is there")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="precision of the base's computation and of a detector's training; auto: bfloat16 where the device computes in it "
        "natively, else (not for a detector) float16 on an NVIDIA GPU, whose loss is scaled so that small gradients do not vanish, else "
        "float32",
    )
    device: str = Field("auto", description="cpu, cuda, cuda:N or mps, for all that is trained; auto: what there is")
    size: int = Field(
        64, ge=16, description="side in px of the squares that the base draws; a multiple of 16 for the embedded base, of 64 for SD 1.5"
    )


class WindowParams(Section):
    """What of a picture the base draws: a square around the masks, brought to ``base.size``, drawn, brought back and set in; or the
    picture itself."""

    RECIPE: ClassVar = frozenset({"cut", "context", "train_context"})

    cut: Literal["around", "whole"] = Field(
        "around", description="around: a square around the masks; whole: all of the picture, brought to a square of base.size (paper)"
    )
    context: float = Field(2.0, ge=1, description="side of a window that is drawn in, times the extent of the masks in it")
    train_context: tuple[float, float] = Field((1.5, 3.0), description="the same in training, drawn from this range")

    @model_validator(mode="after")
    def _ordered(self) -> WindowParams:
        low, high = self.train_context
        if not 1 <= low <= high:
            raise ValueError(f"train_context: expected two numbers of at least 1, the smaller first, found [{low:g}, {high:g}]")
        return self


class AdaptParams(Section):
    """Fine-tuning of the base's U-Net (and autoencoder) on the product's normals, in as many passes and with as much checkpointing as
    ``train``."""

    RECIPE: ClassVar = frozenset({"vae_steps", "batch", "learning_rate"})

    steps: int = Field(600, ge=0, description="0: the base knows the product, as the embedded one knows the demo's")
    vae_steps: int = Field(40, ge=0, description="of the autoencoder's decoder")
    batch: int = Field(16, ge=1, description="windows a step")
    learning_rate: float = Field(4e-4, gt=0, description="of the U-Net")
