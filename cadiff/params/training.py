"""Sections of what is learned of a product: its tokens (CTP), the control on masks (SSC), and their joint training."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from cadiff.params.section import Section


def check_passes(batch: int, accumulate: int) -> None:
    """A ValueError unless a batch is divided into equal passes."""
    if batch % accumulate:
        fits = ", ".join(str(k) for k in range(1, batch + 1) if batch % k == 0)
        raise ValueError(f"accumulate: expected a divisor of batch: {batch} ({fits}), found {accumulate}")


class PromptParams(Section):
    """CTP, Eq. 2-8."""

    RECIPE: ClassVar = frozenset({
        "tokens", "vectors", "localizing", "localizing_over", "contrastive", "gamma", "beta", "balanced", "temperature", "contrastive_over",
        "contrastive_without", "contrastive_of", "learning_rate", "weight_decay", "initial_word", "initial_context",
    })  # fmt: skip

    tokens: Literal["multi", "single", "plain"] = Field(
        "multi",
        description="single: textual inversion on the anomaly region (first row of Table 5); plain: none are learned, types are called by "
        "their own words",
    )
    vectors: int = Field(1, ge=1, description="embeddings a token stands for, as textual inversion has it; paper: 1")
    localizing: bool = Field(True, description="Eq. 5: a token's attention is drawn to its anomaly's mask")
    localizing_over: Literal["tokens", "printed"] = Field(
        "tokens", description="Eq. 5; tokens: the error of each token's map by itself; printed: the tokens' mean error, before the norm"
    )
    contrastive: bool = Field(True, description="Eq. 6-7: concepts are pushed apart")
    gamma: float = Field(0.02, ge=0, description="weight of Eq. 5 (paper: 0.001)")
    beta: float = Field(0.0005, ge=0, description="weight of Eq. 7 (paper: 0.0005)")
    balanced: bool = Field(True, description="Eq. 5 weighs inside and outside of a mask alike, however small it is")
    temperature: float = Field(0.1, gt=0, description="of NT-Xent, Eq. 6")
    contrastive_over: Literal["vectors", "pairs", "printed"] = Field(
        "pairs",
        description="Eq. 7; pairs: averages over all positive pairs; vectors: sums a vector's positives and averages over vectors, about "
        "ten times as much; printed: as vectors, and each vector is a positive of itself",
    )
    contrastive_without: Literal["itself", "image"] = Field(
        "itself", description="what Eq. 6's denominator leaves out: the vector itself, or all vectors of its image (as printed)"
    )
    contrastive_of: Literal["shown", "all"] = Field(
        "shown", description="Eq. 7 sums over the concepts that an image shows, or over all of the product's, for every image (as printed)"
    )
    learning_rate: float = Field(4e-3, gt=0, description="of the embeddings; paper: 1e-5 over 1000 epochs")
    weight_decay: float = Field(0.0, ge=0, description="of the embeddings, AdamW's; ControlNet: 0.01")
    initial_word: str = Field("anomaly", description="what the tokens start from (paper: anomaly)")
    initial_context: str | None = Field("product", description="what the context's token starts from; null: as the others (paper)")

    @model_validator(mode="after")
    def _forms_go_together(self) -> PromptParams:
        if self.balanced and self.localizing_over == "printed":
            raise ValueError("balanced: expected false with localizing_over: printed, whose norm weighs all cells alike, found true")
        return self


class ControlParams(Section):
    """SSC, Eq. 9-10 (docs/method.md)."""

    RECIPE: ClassVar = frozenset({"start", "interaction", "positions", "heads", "learning_rate", "weight_decay"})

    start: Literal["copy", "base"] = Field(
        "base", description="base: the control on masks that the base's own folder brings; copy: of the U-Net's encoder (paper)"
    )
    interaction: Literal["none", "literal", "residual"] = Field(
        "residual",
        description="residual: y + y_c + MLP(y_a), with the ControlNet's own residual; literal: Eq. 10 as printed; none: plain ControlNet",
    )
    positions: bool = Field(True, description="Eq. 9's tokens carry their places; as printed: false")
    heads: int = Field(4, ge=1, description="of Eq. 9's attention")
    learning_rate: float = Field(1e-3, gt=0, description="paper: 1e-5 over 1000 epochs")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's; ControlNet: 0.01, torch's default")


class TrainParams(Section):
    """Joint training of tokens, ControlNet and SAIM for one product (Eq. 8)."""

    RECIPE: ClassVar = frozenset({
        "decay", "normal_share", "silenced", "mask_weight", "empty_prompts", "clip", "crop", "translate", "rotate",
    })  # fmt: skip

    steps: int | None = Field(150, ge=1, description="of the optimiser; or null, and epochs")
    epochs: float | None = Field(None, gt=0, description="in place of steps: how often each exemplar is shown, on average; paper: 1000")
    batch: int = Field(16, ge=1, description="pictures a step (paper: 16)")
    accumulate: int = Field(
        1, ge=1, description="passes that a step takes its batch in, here and in adapt: the same gradients to rounding, with the memory of "
        "batch / accumulate pictures"
    )
    checkpointing: bool = Field(
        False, description="gradient checkpointing, here and in adapt: activations are computed again in the backward pass, for a third "
        "more time; the same gradients to rounding"
    )
    optimizer: Literal["adamw", "adamw-8bit"] = Field(
        "adamw", description="adamw-8bit keeps its state in a quarter of the memory (bitsandbytes: pip install -e '.[adam8bit]')"
    )
    exposure: Literal["own", "normals"] = Field(
        "normals",
        description="of exemplars; normals: each is as bright as a normal drawn for it, as they may have been taken under other light; "
        "own: as they are (paper)",
    )
    decay: Literal["none", "cosine"] = Field("cosine", description="of both learning rates; cosine: to 2 % (the paper names none)")
    normal_share: float = Field(0.25, ge=0, lt=1, description="normals under a mask, their anomaly not named or silenced; paper: 0")
    silenced: float = Field(
        0.0, ge=0, lt=1, description="share of these normals whose prompt names the type, at w = 0 in the mask; paper: 0"
    )
    mask_weight: float = Field(
        5.0, ge=0, description="extra weight of Eq. 4 inside the mask: a defect covers a few per cent of an image; paper: 0"
    )
    empty_prompts: float = Field(
        0.0, ge=0, lt=1, description="share of pictures with an empty prompt, which guidance above 1 asks for; ControlNet: 0.5"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of all gradients together; null: any (ControlNet's own code)")
    crop: float = Field(0.1, ge=0, le=0.5, description="share of a side that augmentation cuts away at most; also of `exemplars`")
    translate: float = Field(0.1, ge=0, le=0.5, description="share of a side that it shifts by at most")
    rotate: float = Field(15.0, ge=0, le=180, description="degrees that it turns by at most")

    @model_validator(mode="after")
    def _passes_are_equal(self) -> TrainParams:
        check_passes(self.batch, self.accumulate)
        return self

    @model_validator(mode="after")
    def _length_is_said_once(self) -> TrainParams:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"epochs: expected null with steps: {self.steps}, found {self.epochs}; set one of the two, the other to null")
        return self

    def steps_for(self, exemplars: int) -> int:
        """Optimiser steps of a training on so many exemplars: ``steps``, or what it takes until each was shown ``epochs`` times on
        average (of a batch the share ``normal_share`` are normals)."""
        if self.epochs is None:
            assert self.steps is not None
            return self.steps
        return math.ceil(self.epochs * exemplars / (self.batch * (1 - self.normal_share)) - 1e-9)
