"""How a part lies in one picture against another: pictures drawn at known poses, and what the search finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from parts import BARS, drawn

from cadiff.data.drawing import products
from cadiff.masks.registration import register
from cadiff.masks.shapes import move_mask, shares, unmoved
from cadiff.scene import Movement, Outline

LENGTH = [((0.0, 0.0), (0.3, 0.08))]


@pytest.mark.parametrize("side", [48, 64, 160])
@pytest.mark.parametrize(("turn", "shift"), [(0.1, (0.03, -0.05)), (-0.7, (-0.04, 0.0)), (2.6, (0.0, 0.06)), (0.0, (0.0, 0.0))])
def test_a_known_pose_is_found_within_half_a_pixel(side: int, turn: float, shift: tuple[float, float]) -> None:
    before = (0.05, (-0.02, 0.02))
    picture, onto = drawn(side, *before), drawn(side, turn, shift, seed=1)
    picture[: side // 5, -side // 4 :] = 255  # a defect as bright as nothing else
    defect = (picture == 255).all(axis=2)
    found = register(picture, defect, onto)
    for (across, down), _ in BARS:
        places = []
        for angle, (rows, columns) in (before, (turn, shift)):
            cos, sin = math.cos(angle), math.sin(angle)
            places.append(((cos * down - sin * across + rows + 0.5) * side - 0.5, (sin * down + cos * across + columns + 0.5) * side - 0.5))
        canvas = (side, side)
        moved = found.move(Movement(1.0, 0.0, False, shares(places[0], canvas)), canvas, canvas)
        assert math.dist(np.array(moved.centre) * side - 0.5, places[1]) < 0.5 * max(1, side / 64)
    assert found.likeness > 0.9


def test_a_registered_mask_covers_what_its_exemplars_did() -> None:
    (across, down), (half_x, half_y) = BARS[2]
    side, turn, shift = 96, 0.5, (0.05, 0.04)
    axis = (np.arange(side) + 0.5) / side - 0.5
    knob = (np.abs(axis[:, None] - down) < half_y) & (np.abs(axis[None] - across) < half_x)
    onto = drawn(side, turn, shift)
    found = register(drawn(side, 0.0, (0.0, 0.0), seed=1), np.zeros((side, side), bool), onto)
    there = drawn(side, turn, shift, BARS[2:])[..., 0] > 100
    moved = move_mask(knob, found.move(unmoved(Outline.of(knob)), (side, side), (side, side)), (side, side))
    assert (moved & there).sum() / (moved | there).sum() > 0.8


@pytest.mark.parametrize(("cut", "onto_cut"), [((18, 82, 8, 96), (16, 80, 12, 76)), ((16, 80, 10, 94), (0, 96, 14, 78))])
def test_pictures_of_other_shapes_are_brought_onto_each_other(cut: tuple[int, ...], onto_cut: tuple[int, ...]) -> None:
    """Cuttings of two square pictures, each 64 px at the least: what is at the knob in one is so in the other, at twice the px too."""
    side, turn, shift, bars = 96, 0.2, (0.05, -0.03), [((x * 0.7, y * 0.7), (a * 0.7, b * 0.7)) for (x, y), (a, b) in BARS]
    pictures = drawn(side, 0.0, (0.0, 0.0), bars), drawn(side, turn, shift, bars, seed=1)
    pictures = tuple(p[a:b, c:d] for p, (a, b, c, d) in zip(pictures, (cut, onto_cut), strict=True))
    found = register(pictures[0], np.zeros(pictures[0].shape[:2], bool), pictures[1])
    assert found.likeness > 0.9
    assert found.turn == pytest.approx(turn, abs=0.03)
    (across, down), _ = bars[2]
    own = (down + 0.5) * side - 0.5 - cut[0], (across + 0.5) * side - 0.5 - cut[2]
    cos, sin = math.cos(turn), math.sin(turn)
    rows, columns = cos * down - sin * across + shift[0], sin * down + cos * across + shift[1]
    there = (rows + 0.5) * side - 0.5 - onto_cut[0], (columns + 0.5) * side - 0.5 - onto_cut[2]
    canvas, onto = pictures[0].shape[:2], pictures[1].shape[:2]
    moved = found.move(Movement(1.0, 0.0, False, shares(own, canvas)), canvas, onto)
    assert math.dist(np.array(moved.centre) * onto - 0.5, there) < 1.0
    doubled = found.move(Movement(1.0, 0.0, False, shares(own, canvas)), canvas, (2 * onto[0], 2 * onto[1]))
    assert doubled.centre == pytest.approx(moved.centre)
    assert doubled.scale == pytest.approx(2 * moved.scale)


def test_a_part_with_a_half_turns_symmetry_is_turned_as_little_as_may_be() -> None:
    for seed in range(4):
        found = register(drawn(64, 0.3, (0.0, 0.0), LENGTH), np.zeros((64, 64), bool), drawn(64, 0.5, (0.02, 0.0), LENGTH, seed + 1))
        assert found.turn == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("corners", [0, 4, 6])
def test_a_part_that_looks_the_same_in_many_poses_is_turned_least(corners: int) -> None:
    """A disc, a square and a hexagon; the second lies three degrees from the first."""
    rows, columns = np.indices((64, 64)) - 31.5

    def part(turn: float, seed: int) -> np.ndarray:
        angle = np.arctan2(rows, columns) - turn
        apothem = np.cos((angle % (2 * np.pi / corners)) - np.pi / corners) if corners else 1.0
        solid = 170 * (np.hypot(rows, columns) * apothem < 20)
        noisy = solid + np.random.default_rng(seed).normal(40, 5, (64, 64))
        return np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, 2)

    for seed in range(5):
        found = register(part(0.0, seed), np.zeros((64, 64), bool), part(math.radians(3), seed + 50))
        assert abs(found.turn) < math.radians(8)


def test_a_large_bright_defect_pulls_the_pose_nowhere() -> None:
    for corner in ((slice(0, 24), slice(0, 24)), (slice(40, 64), slice(0, 24)), (slice(0, 24), slice(40, 64))):
        picture, defect = drawn(64, 0.0, (0.0, 0.0)), np.zeros((64, 64), bool)
        defect[corner] = True
        picture[defect] = 255
        found = register(picture, defect, drawn(64, 0.4, (0.03, 0.0), seed=1))
        assert found.turn == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("product", ["capsule", "connector"])
def test_the_demos_parts_are_found_in_their_own_poses(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawing code says how each part lies. A capsule's halves differ in colour alone: none may be taken for the other."""
    poses: list[products.Pose] = []
    drawn_pose = products.Pose.drawn.__func__

    def listed(cls: type, *numbers: object) -> products.Pose:
        poses.append(drawn_pose(cls, *numbers))
        return poses[-1]

    monkeypatch.setattr(products.Pose, "drawn", classmethod(listed))
    pictures = [products.draw(products.DEMO[product], np.random.default_rng(seed), 64)[0] for seed in range(13)]
    errors = []
    for k in range(12):
        found = register(pictures[k], np.zeros((64, 64), bool), pictures[k + 1])
        turn = poses[k].angle - poses[k + 1].angle  # from x to y there, from rows to columns here
        errors.append(abs(math.remainder(found.turn - turn, 2 * math.pi)))
    assert np.median(errors) < math.radians(4)
    assert max(errors) < math.radians(45)


def test_another_part_and_an_empty_picture_are_not_like() -> None:
    nothing, part = np.zeros((64, 64), bool), drawn(64, 0.0, (0.0, 0.0))
    assert register(part, nothing, drawn(64, 0.0, (0.0, 0.0), [])).likeness < 0.3
    assert register(part, nothing, np.full_like(part, 128)).likeness == 0
    rings = np.hypot(*(np.indices((64, 64)) - 31.5))
    assert register(part, nothing, np.repeat((127 + 127 * np.cos(rings)).astype(np.uint8)[..., None], 3, 2)).likeness < 0.6
