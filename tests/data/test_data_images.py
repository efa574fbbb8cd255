from __future__ import annotations

import numpy as np
import pytest
import torch

from cadiff.data import make_batch, to_tensor, to_uint8
from cadiff.errors import CADiffError
from cadiff.storage import read_image, resize_mask, write_image


def test_uint8_survives_the_way_to_a_tensor_and_back():
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    tensor = to_tensor(images)
    assert tensor.shape == (1, 3, 16, 16)
    assert (tensor.min().item(), tensor.max().item()) == (-1.0, 1.0)
    assert np.array_equal(to_uint8(tensor), images)
    assert to_uint8(torch.tensor([[[[-3.0]], [[0.0]], [[3.0]]]])).tolist() == [[[[0, 128, 255]]]]


def test_batch_pairs_images_with_masks():
    images, masks = np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 8, 8), bool)
    batch = make_batch(images, masks)
    assert batch.image.shape == (2, 3, 8, 8)
    assert batch.mask.shape == (2, 1, 8, 8)
    assert batch.mask.dtype == torch.bool
    with pytest.raises(CADiffError, match="one mask per image"):
        make_batch(images, masks[:1])


@pytest.mark.parametrize("value", [1, 200, 255])
def test_a_single_pixel_of_a_mask_survives_shrinking(tmp_path, value):
    mask = np.zeros((512, 512), np.uint8)
    mask[300, 100] = value
    write_image(tmp_path / "mask.png", mask)
    assert np.argwhere(read_image(tmp_path / "mask.png", "L", (32, 32))).tolist() == [[300 // 16, 100 // 16]]


@pytest.mark.parametrize(("rule", "thickness"), [("any", 2.25), ("quarter", 1.7), ("half", 1.1), ("nearest", 1.0)])
def test_how_thick_a_line_becomes_by_each_rule(rule, thickness):
    """A line of 3 px of 1024, at any angle, brought to 256 px: the area that the mask has, against what it had."""
    rng, ratios = np.random.default_rng(0), []
    rows, columns = np.mgrid[:1024, :1024] - 512
    for _ in range(20):
        angle = rng.uniform(0, np.pi)
        line = np.abs(columns * np.sin(angle) - rows * np.cos(angle) + rng.uniform(-40, 40)) < 1.5
        ratios.append(16 * resize_mask(line, (256, 256), rule).sum() / line.sum())
    assert np.mean(ratios) == pytest.approx(thickness, abs=0.1)


def test_the_neutral_rule_keeps_an_area_and_no_defect_vanishes():
    disc = np.hypot(*(np.mgrid[:512, :512] - 250)) < 60
    assert resize_mask(disc, (128, 128), "half").sum() * 16 == pytest.approx(disc.sum(), rel=0.02)
    speck = np.zeros((512, 512), bool)
    speck[300, 100] = True
    assert all(resize_mask(speck, (64, 64), rule).sum() == 1 for rule in ("any", "quarter", "half"))
