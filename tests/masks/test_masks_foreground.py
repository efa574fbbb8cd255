from __future__ import annotations

import numpy as np
import pytest
from skimage.data import brick, grass, gravel

from cadiff.masks import foreground
from cadiff.masks.foreground import scaled


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("side", [64, 200])
@pytest.mark.parametrize(("backdrop", "object_"), [(30, 170), (225, 90)])
def test_an_object_with_a_hole_and_noise_is_found_whole(side, backdrop, object_):
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    truth = np.hypot(x - 0.1, y) < 0.6
    ring = truth & (np.hypot(x - 0.1, y) > 0.15)
    rng = np.random.default_rng(0)
    image = np.where(ring, object_, backdrop)[..., None] + rng.normal(0, 6, (side, side, 3))
    assert iou(foreground(image.clip(0, 255).astype(np.uint8)), truth) > 0.9


def test_a_bore_is_not_product():
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    ring = (np.hypot(x, y) < 0.7) & (np.hypot(x, y) > 0.3)
    image = np.where(ring, 170, 30)[..., None] + np.random.default_rng(0).normal(0, 6, (64, 64, 3))
    assert iou(foreground(image.clip(0, 255).astype(np.uint8)), ring) > 0.85


def test_two_colours_of_one_object_both_count():
    image = np.full((64, 64, 3), 235, np.uint8)
    image[20:44, 10:32] = (190, 20, 20)
    image[20:44, 32:54] = (215, 205, 150)
    truth = np.zeros((64, 64), bool)
    truth[20:44, 10:54] = True
    assert iou(foreground(image), truth) > 0.85


@pytest.mark.parametrize("texture", [brick, grass, gravel])
def test_a_texture_fills_its_image(texture):
    """Real photographs from scikit-image."""
    grey = texture()[::4, ::4]
    assert foreground(np.repeat(grey[..., None], 3, axis=2)).all()


def test_a_blank_image_is_all_product():
    assert foreground(np.full((32, 32, 3), 128, np.uint8)).all()


def test_a_large_picture_is_looked_at_small_and_its_outline_scaled_up():
    """Of the same scene at 8 times the side the same is found, to a pixel of the small one's outline."""
    y, x = np.mgrid[-1:1:1024j, -1.5:1.5:1536j]
    truth = np.hypot(x - 0.1, y) < 0.6
    image = np.where(truth, 170, 30)[..., None] + np.random.default_rng(0).normal(0, 6, (1024, 1536, 3))
    found = foreground(image.clip(0, 255).astype(np.uint8))
    assert found.shape == (1024, 1536)
    assert iou(found, truth) > 0.95
    assert (found ^ truth)[np.abs(np.hypot(x - 0.1, y) - 0.6) > 0.05].sum() == 0


def test_a_box_of_a_scaled_mask_is_that_part_of_it():
    small = np.random.default_rng(0).random((24, 31)) > 0.5
    whole = scaled(small, (240, 310))
    assert np.array_equal(whole[35:77, 100:260], scaled(small, (240, 310), (35, 100, 77, 260)))
    assert np.array_equal(scaled(small, small.shape), small)
