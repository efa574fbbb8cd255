from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import ellipse, line
from skimage.measure import regionprops

from cadiff.masks.shapes import Spread, draw_movement, fit_spread, move_mask, move_outline, move_picture, shares, unmoved
from cadiff.scene import Movement, Outline
from cadiff.seeds import numpy_generator

SIDE = 64


def blob(row: float, column: float, tall: float, wide: float, turn: float = 0.0) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[ellipse(row, column, tall, wide, mask.shape, turn)] = True
    return mask


def orientation(mask: np.ndarray) -> float:
    return regionprops(mask.astype(np.uint8))[0].orientation


def spread_of(masks: list[np.ndarray]) -> Spread:
    return fit_spread([Outline.of(mask) for mask in masks])


def to(
    row: float, column: float, canvas: tuple[int, int] = (SIDE, SIDE), scale: float = 1.0, turn: float = 0.0, mirror: bool = False
) -> Movement:
    """A movement to a place in px."""
    return Movement(scale, turn, mirror, shares((row, column), canvas))


@pytest.mark.parametrize("turn", [-2.5, -0.7, 0.0, 0.4, 1.2])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_a_movement_does_what_its_fields_say(turn, scale):
    mask, canvas = blob(30, 33, 9, 4), (70, 96)  # of another shape than the mask's own
    moved = move_mask(mask, to(28.0, 36.0, canvas, scale, turn), canvas)
    assert moved.shape == canvas
    assert ndimage.center_of_mass(moved) == pytest.approx((28.0, 36.0), abs=0.3)
    assert moved.sum() == pytest.approx(mask.sum() * scale**2, rel=0.06, abs=6)
    change = orientation(moved) - orientation(mask)
    assert abs(math.sin(change - turn)) < 0.06  # an axis: a half turn is no difference


def test_doing_nothing_changes_nothing_and_a_mirror_is_a_mirror():
    mask = blob(30, 33, 9, 4, 0.5)
    centre = ndimage.center_of_mass(mask)
    assert np.array_equal(move_mask(mask, unmoved(Outline.of(mask)), mask.shape), mask)
    mirrored = move_mask(mask, to(centre[0], SIDE - 1 - centre[1], mirror=True), mask.shape)
    assert np.array_equal(mirrored, mask[:, ::-1])


@pytest.mark.parametrize("turn", np.linspace(0, math.pi, 9))
@pytest.mark.parametrize("scale", [0.75, 1.0, 1.5])
def test_a_line_of_one_pixel_stays_in_one_piece(turn, scale):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[line(20, 20, 40, 34)] = True
    moved = move_mask(mask, to(31.3, 30.6, scale=scale, turn=float(turn)), mask.shape)
    assert ndimage.label(moved, np.ones((3, 3)))[1] == 1


def test_a_point_survives_wherever_it_falls():
    point = np.zeros((SIDE, SIDE), bool)
    point[30, 30] = True
    for centre in ((20.0, 20.0), (20.5, 20.5), (20.3, 40.5), (0.0, 63.0)):
        assert 1 <= move_mask(point, to(*centre, turn=0.6), point.shape).sum() <= 4
    assert not move_mask(point, to(-5.0, 20.0, turn=0.6), point.shape).any()


@pytest.mark.parametrize("goes_on", [False, True])
def test_boxes_and_crops_change_nothing(goes_on):
    """Against the whole picture moved at once, for masks inside, at a border and at a corner; some move beyond the other canvas."""
    rng, canvas = np.random.default_rng(0), (90, 61)
    picture = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for mask in (blob(30, 33, 9, 4, 0.5), blob(2, 30, 6, 9), blob(62, 1, 5, 8)):
        for _ in range(8):
            movement = Movement(
                rng.uniform(0.5, 2), rng.uniform(-3, 3), bool(rng.random() < 0.5), (rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1.1))
            )
            matrix, offset = movement.inverse(ndimage.center_of_mass(mask), canvas)
            mode = "nearest" if goes_on else "grid-constant"
            whole = ndimage.affine_transform(mask.astype(np.float32), matrix, offset, canvas, order=1, mode=mode)
            moved = move_mask(mask, movement, canvas, goes_on)
            assert moved.any() == (whole >= 0.12).any()
            assert any(np.array_equal(moved, whole >= threshold) for threshold in (0.5, 0.35, 0.24, 0.12))
            pixels = np.stack(
                [ndimage.affine_transform(picture[..., c].astype(float), matrix, offset, canvas, order=1, mode="mirror") for c in range(3)],
                -1,
            )
            assert move_picture(picture, mask, movement, canvas) == pytest.approx(pixels, abs=1e-2)
            box = (20, 5, 47, 60)
            assert move_picture(picture, mask, movement, canvas, box) == pytest.approx(pixels[20:47, 5:60], abs=1e-2)


