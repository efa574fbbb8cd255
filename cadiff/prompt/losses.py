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


def attention_of(
    maps: Float[Tensor, "b cells tokens"], positions: Int[Tensor, "b c"], vectors: int = 1
) -> Float[Tensor, "b c cells"]:
    """Each concept's map: what flows to a cell from all of its ``vectors``, which stand side by side from ``positions`` on."""
    index = spread(positions, vectors).clamp(min=0)[:, None, :].expand(-1, maps.shape[1], -1)
    concepts: Tensor = maps.gather(2, index).transpose(1, 2).unflatten(1, (-1, vectors)).sum(2)
    return concepts


def spread(positions: Int[Tensor, "b c"], vectors: int) -> Int[Tensor, "b c_vectors"]:
    """The positions of all of each concept's vectors, side by side; -1 stays."""
    each = positions[..., None] + torch.arange(vectors, device=positions.device)
    return torch.where(positions[..., None] >= 0, each, -1).flatten(1)


def localizing_loss(
    maps: Sequence[Float[Tensor, "b heads cells tokens"]],
    positions: Int[Tensor, "b c"],
    masks: Bool[Tensor, "b c h w"],
    balanced: bool = False,
    vectors: int = 1,
    over: Literal["tokens", "printed"] = "tokens",
) -> Float[Tensor, ""]:
    """Eq. 5, the sum over layers of |A - M|^2, A averaged over heads.

    ``over`` says where the mean over an image's tokens stands. ``tokens``: each token's error by itself, averaged over cells, then over
    tokens. ``printed``: the tokens' mean error first, so that errors of opposite sign cancel, then its squared norm, a sum over cells;
    the mean is over images. ``positions`` says where in the prompt each concept stands (the first of its ``vectors``), -1 where
    an image's prompt does not hold it (such a concept does not count). ``balanced`` gives the cells inside and
    outside of a mask the same weight, however small the mask.
    """
    present = positions >= 0
    total = torch.zeros((), device=positions.device)
    for layer in maps:
        target = masks_at(masks, round(layer.shape[2] ** 0.5))
        difference = attention_of(layer.float().mean(1), positions, vectors) - target
        if over == "printed":
            mean = (difference * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1)
            total = total + mean.square().sum(-1).mean()
            continue
        error = difference.square()
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
    vectors: Float[Tensor, "n d"],
    concepts: Int[Tensor, " n"],
    temperature: float,
    over: Literal["vectors", "pairs", "printed"] = "vectors",
    images: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Eq. 6-7, NT-Xent over the contextual vectors of a batch; positives share a concept.

    l_ij = -ln( exp(cos(v_i, v_j)/tau) / sum_k exp(cos(v_i, v_k)/tau) ), k over all vectors but v_i itself, or where ``images`` says
    of which image each vector is over those of other images (the printed indicator). Summed over all positive pairs and divided by the
    number of ``vectors`` (the printed 1/C 1/B), so that it grows with a concept's share of the batch, or of ``pairs``; ``printed``
    is as ``vectors`` with j = i in the sum. A batch without any positive pair has nothing to compare and gives 0.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    left_out = itself if images is None else images[:, None] == images[None, :]
    positive = (concepts[:, None] == concepts[None, :]) & ~left_out
    if not positive.any():
        return vectors.sum() * 0
    similarity = unit @ unit.T / temperature
    others = similarity.masked_fill(left_out, float("-inf"))
    found = others.log_softmax(-1)[positive]
    if over == "pairs":
        return -found.mean()
    total = found.sum()
    if over == "printed":
        total = total + (similarity.diagonal() - others.logsumexp(-1)).sum()
    return -total / len(unit)
