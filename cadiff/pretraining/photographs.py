"""Photographs and textures that packages ship: what drawn pictures lack, grain, soft focus and light that nobody modelled."""

from __future__ import annotations

from functools import cache

import numpy as np

from cadiff.pictures import resize_picture

SCALES = 4  # a picture's side by the base's: windows are cut that are down to a quarter of it


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """Photographs and textures that scikit-image and scikit-learn carry in their wheels, uint8 (h w 3)."""
    from skimage import color, data
    from sklearn.datasets import load_sample_images

    grey = [data.brick(), data.grass(), data.gravel(), data.camera(), data.coins(), data.moon(), data.page(), data.text()]
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.hubble_deep_field(), *load_sample_images().images]
    return (*pictures, *(np.round(color.gray2rgb(g)).astype(np.uint8) for g in grey))


def crop_of(picture: np.ndarray, rng: np.random.Generator, size: int, whole: bool) -> np.ndarray:
    """A random square of a photograph, brought to ``size``: the largest there is (``whole``), or one whose side is log-uniform between
    ``size`` and ``SCALES`` times that."""
    longest = min(picture.shape[:2])
    side = longest if whole else side_between(rng, min(size, longest), min(SCALES * size, longest))
    top, left = rng.integers(0, picture.shape[0] - side + 1), rng.integers(0, picture.shape[1] - side + 1)
    return resize_picture(picture[top : top + side, left : left + side], (size, size))


def side_between(rng: np.random.Generator, low: int, high: int) -> int:
    """A side, all scales alike likely."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
