"""A trained network as a detector: its anomaly maps and image scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn

from cadiff.data.images import to_tensor
from cadiff.detection.measuring import Scores, image_scores
from cadiff.detection.tiles import View, stitched
from cadiff.detection.unet import anomaly_map
from cadiff.records import SampleRow

_BATCH = 8  # tiles at a time


@dataclass(frozen=True)
class Segmenter:
    """A trained network; scores are probabilities of anomaly, an image's is the maximum after average pooling (``pooling``: its window
    where the shorter side has 256 px). ``variant`` is the network's name."""

    model: nn.Module
    view: View
    pooling: int
    variant: str
    made: str = ""
    black: float = 0.0
    white: float = 1.0

    def score(self, rows: Sequence[SampleRow]) -> Scores:
        maps = [predict(self.model, self.view.read(row).image, self.view) for row in rows]
        return Scores(maps, image_scores(maps, self.pooling))


@torch.inference_mode()
def predict(model: nn.Module, image: UInt8[np.ndarray, "h w 3"], view: View) -> Float[np.ndarray, "h w"]:
    """The anomaly map in [0, 1] of a picture at the detector's scale; ``model`` is in evaluation mode."""
    device = next(model.parameters()).device

    def of_tiles(tiles: UInt8[np.ndarray, "n s s 3"]) -> Float[np.ndarray, "n s s"]:
        given = to_tensor(tiles).to(device, memory_format=torch.channels_last)
        return anomaly_map(model(given)).cpu().numpy()

    return stitched(image, view.side(min(image.shape[:2])), of_tiles, _BATCH)
