"""Small independent calculations that several tests compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cadiff.backbone import attention_layers


def silenced_by_hand(models: Sequence[nn.Module], token: int, denoised: Callable[[], Tensor]) -> Tensor:
    """What is denoised where the word at this position has no value in the models' cross-attention, as diffusers computes it."""

    def without_value(module: nn.Module, inputs: tuple[Tensor, ...], values: Tensor) -> Tensor:
        return values.index_fill(1, torch.tensor([token]), 0.0)

    handles = [layer.to_v.register_forward_hook(without_value) for model in models for layer in attention_layers(model).values()]
    try:
        return denoised()
    finally:
        for handle in handles:
            handle.remove()
