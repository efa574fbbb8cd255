"""From pixels to batches, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cadiff.errors import CADiffError


@dataclass(frozen=True)
class Batch:
    """Images in [-1, 1] with their masks (True: anomaly)."""

    image: Float[Tensor, "b 3 h w"]
    mask: Bool[Tensor, "b 1 h w"]


def to_tensor(images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """uint8 pixels as float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1.0


def to_uint8(images: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Values in [-1, 1] (clipped to it) as uint8 pixels; the inverse of ``to_tensor``."""
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


def make_batch(
    images: UInt8[np.ndarray, "n h w 3"], masks: Bool[np.ndarray, "n h w"], device: str | torch.device = "cpu"
) -> Batch:
    """Images and their masks as one batch on ``device``.

    Raises:
        CADiffError: if images and masks differ in count or size.
    """
    if images.shape[:3] != masks.shape:
        raise CADiffError(
            f"batch: expected one mask per image of its size, found images {images.shape} masks {masks.shape}"
        )
    mask = torch.from_numpy(np.ascontiguousarray(masks))[:, None]
    return Batch(to_tensor(images).to(device), mask.to(device))
