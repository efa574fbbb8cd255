"""The detector's loss."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

GAMMA = 2.0


def focal_loss(
    logits: Float[Tensor, "b 2 h w"], mask: Bool[Tensor, "b 1 h w"], gamma: float = GAMMA
) -> Float[Tensor, ""]:
    """Mean over pixels of ``-(1 - p)^gamma log p``, p the softmax probability of the pixel's true class.

    Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), Eq. 4, without class weights, as in
    DRAEM. With two classes the softmax is the sigmoid of the difference of the logits, which is the form
    torchvision has.
    """
    difference = logits[:, 1:] - logits[:, :1]
    return sigmoid_focal_loss(difference, mask.to(difference.dtype), alpha=-1, gamma=gamma, reduction="mean")
