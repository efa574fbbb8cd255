"""A segmenter on an encoder that knows ImageNet, and a U-Net's decoder on top; and the one on EfficientNet-Lite0, which a package ships.

What is thin or small lives at high resolution, so a skip comes in at every stride (32, 16, 8, 4, 2) and the last one is the image
itself at its full resolution, through one convolution of its own.

Training starts from a rare anomaly (``PRIOR``): the focal loss hardly moves what is below a fifth, so a background that starts at a half
stays grey there, while Dice takes what is around an anomaly to nothing, and the good parts of a picture outrank a missed defect.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cadiff.detection.unet import standardised
from cadiff.metrics import imagenet

LEVELS = (0, 2, 4, 10, 15)  # the encoder's last blocks at strides 2, 4, 8, 16 and 32
CHANNELS = (16, 24, 40, 112, 320)  # what comes out of them
WIDTH = 16  # channels of the decoder at full resolution; times 2, 3, 4 and 8 at strides 2, 4, 8 and 16
DECODER = (8, 4, 3, 2, 1)
PRIOR = 0.01  # the probability of anomaly that an untrained head gives; Lin et al., "Focal Loss for Dense Object Detection", section 4.1


class EncoderUNet(nn.Module, ABC):
    """Logits of (normal, anomaly) for every pixel, from an image in [-1, 1] with sides divisible by 32.

    Args:
        encoder: what ``levels`` asks; its parameters are those of the network whose names begin with ``encoder.``.
        channels: of its features at strides 2, 4, 8, 16 and 32; 0 where it has none there.
        width: of the decoder (``WIDTH``).
        standardise: as of ``cadiff.detection.unet.UNet``: each image to mean 0 and deviation 1 first.
    """

    encoder: Any  # a module of some library's, which ``levels`` knows

    def __init__(self, encoder: nn.Module, channels: Sequence[int], width: int = WIDTH, standardise: bool = False) -> None:
        super().__init__()
        self.standardise = standardise
        self.encoder = encoder
        sides = [channels[-1], *(width * times for times in DECODER)]
        skips = [*channels[-2::-1], width]
        self.image = _convolution(3, width)
        self.decoder = nn.ModuleList(
            nn.Sequential(_convolution(a + skip, b), _convolution(b, b)) for (a, b), skip in zip(pairwise(sides), skips, strict=True)
        )
        self.head = nn.Conv2d(width, 2, 1)
        self.head.bias = nn.Parameter(torch.tensor([0.0, -math.log((1 - PRIOR) / PRIOR)]))

    @abstractmethod
    def prepared(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The image as the encoder was trained to see it."""

    @abstractmethod
    def levels(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """The encoder's features at strides 2, 4, 8, 16 and 32."""

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2 h w"]:
        if self.standardise:
            image = standardised(image)
        x = self.prepared(image)
        levels = [self.image(x), *self.levels(x)]
        x = levels.pop()
        for block in self.decoder:
            skip = levels.pop()
            x = doubled(x)
            x = block(torch.cat([x, skip], dim=1) if skip.shape[1] else x)
        logits: Tensor = self.head(x)
        return logits


class PretrainedUNet(EncoderUNet):
    """On the shipped EfficientNet-Lite0."""

    def __init__(self, width: int = WIDTH, standardise: bool = False) -> None:
        encoder = imagenet.build()
        for unused in ("_conv_head", "_bn1", "_fc"):
            delattr(encoder, unused)
        imagenet.freeze(encoder)
        super().__init__(encoder, CHANNELS, width, standardise)

    def train(self, mode: bool = True) -> PretrainedUNet:
        """The encoder keeps ImageNet's batch statistics: its own move by 1 % a step, too slowly for a short run."""
        super().train(mode)
        self.encoder.eval()
        return self

    def prepared(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return image * (127.5 / 128) + 0.5 / 128  # (x - 127) / 128 of 8-bit x, as the encoder was trained

    def levels(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        return imagenet.levels_of(self.encoder, x, LEVELS)


def doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2h 2w"]:
    """Twice as large, bilinear."""
    result: Tensor = _Doubled.apply(x) if x.requires_grad else _bilinear(x)  # type: ignore[no-untyped-call]
    return result


class _Doubled(torch.autograd.Function):
    """``_bilinear`` with a gradient that costs two matrix products; torch's own takes a tenth of a step of training on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2h 2w"]:
        return _bilinear(x)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "b c 2h 2w"]) -> Float[Tensor, "b c h w"]:
        b, c, height, width = gradient.shape
        rows, columns = (_spread(side // 2, gradient.dtype, gradient.device) for side in (height, width))
        last = gradient.permute(0, 2, 3, 1).contiguous()  # as a network in channels_last has it: nothing is copied
        halved = (rows @ last.view(b, height, width * c)).view(b, height // 2, width, c)
        return (columns @ halved).permute(0, 3, 1, 2)


def _bilinear(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2h 2w"]:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@cache
def _spread(side: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "side 2*side"]:
    """How much of each cell of one axis goes to each of the doubled one: quarters, so that no precision rounds them."""
    return _bilinear(torch.eye(side)[:, None, None, :])[:, 0, 0].to(device, dtype)


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))
