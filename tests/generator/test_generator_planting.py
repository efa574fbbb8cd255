"""A mask's exemplar set into a normal image, against hand-worked pictures."""

from __future__ import annotations

import numpy as np
import pytest

from cadiff.generator.planting import cut, plant
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
    exemplar, normal, transform = grey(50), grey(150), Transform(1.0, 0.0, False, (10.0, 8.0))
    exemplar[own] = [10, 20, 30]
    mask = apply_transform(own, transform)

    def planted(*arguments: object, w: float = 1.0) -> np.ndarray:
        return plant(normal, [cut(exemplar, own, *arguments, "spot")], {"spot": w})  # type: ignore[arg-type]

    assert (planted(transform, mask, None)[mask] == [10, 20, 30]).all()
    assert (planted(transform, mask, normal)[mask] == [30, 60, 90]).all(), "under the normal's light, three times as bright"
    assert (planted(transform, mask, normal)[~mask] == 150).all()
    assert (planted(None, own, None)[own] == [10, 20, 30]).all(), "as it lies"


def test_the_start_follows_the_intensity(own: np.ndarray) -> None:
    """150 - 100 w inside the mask, 0 at least and the picture itself for w <= 0; two types have each its own w."""
    exemplar, other = grey(50), np.roll(own, 8, 0)
    chosen = [cut(exemplar, own, None, own, None, "spot"), cut(exemplar, own, None, other, None, "hole")]
    for w, expected in ((-1.0, 150), (0.0, 150), (0.5, 100), (1.0, 50), (1.4, 10), (2.0, 0)):
        planted = plant(grey(150), chosen, {"spot": w, "hole": 0.5})
        assert (planted[own] == expected).all(), w
        assert (planted[other] == 100).all()
        assert (planted[~own & ~other] == 150).all()


def test_what_the_light_takes_beyond_white_is_white(own: np.ndarray) -> None:
    exemplar = grey(50)
    exemplar[own] = 100
    assert (plant(grey(150), [cut(exemplar, own, None, own, grey(150), "spot")], {"spot": 1.0})[own] == 255).all()
