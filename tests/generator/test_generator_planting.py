"""A mask's exemplar set into a normal image, against hand-worked pictures."""

from __future__ import annotations

import numpy as np
import pytest

from cadiff.generator.planting import plant
from cadiff.masks.shapes import Transform, apply_transform, transform_picture

SIDE = 16


@pytest.fixture
def own() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:5, 3:8] = True
    return mask


def grey(value: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), value).astype(np.uint8)


def test_a_picture_moves_as_its_mask_does(own: np.ndarray) -> None:
    picture = np.where(own[..., None], np.uint8([200, 100, 50]), np.uint8(0))  # black around it: a pixel off would be seen
    for turn, mirror, centre in ((0.0, False, (9.0, 10.0)), (np.pi / 2, False, (8.0, 7.0)), (0.0, True, (6.0, 8.0))):
        transform = Transform(1.0, turn, mirror, centre)
        moved, mask = transform_picture(picture, own, transform), apply_transform(own, transform)
        assert mask.sum() == own.sum()
        np.testing.assert_allclose(moved[mask], np.broadcast_to([200, 100, 50], (15, 3)), atol=1e-2)
        assert Transform.of(transform.numbers()) == transform


def test_inside_the_mask_is_the_exemplar_outside_the_normal(own: np.ndarray) -> None:
    exemplar, transform = grey(50), Transform(1.0, 0.0, False, (10.0, 8.0))
    exemplar[own] = [10, 20, 30]
    mask = apply_transform(own, transform)
    np.testing.assert_array_equal(plant(grey(150), mask, exemplar, own, transform, False)[mask], np.broadcast_to([10, 20, 30], (15, 3)))
    np.testing.assert_array_equal(plant(grey(150), mask, exemplar, own, transform, True)[mask], np.broadcast_to([30, 60, 90], (15, 3)))
    np.testing.assert_array_equal(plant(grey(150), mask, exemplar, own, transform, True)[~mask], 150)
    np.testing.assert_array_equal(plant(grey(150), own, exemplar, own, None, False)[own], np.broadcast_to([10, 20, 30], (15, 3)))


def test_what_the_light_takes_beyond_white_is_white(own: np.ndarray) -> None:
    exemplar = grey(50)
    exemplar[own] = 100
    assert (plant(grey(150), own, exemplar, own, None, True)[own] == 255).all()
