"""The two regularisers of CTP: attention stays in its mask (Eq. 5), concepts stay apart (Eq. 6-7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def masks_at(masks: Bool[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c cells"]:
    """Masks brought to a map's resolution: the share of each cell that is covered, (side side) flattened."""
    return F.interpolate(masks.float(), size=(side, side), mode="area").flatten(2)


def localizing_loss(
    maps: Sequence[Float[Tensor, "b heads cells tokens"]],
    positions: Int[Tensor, "b c"],
    masks: Bool[Tensor, "b c h w"],
    balanced: bool = False,
) -> Float[Tensor, ""]:
    """Eq. 5, read per token: sum over layers of the mean over tokens of |A - M|^2 averaged over cells.

    Taken literally, the tokens are averaged before the norm, so that errors of opposite sign cancel
    (docs/method.md). A is averaged over heads; ``positions`` says where in the prompt each concept stands, -1 where
    an image's prompt does not hold it (such a concept does not count). ``balanced`` gives the cells inside and
    outside of a mask the same weight, however small the mask.
    """
    present = positions >= 0
    total = torch.zeros((), device=positions.device)
    for layer in maps:
        cells = layer.shape[2]
        target = masks_at(masks, round(cells**0.5))
        index = positions.clamp(min=0)[:, None, :].expand(-1, cells, -1)
        attention = layer.float().mean(1).gather(2, index).transpose(1, 2)
        error = (attention - target).square()
        if balanced:
            inside, outside = target, 1 - target
            error = 0.5 * (
                (error * inside).sum(-1) / inside.sum(-1).clamp(min=1e-3) + (error * outside).sum(-1) / outside.sum(-1).clamp(min=1e-3)
            )
        else:
            error = error.mean(-1)
        total = total + (error * present).sum() / present.sum().clamp(min=1)
    return total


def contrastive_loss(
    vectors: Float[Tensor, "n d"], concepts: Int[Tensor, " n"], temperature: float, over: Literal["vectors", "pairs"] = "vectors"
) -> Float[Tensor, ""]:
    """Eq. 6-7, NT-Xent over the contextual vectors of a batch; positives share a concept.

    l_ij = -ln( exp(cos(v_i, v_j)/tau) / sum_{k != i} exp(cos(v_i, v_k)/tau) ), summed over all positive pairs and divided by the
    number of ``vectors`` (the printed 1/C 1/B), so that it grows with a concept's share of the batch, or of ``pairs``.
    A batch without any positive pair has nothing to compare and gives 0.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T / temperature).masked_fill(itself, float("-inf"))
    log_share = similarity.log_softmax(-1)
    positive = (concepts[:, None] == concepts[None, :]) & ~itself
    if not positive.any():
        return vectors.sum() * 0
    found = log_share[positive]
    return -found.mean() if over == "pairs" else -found.sum() / len(unit)
