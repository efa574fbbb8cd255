"""IAR: intensity-controllable attention re-weighting, pure tensors (Eq. 11).

| here | paper |
| --- | --- |
| maps | A_t |
| inside | M, at the map's resolution: `touched_cells` where attention is multiplied, `mask_cells` where it is counted |
| intensity | w, times ||M||_1 (`strength`) |
| focus_degree | alpha_t = n_t / n_start |
| threshold | alpha_thr |
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def mask_cells(masks: Bool[Tensor, "b k h w"], side: int) -> Bool[Tensor, "b k cells"]:
    """Masks at a map's resolution: cells that are covered by half or more; a mask that would vanish keeps its
    strongest cell. A mask that is empty to begin with stays empty."""
    share = F.interpolate(masks.float(), size=(side, side), mode="area").flatten(2)
    strongest = share.amax(-1, keepdim=True)
    kept = (share >= 0.5) | ((strongest < 0.5) & (share >= strongest))
    return kept & (strongest > 0)


def touched_cells(masks: Bool[Tensor, "b k h w"], side: int) -> Bool[Tensor, "b k cells"]:
    """Masks at a map's resolution: every cell that a mask reaches into.

    A crack may fill half of no cell; multiplied in one cell alone its word would go on drawing it in all others.
    """
    return F.adaptive_max_pool2d(masks.float(), side).flatten(2) > 0


def focus_side(latent_side: int) -> int:
    """The side of the maps that focus is read from: a quarter of the latents' (16 for Stable Diffusion 1.5, as printed), or where that is
    below 8 the U-Net's next level that is not: half of them, or all."""
    return next((side for side in (latent_side // 4, latent_side // 2) if side >= 8), latent_side)


def focus_degree(attention: Float[Tensor, "b k cells"], inside: Bool[Tensor, "b k cells"]) -> Float[Tensor, "b k"]:
    """alpha_t: the share of the mask's cells whose attention exceeds the map's mean; 0 for an empty mask."""
    activated = (attention > attention.mean(-1, keepdim=True)) & inside
    return activated.sum(-1) / inside.sum(-1).clamp(min=1)


def strength(
    intensity: Float[Tensor, "b k"], inside: Bool[Tensor, "b k cells"], norm: Literal["one", "cells"] = "one"
) -> Float[Tensor, "b k"]:
    """w ||M||_1 of Eq. 11, ||M||_1 read as 1 or as the number of the mask's ``cells`` where focus is counted (n_start)."""
    return intensity if norm == "one" else intensity * inside.sum(-1)


def reweight(
    maps: Float[Tensor, "b heads cells tokens"],
    positions: Int[Tensor, "b k"],
    inside: Bool[Tensor, "b k cells"],
    intensity: Float[Tensor, "b k"],
    active: Bool[Tensor, "b k"],
    masked_focus: bool = True,
    outside: Literal["kept", "zero"] = "kept",
) -> Float[Tensor, "b heads cells tokens"]:
    """Eq. 11: inside its mask a token's attention is multiplied by ``intensity`` (`strength`), outside it is ``kept`` or ``zero``; only
    where ``active``. Without masked focus the whole map is multiplied. ``positions`` is -1 where an image has fewer than k types.
    """
    factor = torch.ones_like(maps[:, 0])  # b cells tokens
    where = inside if masked_focus else torch.ones_like(inside)
    acting = (active & (positions >= 0))[..., None]
    scale = torch.where(acting & where, intensity[..., None].to(maps.dtype), torch.ones((), dtype=maps.dtype, device=maps.device))
    if outside == "zero":
        scale = scale.masked_fill(acting & ~where, 0)
    index = positions.clamp(min=0)[:, None, :].expand(-1, maps.shape[2], -1)
    factor = factor.scatter_reduce(2, index, scale.transpose(1, 2), reduce="prod")
    return maps * factor[:, None]
