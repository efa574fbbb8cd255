"""Augmented real exemplars: what the few real anomalies give without any generator."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from cadiff.data.augment import augment_pair
from cadiff.data.images import to_tensor, to_uint8
from cadiff.params import TrainParams
from cadiff.seeds import numpy_generator, torch_generator
from cadiff.synthesis.photometric import relight

CONTRAST = 0.05
BRIGHTNESS = 5.0


def warp(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], settings: TrainParams, seed: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """The pair under one random affine warp of its own canvas, and its light changed by at most 5 % and 5 grey levels.

    All channels are treated alike, so that a grey picture stays grey.
    """
    limits, generator = (settings.crop, settings.translate, settings.rotate), torch_generator(seed, "warp")
    warped, moved = augment_pair(to_tensor(image[None])[0], torch.from_numpy(np.array(mask))[None], *limits, generator)
    lit = relight(to_uint8(warped[None])[0], numpy_generator(seed, "light"), CONTRAST, BRIGHTNESS)
    return np.round(lit).astype(np.uint8), moved[0].numpy()
