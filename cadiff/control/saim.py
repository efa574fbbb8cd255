"""SAIM: how the control branch's features enter the main branch (Eq. 9-10)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn


def grid_positions(height: int, width: int, channels: int) -> Float[Tensor, "cells channels"]:
    """Sine-cosine positions of a grid's cells, half of the channels for rows and half for columns."""
    quarter = -(-channels // 4)
    frequencies = 10000.0 ** (-torch.arange(quarter) / quarter)
    rows = torch.arange(height)[:, None] * frequencies
    columns = torch.arange(width)[:, None] * frequencies
    rows = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(-1, width, -1)
    columns = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1).reshape(height * width, -1)[:, :channels]


@lru_cache(maxsize=32)
def _positions_on(device: torch.device, height: int, width: int, channels: int) -> Float[Tensor, "cells channels"]:
    """Copied to an accelerator once: a copy at every pass would have the host wait for it."""
    with torch.inference_mode(False):  # first made while sampling, it must serve training too
        return grid_positions(height, width, channels).to(device)


class InteractionBlock(nn.Module):
    """One SAIM, for one skip: y_a = CrossAttn(RMSNorm(y), RMSNorm(y_c)) (Eq. 9), then MLP(y_a) (Eq. 10).

    The MLP's last layer starts at zero: the module starts as the identity of the main branch.
    """

    def __init__(self, channels: int, heads: int, positions: bool) -> None:
        super().__init__()
        self.heads, self.positions = heads, positions
        self.norm_main, self.norm_control = nn.RMSNorm(channels, eps=1e-6), nn.RMSNorm(channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        last = nn.Linear(channels, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), last)

    def forward(self, y: Float[Tensor, "b c h w"], y_c: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """MLP(y_a), which is what is added to y."""
        b, c, h, w = y.shape
        query = self.norm_main(y.flatten(2).transpose(1, 2).float())
        control = self.norm_control(y_c.flatten(2).transpose(1, 2).float())
        key = control
        if self.positions:
            place = _positions_on(y.device, h, w, c)
            query, key = query + place, key + place

        def split(x: Tensor) -> Tensor:
            return x.view(b, h * w, self.heads, c // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(split(self.to_q(query)), split(self.to_k(key)), split(self.to_v(control)))
        y_a = mixed.transpose(1, 2).reshape(b, h * w, c)
        added: Tensor = self.mlp(y_a).transpose(1, 2).reshape(b, c, h, w)
        return added


class SelfAdaptiveInteraction(ModelMixin, ConfigMixin):
    """One interaction block per skip of the U-Net and one for its mid block.

    Forms (docs/method.md): ``none`` y + y_c, plain ControlNet; ``literal`` y + MLP(y_a), Eq. 10 as printed;
    ``residual`` y + y_c + MLP(y_a).
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self, channels: tuple[int, ...] = (), heads: int = 4,
        interaction: Literal["none", "literal", "residual"] = "residual", positions: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.interaction = interaction
        used = channels if interaction != "none" else ()
        self.gradient_checkpointing = False
        self.blocks = nn.ModuleList(InteractionBlock(c, heads, positions) for c in used)

    def forward(self, index: int, y: Float[Tensor, "b c h w"], y_c: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """What takes the place of y + y_c at skip ``index`` (the last index is the mid block)."""
        if self.interaction == "none":
            return y + y_c
        block = self.blocks[index]
        again = self.gradient_checkpointing and torch.is_grad_enabled()
        added: Tensor = (self._gradient_checkpointing_func(block, y, y_c) if again else block(y, y_c)).to(y.dtype)
        return y + added if self.interaction == "literal" else y + y_c + added
