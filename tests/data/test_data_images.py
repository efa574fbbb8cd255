from __future__ import annotations

import numpy as np
import pytest
import torch

from cadiff.data import make_batch, to_tensor, to_uint8
from cadiff.errors import CADiffError
from cadiff.storage import read_image, write_image


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
