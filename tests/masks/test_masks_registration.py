"""How a part lies in one picture against another: pictures drawn at known poses, and what the search finds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cadiff.data.drawing import products
from cadiff.masks.registration import register
from cadiff.masks.shapes import Transform, apply_transform

# Of an L with a knob, in shares of the side from its middle (across, down): a centre and half an extent.
BARS = [((-0.1, 0.0), (0.06, 0.26)), ((0.05, 0.2), (0.2, 0.06)), ((0.15, -0.1), (0.05, 0.05))]
LENGTH = [((0.0, 0.0), (0.3, 0.08))]


def drawn(side: int, turn: float, shift: tuple[float, float], bars=BARS, seed: int = 0) -> np.ndarray:
    """The part turned and then shifted (rows, columns), each pixel the mean of 16 points of it, on a noisy ground."""
    axis = (np.arange(4 * side) + 0.5) / (4 * side) - 0.5
    down, across = np.meshgrid(axis - shift[0], axis - shift[1], indexing="ij")
    own_down = math.cos(turn) * down + math.sin(turn) * across
    own_across = -math.sin(turn) * down + math.cos(turn) * across
    solid = np.zeros(down.shape)
    for k, ((x, y), (half_x, half_y)) in enumerate(bars):
        inside = (np.abs(own_across - x) < half_x) & (np.abs(own_down - y) < half_y)
        solid[inside] = 200 - 40 * k
    picture = solid.reshape(side, 4, side, 4).mean(axis=(1, 3)) + np.random.default_rng(seed).normal(30, 6, (side, side))
    return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


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
        moved = found.move(Transform(1.0, 0.0, False, places[0]), side)
        assert math.dist(moved.centre, places[1]) < 0.5 * max(1, side / 64)
    assert found.likeness > 0.9


def test_a_registered_mask_covers_what_its_exemplars_did() -> None:
    (across, down), (half_x, half_y) = BARS[2]
    side, turn, shift = 96, 0.5, (0.05, 0.04)
    axis = (np.arange(side) + 0.5) / side - 0.5
    knob = (np.abs(axis[:, None] - down) < half_y) & (np.abs(axis[None] - across) < half_x)
    onto = drawn(side, turn, shift)
    found = register(drawn(side, 0.0, (0.0, 0.0), seed=1), np.zeros((side, side), bool), onto)
    there = drawn(side, turn, shift, BARS[2:])[..., 0] > 100
    rows, columns = np.argwhere(knob).mean(axis=0)
    moved = apply_transform(knob, found.move(Transform(1.0, 0.0, False, (rows, columns)), side))
    assert (moved & there).sum() / (moved | there).sum() > 0.8


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
