"""The plain U-Net that generated anomalies are judged by: DRAEM's discriminative sub-network.

Zavrtanik, Kristan, Skočaj, "DRAEM" (ICCV 2021), Fig. 4, with 3 input channels instead of 6 because there is
no reconstruction beside the image: six double convolutions with batch normalisation, five poolings, skips at
every level. Width 64 is the paper's; every other size follows from ``width``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cadiff.errors import UsageError

STRIDE = 32  # five poolings
FLAT = 1 / 255  # half a grey level: an image that varies less is flat


class UNet(nn.Module):
    """Logits of (normal, anomaly) for every pixel, from an image in [-1, 1] with sides divisible by 32.

    ``standardise`` brings each image to mean 0 and standard deviation 1 first (over its pixels and channels), so that an
    exposure tells nothing.
    """

    def __init__(self, width: int = 64, standardise: bool = False) -> None:
        super().__init__()
        self.standardise = standardise
        down = [3, width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        up = [8 * width, 8 * width, 4 * width, 2 * width, width, width]
        skips = [8 * width, 8 * width, 4 * width, 2 * width, width]
        self.encoder = nn.ModuleList(_double(a, b) for a, b in pairwise(down))
        self.upsample = nn.ModuleList(_upsample(a, b) for a, b in pairwise(up))
        self.decoder = nn.ModuleList(_double(a + b, a) for a, b in zip(up[1:], skips, strict=True))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2 h w"]:
        if self.standardise:
            image = standardised(image)
        features = [self.encoder[0](image)]
        for block in self.encoder[1:]:
            features.append(block(self.pool(features[-1])))
        x = features.pop()
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            x = block(torch.cat([upsample(x), features.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits


def standardised(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Each image with mean 0 and standard deviation 1 over its pixels and channels."""
    return (image - image.mean((1, 2, 3), keepdim=True)) / image.std((1, 2, 3), keepdim=True).clamp(min=FLAT)


def anomaly_map(logits: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b h w"]:
    """The probability of anomaly: channel 1 of the softmax."""
    return logits.softmax(dim=1)[:, 1]


def check_side(size: int) -> None:
    """Raises UsageError where the U-Net cannot take images of this side."""
    if size % STRIDE:
        raise UsageError(
            f"size: the detector halves its input five times, expected a multiple of {STRIDE}, found "
            f"{size}; use {size - size % STRIDE or STRIDE} or {size - size % STRIDE + STRIDE}."
        )


Model = TypeVar("Model", bound=nn.Module)


def place(model: Model, device: torch.device) -> Model:
    """The model on the device, in the memory layout that its convolutions are fastest in."""
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(before, after), *_convolution(after, after))


def _upsample(before: int, after: int) -> nn.Sequential:
    enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(enlarge, *_convolution(before, after))


def _convolution(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
