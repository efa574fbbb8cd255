"""The published evaluation, protocol ``legacy``: what AnomalyDiffusion's code (Hu et al., AAAI 2024; sjtuplayer/anomalydiffusion) does
and the paper follows, in one place.

| there | here |
| --- | --- |
| the epoch that is best on the test set | `cadiff.detection.training` (``_Judge``) |
| 256 px | `cadiff.params.LEGACY` |
| true masks bilinear in 8 bits, then cut to integers | ``metrics.mask_rule: cut`` |
| F1 of pixels above 0, 0.05, ..., 1 | ``metrics.pixel_f1: steps`` |
| the first 500 images of a type | `MOST`; of a union's sources as many each, in turn |
| convolutions from N(0, 0.02), scales from N(1, 0.02) | `initialise`, of networks that know nothing |
| each picture of a batch normal by the toss of a coin; no jitter; no picture of the generator's path is a normal | `published_batch` |
| an epoch of the classifier: five passes; no ImageNet normalisation, no jitter | `PASSES`, `cadiff.detection.classifier` |

Not repeated: its input range (0 to 1; ours is -1 to 1), its bilinear pictures (ours are Lanczos'), JPEG copies of what was generated, and
a picture that is not square is not stretched to one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cadiff.data.images import Batch, make_batch
from cadiff.detection.batches import TrainingData
from cadiff.detection.tiles import random_tile
from cadiff.params import LEGACY, FilterParams, Params

MOST = 500
PASSES = 5
DEVIATION = 0.02


def published(params: Params) -> Params:
    """A product's parameters under the published evaluation; no image is left out by a rule."""
    detector = params.detector.model_copy(update={**LEGACY["detector"], "protocol": "legacy", "published": False})
    metrics = params.metrics.model_copy(update=LEGACY["metrics"])
    return params.model_copy(update={"detector": detector, "metrics": metrics, "filter": FilterParams()})


def initialise(model: nn.Module) -> None:
    """Draws convolutions' weights from N(0, 0.02) and batch normalisations' scales from N(1, 0.02), their shifts 0; convolutions' biases
    stay as torch draws them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, DEVIATION)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, DEVIATION)
            nn.init.zeros_(module.bias)


def published_batch(data: TrainingData, size: int, generator: torch.Generator) -> Batch:
    """``size`` tiles, each by a coin's toss of a real normal or of a random type's random image."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    names, tiles = list(data.anomalies), []
    for _ in range(size):
        pool = data.normals[0] if draw(2) else data.anomalies[names[draw(len(names))]]
        tiles.append(random_tile(pool[draw(len(pool))], data.side, generator))
    return make_batch(np.stack([tile.image for tile in tiles]), np.stack([tile.mask for tile in tiles]))
