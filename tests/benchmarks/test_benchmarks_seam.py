"""benchmarks/seam.py: what can be told is told, and what cannot is not."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture
def seam(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("seam")


@pytest.fixture(scope="module")
def places() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """40 crops of a rough surface, as many of the same surface elsewhere, and a disc of each as mask."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    crops = []
    for _ in range(80):
        rough = ndimage.gaussian_filter(rng.normal(0, 60, (64, 64, 1)), (1, 1, 0)) + rng.normal(0, 4, (64, 64, 3))
        crops.append((128 + rough).clip(0, 255).astype(np.uint8))
    masks = [np.hypot(y - row, x - column) < 12 for row, column in rng.integers(24, 40, (40, 2))]
    return crops[:40], crops[40:], masks


@pytest.mark.parametrize("name", ["network", "grain"])
def test_a_blurred_place_is_told_and_another_piece_of_the_same_is_not(seam: ModuleType, places: tuple, name: str) -> None:
    """The blur is that of a picture that was brought to three quarters and back."""
    crops, others, masks = places
    drawn = [ndimage.gaussian_filter(crop, (0.7, 0.7, 0)) for crop in crops]
    blurred = [np.where(mask[..., None], fine, crop) for crop, fine, mask in zip(crops, drawn, masks, strict=True)]
    value, spread = seam.told(crops, blurred, masks, seam.DESCRIBED[name])
    assert value > seam.TOLD
    assert spread < 0.1
    value, _ = seam.told(crops, others, masks, seam.DESCRIBED[name])
    assert 0.25 < value < 0.75


def test_what_was_learned_on_is_not_what_is_asked(seam: ModuleType) -> None:
    """Labels that say nothing: two classes alike, as many figures as there are crops. Learned by heart they would give 1."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2, 40, 4, 160))
    value = seam.ranked(seam.scored(features[:, :20], features[:, 20:]))
    assert 0.25 < value < 0.75


def test_a_crop_has_the_place_in_it_and_stays_in_the_picture(seam: ModuleType) -> None:
    for top, left, size in ((0, 0, 6), (190, 280, 10), (60, 90, 80)):
        mask = np.zeros((200, 300), bool)
        mask[top : top + size, left : left + size] = True
        rows, columns = seam.crop_around(mask)
        assert mask[rows, columns].sum() == mask.sum()
        assert mask[rows, columns].shape == ((64, 64) if size < 80 else (128, 128))


def test_statistics_are_of_the_place_and_of_what_is_around_it(seam: ModuleType) -> None:
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    inside, around = seam.regions(mask)
    assert (inside == mask).all()
    assert not (around & mask).any()
    assert around[19, 30]
    assert not around[5, 5]
    maps = np.where(seam.cells(mask, (16, 16)), 3.0, 1.0)[None]
    assert seam.pooled(maps, mask)[:2] == pytest.approx([3.0, np.log(0.01)])
    noise = np.random.default_rng(0).normal(0, 5, (64, 64, 3))
    found = seam.grain_of(noise, mask)
    assert np.exp(found[:3]) == pytest.approx([5.1] * 3, rel=0.2)
    assert np.abs(found[4:]).max() < 0.2, "white noise has neither neighbours nor colours alike"
