"""What an autoencoder of small industrial pictures is trained for: thin structure must survive."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def reconstruction_loss(
    output: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], mask: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """L1 on pixels and on their differences, plus twice the squared error; defects weigh five times as much."""
    weight = 1 + 4 * mask.float()
    error = output - target
    loss = (weight * error.abs()).mean() + 2 * (weight * error.square()).mean()
    for dim in (2, 3):
        loss = loss + (error.diff(dim=dim).abs() * weight.narrow(dim, 1, weight.shape[dim] - 1)).mean()
    return loss
