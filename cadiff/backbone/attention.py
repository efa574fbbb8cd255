"""Cross-attention made visible and changeable: every text-to-image attention map passes through one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.models.attention_processor import Attention
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cadiff.errors import CADiffError

Maps = Float[Tensor, "b heads cells tokens"]
Rewrite = Callable[[Maps], Maps]
_again: ContextVar[bool] = ContextVar("again", default=False)  # whether a layer is being computed again in a backward pass


def attention_layers(model: nn.Module) -> dict[str, Attention]:
    """The cross-attention layers of a U-Net or ControlNet (``attn2`` in diffusers), by name.

    Raises:
        CADiffError: if there is none, so that a renamed class cannot silently switch everything off.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Attention) and name.endswith("attn2")}
    if not layers:
        raise CADiffError(f"{type(model).__name__}: expected cross-attention layers named attn2, found none.")
    return layers


def attention_maps(attention: Attention, hidden: Float[Tensor, "b cells f"], text: Float[Tensor, "b tokens d"]) -> Maps:
    """A = softmax(Q K^T / sqrt(d')) (Eq. 3) over all text positions, for every head."""
    b, _, _ = hidden.shape
    query = attention.to_q(hidden).view(b, hidden.shape[1], attention.heads, -1).transpose(1, 2)
    key = attention.to_k(text).view(b, text.shape[1], attention.heads, -1).transpose(1, 2)
    scores: Tensor = torch.matmul(query, key.transpose(-1, -2)) * attention.scale
    return scores.float().softmax(-1).to(query.dtype)


class _TappedProcessor:
    """diffusers' plain attention, with the map handed to the tap before it meets the values."""

    def __init__(self, tap: CrossAttentionTap) -> None:
        self.tap = tap

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None) -> Tensor:  # fmt: skip
        if encoder_hidden_states is None or attention_mask is not None or hidden_states.ndim != 3:
            raise CADiffError("cross-attention: expected unmasked text and (b cells f) features; this base has another form.")
        residual = hidden_states
        maps = self.tap.passing(attention_maps(attn, hidden_states, encoder_hidden_states))
        b, _, cells, _ = maps.shape
        value = attn.to_v(encoder_hidden_states).view(b, encoder_hidden_states.shape[1], attn.heads, -1).transpose(1, 2)
        mixed = torch.matmul(maps, value).transpose(1, 2).reshape(b, cells, -1)
        out = attn.to_out[1](attn.to_out[0](mixed))
        scaled: Tensor = (out + residual if attn.residual_connection else out) / attn.rescale_output_factor
        return scaled


class CrossAttentionTap:
    """While entered, records (and, given ``rewrite``, changes) every cross-attention map of a model.

    ``maps`` holds the maps of the last forward pass, as they were before rewriting, one per layer in the order of
    computation; gradients flow through them. ``clear()`` empties it; every entry must be cleared by the caller
    between passes; with ``keep`` false nothing is recorded. On exit the model's own processors are back.

    Where layers are computed again in a backward pass (``recompute``), ``rewrite`` acts again, also after the exit, and nothing is
    recorded a second time.
    """

    def __init__(self, model: nn.Module, rewrite: Rewrite | None = None, keep: bool = True) -> None:
        self.model, self.rewrite, self.keep = model, rewrite, keep
        self.layers = attention_layers(model)
        self.maps: list[Maps] = []
        self._own: dict[str, object] = {}

    def passing(self, maps: Maps) -> Maps:
        if self.keep and not _again.get():
            self.maps.append(maps)
        return maps if self.rewrite is None else self.rewrite(maps)

    def clear(self) -> None:
        self.maps = []

    def __enter__(self) -> CrossAttentionTap:
        self._own = {name: layer.processor for name, layer in self.layers.items()}
        for layer in self.layers.values():
            layer.set_processor(_TappedProcessor(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name, layer in self.layers.items():
            layer.set_processor(self._own[name])
        self.clear()


def recompute(model: ModelMixin) -> None:
    """Gradient checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): blocks of a U-Net or ControlNet keep
    their inputs alone, and are computed again in the backward pass, for a third more of computation in a fraction of the memory.

    They are computed again with the attention processors of the forward pass, as a tap may be closed by then: without it they would
    keep other tensors than the first time, which torch refuses.
    """
    model.enable_gradient_checkpointing(_recomputed)


def _recomputed(block: nn.Module, *inputs: Any) -> Any:
    layers = [layer for layer in block.modules() if isinstance(layer, Attention)]
    then = [layer.processor for layer in layers]

    @contextmanager
    def as_then() -> Iterator[None]:
        now, mark = [layer.processor for layer in layers], _again.set(True)
        for layer, processor in zip(layers, then, strict=True):
            layer.set_processor(processor)
        try:
            yield
        finally:
            _again.reset(mark)
            for layer, processor in zip(layers, now, strict=True):
                layer.set_processor(processor)

    # nothing that is trained here draws while it computes, so no random state is kept
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), as_then()))


def token_map(maps: Maps, positions: Int[Tensor, " b"]) -> Float[Tensor, "b cells"]:
    """A layer's map of one token per image: mean over heads of the column at ``positions`` (b integers)."""
    index = positions.view(-1, 1, 1).expand(-1, maps.shape[2], 1)
    return maps.mean(1).gather(2, index)[..., 0]
