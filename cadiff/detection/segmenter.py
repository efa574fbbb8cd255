"""The U-Net as a detector: its anomaly maps and image scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from cadiff.data.images import load_samples, to_tensor
from cadiff.detection.measuring import Scores, image_score
from cadiff.detection.unet import UNet, anomaly_map
from cadiff.records import SampleRow


@dataclass(frozen=True)
class Segmenter:
    """A trained U-Net; scores are probabilities of anomaly, an image's is the maximum after average pooling."""

    model: UNet
    size: int
    window: int
    made: str = ""
    variant: str = "unet"
    black: float = 0.0
    white: float = 1.0

    def score(self, rows: Sequence[SampleRow]) -> Scores:
        maps = predict(self.model, rows, self.size)
        return Scores(maps, image_score(maps, self.window))


@torch.inference_mode()
def predict(model: UNet, rows: Sequence[SampleRow], size: int) -> Float[np.ndarray, "n h w"]:
    """Anomaly maps in [0, 1] of one batch of images."""
    pixels, _ = load_samples(rows, size)
    image = to_tensor(pixels).to(next(model.parameters()).device, memory_format=torch.channels_last)
    return anomaly_map(model(image)).cpu().numpy()
