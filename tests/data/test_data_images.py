from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cadiff.data import load_samples, make_batch, read_samples, to_tensor, to_uint8
from cadiff.errors import CADiffError
from cadiff.params import DatasetParams
from cadiff.storage import read_image, write_image


def test_load_samples_gives_what_pillow_gives(mvtec_root):
    rows = read_samples(DatasetParams(name="toy", layout="mvtec", root=str(mvtec_root)), "nut")
    images, masks = load_samples(rows, 24)
    assert images.shape == (14, 24, 24, 3)
    assert images.dtype == np.uint8
    assert masks.dtype == bool
    for row, image, mask in zip(rows, images, masks, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(row.image_path)))
        expected = np.asarray(Image.open(row.mask_path)) > 0 if row.mask_path else np.zeros((24, 24), bool)
        assert np.array_equal(mask, expected)
    assert load_samples([], 8)[0].shape == (0, 8, 8, 3)


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
    assert np.argwhere(read_image(tmp_path / "mask.png", "L", 32)).tolist() == [[300 // 16, 100 // 16]]
