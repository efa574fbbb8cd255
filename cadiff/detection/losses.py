"""The detectors' losses."""

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
    loss: Tensor = sigmoid_focal_loss(difference, mask.to(difference.dtype), alpha=-1, gamma=gamma, reduction="mean")
    return loss


def dice_loss(logits: Float[Tensor, "b 2 h w"], mask: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean over the images that have an anomaly of ``1 - (2 sum p m + 1) / (sum p + sum m + 1)``, p the probability of anomaly; 0 where
    none has.

    Milletari et al., "V-Net" (3DV 2016), Eq. 3, with Laplace's 1 and without their squares. Taken image by image, a mask of 20 px
    weighs what one of 20,000 does: in a mean over pixels it is nothing.
    """
    chosen = mask.flatten(1).any(dim=1)
    if not chosen.any():
        return logits.sum() * 0
    anomaly = logits.softmax(dim=1)[chosen, 1].flatten(1)
    marked = mask[chosen].flatten(1).to(anomaly.dtype)
    shared = (anomaly * marked).sum(dim=1)
    return (1 - (2 * shared + 1) / (anomaly.sum(dim=1) + marked.sum(dim=1) + 1)).mean()


def focal_and_dice_loss(logits: Float[Tensor, "b 2 h w"], mask: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Their sum: the one sees normal pixels everywhere, the other every anomaly alike."""
    return focal_loss(logits, mask) + dice_loss(logits, mask)
