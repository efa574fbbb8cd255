"""Photographs and textures that packages ship: what drawn pictures lack, grain, soft focus and light that nobody modelled."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """Photographs and textures that scikit-image and scikit-learn carry in their wheels, uint8 (h w 3)."""
    from skimage import color, data
    from sklearn.datasets import load_sample_images

    grey = [data.brick(), data.grass(), data.gravel(), data.camera(), data.coins(), data.moon(), data.page(), data.text()]
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.hubble_deep_field(), *load_sample_images().images]
    return (*pictures, *(np.round(color.gray2rgb(g)).astype(np.uint8) for g in grey))


def crop_of(picture: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """A random square of a photograph, brought to ``size`` by averaging (repeated, where the photograph is smaller)."""
    shortest = min(picture.shape[:2])
    side = int(rng.integers(min(size, shortest), shortest + 1))
    top, left = rng.integers(0, picture.shape[0] - side + 1), rng.integers(0, picture.shape[1] - side + 1)
    piece = torch.from_numpy(picture[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None].float()
    return F.interpolate(piece, size=(size, size), mode="area")[0].permute(1, 2, 0).round().byte().numpy()
