"""The networks that a detector may be (``detector.network``): one record each, so that another one is another record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from cadiff.detection.losses import focal_and_dice_loss, focal_loss
from cadiff.detection.pretrained import PretrainedUNet
from cadiff.detection.smp import SmpUNet
from cadiff.detection.unet import UNet
from cadiff.params import SMP, DetectorParams

ENCODER_RATE = 0.1  # of detector.learning_rate: what ImageNet taught is moved slowly

Loss = Callable[[Float[Tensor, "b 2 h w"], Bool[Tensor, "b 1 h w"]], Float[Tensor, ""]]
Groups = list[tuple[list[nn.Parameter], float]]


@dataclass(frozen=True)
class Network:
    """``build`` gives a module that takes images in [-1, 1] with sides divisible by 32 (what its first layer wants of them it does
    itself) to logits of (normal, anomaly); False where a trained one's weights are loaded into it, so that it needs none to start from.
    ``groups`` are its trained parameters, each with its share of ``detector.learning_rate``."""

    build: Callable[[DetectorParams, bool], nn.Module]
    loss: Loss
    loss_name: str  # of the curve's rows
    groups: Callable[[nn.Module], Groups]


def all_alike(model: nn.Module) -> Groups:
    return [(list(model.parameters()), 1.0)]


def encoder_slower(model: nn.Module) -> Groups:
    """The parameters of an encoder that knows something at ``ENCODER_RATE``, all others at the full rate; without those that are frozen."""
    if isinstance(model, SmpUNet) and not model.knows:
        return all_alike(model)
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    own = [value for name, value in named if not name.startswith("encoder.")]
    return [(own, 1.0), ([value for name, value in named if name.startswith("encoder.")], ENCODER_RATE)]


def knows_nothing(model: nn.Module) -> bool:
    """Whether every weight of a network that was just built is drawn at random: there is no encoder, or one that starts from scratch."""
    return isinstance(model, UNet) or (isinstance(model, SmpUNet) and not model.knows)


NETWORKS: dict[str, Network] = {
    "unet": Network(lambda settings, start: UNet(settings.width, settings.standardise), focal_loss, "focal", all_alike),
    "efficientnet-lite0": Network(
        lambda settings, start: PretrainedUNet(standardise=settings.standardise), focal_and_dice_loss, "focal + dice", encoder_slower
    ),
    SMP: Network(
        lambda settings, start: SmpUNet(settings.network, settings.standardise, start), focal_and_dice_loss, "focal + dice", encoder_slower
    ),
}


def network_of(name: str) -> Network:
    """The record of a ``detector.network``; what follows ``smp:`` is one's own."""
    return NETWORKS[SMP if name.startswith(SMP) else name]
