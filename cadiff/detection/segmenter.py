"""A trained network as a detector: its anomaly maps and image scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn

from cadiff.data.images import to_tensor
from cadiff.detection.measuring import Scores, image_scores
from cadiff.detection.tiles import Place, View, cut, stitched, tile_places
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
        return self.score_images([self.view.read(row).image for row in rows])

    def score_images(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Scores:
        """Scores of pictures at the detector's scale, of any shapes."""
        maps = predict_all(self.model, images, self.view)
        return Scores(maps, image_scores(maps, self.pooling))


def predict(model: nn.Module, image: UInt8[np.ndarray, "h w 3"], view: View) -> Float[np.ndarray, "h w"]:
    """The anomaly map in [0, 1] of a picture at the detector's scale; ``model`` is in evaluation mode."""
    return stitched(image, view.side(min(image.shape[:2])), partial(_of_tiles, model), _BATCH)


def predict_all(model: nn.Module, images: Sequence[UInt8[np.ndarray, "h w 3"]], view: View) -> list[Float[np.ndarray, "h w"]]:
    """The maps of several pictures, as ``predict`` but for rounding: the tiles of small pictures go through the network together, which
    takes a CPU up to half of the time. A picture of more than ``_BATCH`` tiles goes by itself, so that memory stays bounded."""
    sides = [view.side(min(image.shape[:2])) for image in images]
    jobs: dict[int, list[tuple[int, Place]]] = {}
    for index, (image, side) in enumerate(zip(images, sides, strict=True)):
        if len(places := tile_places(image.shape[:2], side)) <= _BATCH:
            jobs.setdefault(side, []).extend((index, place) for place in places)
    found: dict[int, list[Float[np.ndarray, "s s"]]] = {}
    for side, tiles in jobs.items():
        for start in range(0, len(tiles), _BATCH):
            chosen = tiles[start : start + _BATCH]
            maps = _of_tiles(model, np.stack([cut(images[index], place, side) for index, place in chosen]))
            for (index, _), map_ in zip(chosen, maps, strict=True):
                found.setdefault(index, []).append(map_)

    def whole(index: int, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
        if index not in found:
            return predict(model, image, view)
        return stitched(image, sides[index], lambda tiles: np.stack(found[index]), len(found[index]))

    return [whole(index, image) for index, image in enumerate(images)]


@torch.inference_mode()
def _of_tiles(model: nn.Module, tiles: UInt8[np.ndarray, "n s s 3"]) -> Float[np.ndarray, "n s s"]:
    given = to_tensor(tiles).to(next(model.parameters()).device, memory_format=torch.channels_last)
    return anomaly_map(model(given)).cpu().numpy()
