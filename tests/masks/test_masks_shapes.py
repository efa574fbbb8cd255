from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import ellipse, line
from skimage.measure import regionprops

from cadiff.masks.shapes import Spread, Transform, apply_transform, draw_transform, fit_spread, unmoved
from cadiff.seeds import numpy_generator

SIDE = 64


def blob(row: float, column: float, tall: float, wide: float, turn: float = 0.0) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[ellipse(row, column, tall, wide, mask.shape, turn)] = True
    return mask


def orientation(mask: np.ndarray) -> float:
    return regionprops(mask.astype(np.uint8))[0].orientation


@pytest.mark.parametrize("turn", [-2.5, -0.7, 0.0, 0.4, 1.2])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_a_transform_does_what_its_fields_say(turn, scale):
    mask = blob(30, 33, 9, 4)
    moved = apply_transform(mask, Transform(scale, turn, False, (28.0, 36.0)))
    assert ndimage.center_of_mass(moved) == pytest.approx((28.0, 36.0), abs=0.3)
    assert moved.sum() == pytest.approx(mask.sum() * scale**2, rel=0.06, abs=6)
    change = orientation(moved) - orientation(mask)
    assert abs(math.sin(change - turn)) < 0.06  # an axis: a half turn is no difference


def test_doing_nothing_changes_nothing_and_a_mirror_is_a_mirror():
    mask = blob(30, 33, 9, 4, 0.5)
    centre = ndimage.center_of_mass(mask)
    assert np.array_equal(apply_transform(mask, Transform(1.0, 0.0, False, centre)), mask)
    mirrored = apply_transform(mask, Transform(1.0, 0.0, True, (centre[0], SIDE - 1 - centre[1])))
    assert np.array_equal(mirrored, mask[:, ::-1])


@pytest.mark.parametrize("turn", np.linspace(0, math.pi, 9))
@pytest.mark.parametrize("scale", [0.75, 1.0, 1.5])
def test_a_line_of_one_pixel_stays_in_one_piece(turn, scale):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[line(20, 20, 40, 34)] = True
    moved = apply_transform(mask, Transform(scale, float(turn), False, (31.3, 30.6)))
    assert ndimage.label(moved, np.ones((3, 3)))[1] == 1


def test_a_point_survives_wherever_it_falls():
    point = np.zeros((SIDE, SIDE), bool)
    point[30, 30] = True
    for centre in ((20.0, 20.0), (20.5, 20.5), (20.3, 40.5)):
        assert 1 <= apply_transform(point, Transform(1.0, 0.6, False, centre)).sum() <= 4
    assert not apply_transform(point, Transform(1.0, 0.6, False, (-5.0, 20.0))).any()


def test_like_orientations_are_kept_and_unlike_ones_set_free():
    alike = [blob(20 + k, 30 + 3 * k, 3, 12, 0.05 * k) for k in range(5)]
    unlike = [blob(30, 30, 3, 12, k * math.pi / 5) for k in range(5)]
    round_ones = [blob(30, 30, 6, 6) for _ in range(3)]
    kept = fit_spread(alike).turn
    assert kept is not None
    assert kept < 0.3
    assert fit_spread(unlike).turn is None
    assert fit_spread(round_ones).turn is None


def test_spreads_follow_the_exemplars():
    near = fit_spread([blob(30 + k % 2, 30, 5, 5) for k in range(6)])
    far = fit_spread([blob(10 + 8 * k, 30, 5, 5) for k in range(6)])
    assert far.shift[0] > 2 * near.shift[0]
    assert far.shift[1] == near.shift[1]
    assert fit_spread([blob(30, 30, 2 + k, 2 + k) for k in range(6)]).scale > 2 * near.scale
    lone = fit_spread([blob(30, 30, 5, 5)])
    assert min(*lone.shift, lone.scale) > 0


def test_what_touches_a_border_stays_there():
    left = np.zeros((SIDE, SIDE), bool)
    left[20:30, :6] = True
    band = np.zeros((SIDE, SIDE), bool)
    band[40:50] = True
    spread = fit_spread([left, band])
    for k in range(20):
        rng = numpy_generator(0, "touch", k)
        assert apply_transform(left, draw_transform(left, spread, rng))[:, 0].any()
        moved = apply_transform(band, draw_transform(band, spread, rng))
        assert not moved.any() or moved.any(axis=0).all()


def test_without_spread_a_mask_stays_where_its_exemplar_is():
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(6):
        mask = np.zeros((64, 64), bool)
        row, column = rng.integers(5, 50, 2)
        mask[row : row + 9, column : column + 5] = True
        masks.append(mask)
    still, free = fit_spread(masks, 0.0), fit_spread(masks)
    assert all((apply_transform(mask, draw_transform(mask, still, rng)) == mask).all() for mask in masks)
    assert any((apply_transform(mask, draw_transform(mask, free, rng)) != mask).any() for mask in masks)


def test_a_shift_is_drawn_in_the_frame_that_its_spread_was_fitted_in():
    """A part that lies a quarter turn away: what is up and down there is left and right here. What a border cut stays at it."""
    mask, spread, rng = blob(32, 32, 3, 6, 0.0), Spread((0.1, 0.0), 0.0, 0.0), np.random.default_rng(0)
    moves = np.array([draw_transform(mask, spread, rng, math.pi / 2).centre for _ in range(200)]) - unmoved(mask).centre
    assert np.abs(moves[:, 0]).max() < 1e-9
    assert moves[:, 1].std() == pytest.approx(0.1 * len(mask), rel=0.15)
    edge = blob(32, 2, 3, 6, 0.0)
    moves = np.array([draw_transform(edge, spread, rng, math.pi / 4).centre for _ in range(20)]) - unmoved(edge).centre
    assert np.abs(moves[:, 1]).max() == 0
    assert np.abs(moves[:, 0]).max() > 1