def test_what_is_moved_costs_its_own_size_and_not_the_canvas():
    def least(work: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    costs = []
    for side in (256, 4096):
        picture, mask = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), bool)
        mask[40:140, 60:160] = True
        outline, movement = Outline.of(mask), Movement(1.1, 0.3, False, shares((120, 130), (side, side)))
        costs.append([
            least(lambda o=outline, m=movement, s=side: move_outline(o, m, (s, s))),
            least(lambda p=picture, k=mask, m=movement, s=side: move_picture(p, k, m, (s, s), (70, 80, 170, 180))),
        ])  # fmt: skip
        whole = least(lambda p=picture: p[..., 0].astype(np.float32))  # no more than one channel read
    assert costs[1][0] < 3 * costs[0][0]
    assert costs[1][1] < 3 * costs[0][1] + whole


def test_like_orientations_are_kept_and_unlike_ones_set_free():
    alike = [blob(20 + k, 30 + 3 * k, 3, 12, 0.05 * k) for k in range(5)]
    unlike = [blob(30, 30, 3, 12, k * math.pi / 5) for k in range(5)]
    round_ones = [blob(30, 30, 6, 6) for _ in range(3)]
    kept = spread_of(alike).turn
    assert kept is not None
    assert kept < 0.3
    assert spread_of(unlike).turn is None
    assert spread_of(round_ones).turn is None


def test_spreads_follow_the_exemplars():
    near = spread_of([blob(30 + k % 2, 30, 5, 5) for k in range(6)])
    far = spread_of([blob(10 + 8 * k, 30, 5, 5) for k in range(6)])
    assert far.shift[0] > 2 * near.shift[0]
    assert far.shift[1] == near.shift[1]
    assert spread_of([blob(30, 30, 2 + k, 2 + k) for k in range(6)]).scale > 2 * near.scale
    lone = spread_of([blob(30, 30, 5, 5)])
    assert min(*lone.shift, lone.scale) > 0


def test_one_place_in_pictures_of_many_shapes_is_no_spread():
    middles = []
    for height, width in ((64, 64), (64, 90), (120, 64)):
        mask = np.zeros((height, width), bool)
        mask[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = True
        middles.append(mask)
    assert spread_of(middles) == spread_of(middles[:1] * 3)


def test_what_touches_a_border_stays_there():
    left = np.zeros((SIDE, SIDE), bool)
    left[20:30, :6] = True
    band = np.zeros((SIDE, SIDE), bool)
    band[40:50] = True
    spread = spread_of([left, band])
    for k in range(20):
        rng = numpy_generator(0, "touch", k)
        assert move_mask(left, draw_movement(Outline.of(left), spread, rng), left.shape, goes_on=True)[:, 0].any()
        moved = move_mask(band, draw_movement(Outline.of(band), spread, rng), band.shape, goes_on=True)
        assert not moved.any() or moved.any(axis=0).all()


def test_a_shift_is_drawn_in_the_frame_that_its_spread_was_fitted_in():
    """A part that lies a quarter turn away: what is up and down there is left and right here. What a border cut stays at it."""
    outline, spread, rng = Outline.of(blob(32, 32, 3, 6, 0.0)), Spread((0.1, 0.0), 0.0, 0.0), np.random.default_rng(0)
    moves = np.array([draw_movement(outline, spread, rng, math.pi / 2).centre for _ in range(200)]) - unmoved(outline).centre
    assert np.abs(moves[:, 0]).max() < 1e-9
    assert moves[:, 1].std() == pytest.approx(0.1, rel=0.15)
    edge = Outline.of(blob(32, 2, 3, 6, 0.0))
    moves = np.array([draw_movement(edge, spread, rng, math.pi / 4).centre for _ in range(20)]) - unmoved(edge).centre
    assert np.abs(moves[:, 1]).max() == 0
    assert np.abs(moves[:, 0]).max() > 1 / SIDE
