from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from cadiff.data import augment_batch, augment_pair
from cadiff.data.images import Batch
from cadiff.seeds import torch_generator


def disc(height: int, width: int, row: float, column: float, radius: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (((y - row) ** 2 + (x - column) ** 2) <= radius**2)[None]


def test_nothing_asked_is_nothing_done():
    image, mask = torch.rand(3, 20, 32), disc(20, 32, 9, 14, 4)
    warped, warped_mask = augment_pair(image, mask, 0.0, 0.0, 0.0, torch_generator(0))
    torch.testing.assert_close(warped, image, atol=1e-4, rtol=0)
    assert torch.equal(warped_mask, mask)


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_move_together(seed):
    mask = disc(48, 64, 22, 34, 6)
    image = mask.float().repeat(3, 1, 1)
    warped, warped_mask = augment_pair(image, mask, 0.2, 0.05, 30.0, torch_generator(seed))
    assert warped.shape == image.shape
    assert torch.equal(warped[:1] >= 0.24, warped_mask)


@pytest.mark.parametrize("seed", range(8))
def test_rotation_turns_about_the_centre_in_pixels(seed):
    """A rotation keeps the distance from the centre, and a disc round, even if the image is not square."""
    mask = disc(48, 96, 24, 58, 6)
    _, warped = augment_pair(mask.float().repeat(3, 1, 1), mask, 0.0, 0.0, 40.0, torch_generator(seed))
    centre = np.array(ndimage.center_of_mass(warped[0].numpy())) - (23.5, 47.5)
    assert np.hypot(*centre) == pytest.approx(math.hypot(0.5, 10.5), abs=0.5)
    rows, columns = (np.ptp(axis) for axis in np.nonzero(warped[0].numpy()))
    assert abs(int(rows) - int(columns)) <= 1


def test_crop_only_zooms_in():
    mask = disc(64, 64, 32, 32, 6)
    areas = [
        augment_pair(torch.zeros(3, 64, 64), mask, 0.4, 0.0, 0.0, torch_generator(seed))[1].sum().item()
        for seed in range(30)
    ]
    assert min(areas) >= mask.sum().item()
    assert max(areas) <= 1.25 * mask.sum().item() / 0.6**2
    assert max(areas) > 1.5 * mask.sum().item()


@pytest.mark.parametrize("seed", range(40))
def test_thin_masks_survive(seed):
    point, line = torch.zeros(1, 32, 32, dtype=torch.bool), torch.zeros(1, 32, 32, dtype=torch.bool)
    point[0, 16, 15] = True
    line[0, 10:22, 16] = True
    blank = torch.zeros(3, 32, 32)
    assert augment_pair(blank, point, 0.1, 0.1, 45.0, torch_generator(seed))[1].any()
    warped = augment_pair(blank, line, 0.0, 0.0, 45.0, torch_generator(seed))[1][0].numpy()
    assert ndimage.label(warped, np.ones((3, 3)))[1] == 1


def test_a_mask_never_vanishes_and_a_normal_has_none():
    corner = torch.zeros(1, 32, 32, dtype=torch.bool)
    corner[0, 0, 0] = True
    image = torch.rand(3, 32, 32)
    for seed in range(30):
        assert augment_pair(image, corner, 0.4, 0.4, 90.0, torch_generator(seed))[1].any()
        assert not augment_pair(image, ~corner & corner, 0.4, 0.4, 90.0, torch_generator(seed))[1].any()


def test_the_same_generator_gives_the_same_batch():
    batch = Batch(torch.rand(3, 3, 16, 16), torch.rand(3, 1, 16, 16) > 0.5)
    first, second = (augment_batch(batch, 0.1, 0.1, 15.0, torch_generator(3)) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.mask, second.mask)
    assert first.image.shape == batch.image.shape
    assert not torch.equal(first.image, batch.image)


@pytest.mark.parametrize("seed", range(8))
def test_an_anomaly_that_is_mirrored_into_view_is_marked(seed):
    """What the image shows twice, the mask marks twice."""
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[0, 4:14, 1:5] = True
    image, warped = augment_pair(mask.float().repeat(3, 1, 1), mask, 0.0, 0.4, 30.0, torch_generator(seed))
    assert torch.equal(image[:1] >= 0.24, warped)
