"""Masks placed by what surrounds them, on pictures of which the right places are known."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from masks_files import save
from parameters import bare
from parts import BARS, drawn, place_of
from scipy import ndimage
from skimage.draw import disk

from cadiff.masks.context import BEYOND, Ground, Ring, distances
from cadiff.masks.make import ANYWHERE, BY_CONTEXT, IN_PLACE, Placer
from cadiff.pictures import canvas_of
from cadiff.records import SampleRow
from cadiff.task import Task

SIDE = 96
CORNER = (-0.1, 0.2)  # of the L (across, down)


def placer_of(rows: list[SampleRow], size: int | str = SIDE, **masks) -> Placer:
    values = {"products": {"bar": {}}, "base": {"size": 16}, "dataset": {"size": size}, "masks": masks}
    return Placer(Task(bare(**values).for_product("bar"), "bar", samples=rows))


def texture(seed: int, shape: tuple[int, int] = (SIDE, SIDE), level: float = 128) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (*shape, 3)), (1.5, 1.5, 0))
    return (level + 12 * noise / noise.std()).clip(0, 255).astype(np.uint8)


def dot(row: float, column: float, radius: float, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[disk((row, column), radius, shape=shape)] = True
    return mask


def spoilt(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], np.uint8(255), image)


def test_a_distance_is_the_difference_over_the_ring():
    """Pixel by pixel, at places inside, at a border and where some of the ring lies beyond it."""
    mask, ground = dot(40, 50, 6), Ground.of(texture(0))
    ring = Ring.around(ground, mask, (40.0, 50.0))
    other = Ground.of(texture(1, (80, 110)))
    found = distances(other, [ring.moved(1.0, 0.0, False)])[0]
    assert found.shape == (80, 110)
    weight = ring.within
    for row, column in ((40, 55), (12, 90), (0, 3), (79, 109)):
        total = 0.0
        for r, c in np.argwhere(weight > 0):
            own = (int(r + row - ring.centroid[0]), int(c + column - ring.centroid[1]))
            inside = 0 <= own[0] < 80 and 0 <= own[1] < 110
            total += weight[r, c] * (((ring.lab[r, c] - other.lab[own]) ** 2).sum() if inside else BEYOND**2)
        assert found[row, column] == pytest.approx(math.sqrt(total / weight.sum()), rel=1e-3)


def test_flipped_kernels_are_those_of_other_turns():
    ring = Ring.around(Ground.of(texture(0)), dot(40, 50, 6) | dot(44, 58, 4), (42.3, 54.6))
    for one, other in (
        (ring.moved(1.0, 0.5, False).flipped(0, 1), ring.moved(1.0, 0.5 + math.pi, False)),
        (ring.moved(1.0, 0.5, False).flipped(1), ring.moved(1.0, -0.5, True)),
    ):
        # either grid starts at another corner: the places that they tell of are up to a px apart
        of_one, of_other = (
            ndimage.shift(distances(Ground.of(texture(1)), [k])[0], np.array(k.anchor) - k.pixel, order=3)[20:76, 20:76]
            for k in (one, other)
        )
        assert np.abs(of_one - of_other).max() < 0.05 * of_one.mean()


@pytest.mark.parametrize("quarter", range(4))
def test_quarter_turns_resample_nothing(quarter: int):
    """So a ring that a border cut is at no distance from its own picture, turned."""
    picture, mask = texture(0), dot(0, 50, 8)
    centroid = ndimage.center_of_mass(mask)
    ring = Ring.around(Ground.of(picture), mask, centroid)
    kernel = ring.moved(1.0, quarter * math.pi / 2, False)
    ground = Ground.of(np.rot90(picture, quarter).copy())
    found = distances(ground, [kernel])[0]
    assert found.min() < 0.1
    turned = ndimage.center_of_mass(np.rot90(mask, quarter))
    at = np.array(np.unravel_index(found.argmin(), found.shape)) + np.array(kernel.anchor) - kernel.pixel
    assert at == pytest.approx(turned, abs=1e-3)


def test_a_mask_lies_on_the_part_where_its_exemplars_do(tmp_path: Path):
    """At the corner of a part in twelve poses, within 2 px, whatever the pose of the exemplar's picture."""
    rng = np.random.default_rng(0)
    poses = [(rng.uniform(-3, 3), (rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06))) for _ in range(15)]
    rows, there = [], {}
    for k, pose in enumerate(poses):
        image = drawn(SIDE, *pose, seed=k)
        there[f"bar/p/{k}"] = np.array(place_of(CORNER, SIDE, *pose))
        mask = dot(*there[f"bar/p/{k}"], 7) if k < 3 else None
        rows.append(save(tmp_path / "p" / f"{k}.png", image if mask is None else spoilt(image, mask), mask, "dent" if k < 3 else None))
    placer = placer_of(rows)
    off = []
    for k in range(24):
        placed = placer.place("dent", (0, "m", k))
        assert placed.source == BY_CONTEXT
        assert placed.picture == placed.normal
        off.append(np.linalg.norm(ndimage.center_of_mass(placed.mask) - there[placed.picture.sample_id]))
    assert np.quantile(off, 0.9) < 2
    assert max(off) < 4
    apart = placer_of(rows, placement="anywhere").place("dent", (0, "m", 1))
    assert apart.source == ANYWHERE


def test_what_is_missing_is_missing_where_it_was(tmp_path: Path):
    """The part without its knob: around the place there is only backdrop, as in most of each picture."""
    poses = [(0.2 * k, (0.01 * k, -0.02)) for k in range(8)]
    rows, there = [], {}
    for k, pose in enumerate(poses):
        there[f"bar/p/{k}"] = np.array(place_of(BARS[2][0], SIDE, *pose))
        mask = dot(*there[f"bar/p/{k}"], 8) if k < 2 else None
        image = drawn(SIDE, *pose, BARS[:2] if k < 2 else BARS, seed=k)
        rows.append(save(tmp_path / "p" / f"{k}.png", image, mask, "missing" if k < 2 else None))
    placer = placer_of(rows)
    made = [placer.place("missing", (0, "m", k)) for k in range(16)]
    off = [np.linalg.norm(ndimage.center_of_mass(p.mask) - there[p.picture.sample_id]) for p in made if p.source == BY_CONTEXT]
    assert len(off) > 12
    assert max(off) < 4


def test_on_a_texture_places_spread_over_the_whole_picture(tmp_path: Path):
    masks = [dot(48, 48, 5), dot(46, 50, 6), dot(50, 47, 4)]
    rows = [save(tmp_path / "e" / f"{k}.png", spoilt(texture(k), m), m, "spot") for k, m in enumerate(masks)]
    rows += [save(tmp_path / "n" / f"{k}.png", texture(10 + k, (SIDE, 130))) for k in range(4)]
    placer = placer_of(rows)
    made = [placer.place("spot", (0, "m", k)) for k in range(80)]
    assert Counter(p.source for p in made)[BY_CONTEXT] > 70
    centres = np.array([p.movement.centre for p in made if p.movement])
    cells = Counter(map(tuple, (centres * 3).astype(int).clip(0, 2)))
    assert len(cells) == 9
    assert max(cells.values()) < 0.35 * len(centres)
    assert len({round(p.movement.turn, 1) for p in made if p.movement}) > 20


def test_what_a_border_cut_goes_to_a_border_and_what_none_cut_to_none(tmp_path: Path):
    cut, inner = dot(0, 40, 9), dot(50, 48, 7)
    rows = [save(tmp_path / kind / "0.png", spoilt(texture(0), m), m, kind) for kind, m in (("cut", cut), ("inner", inner))]
    rows += [save(tmp_path / "n" / f"{k}.png", texture(10 + k)) for k in range(4)]
    placer = placer_of(rows)
    for k in range(20):
        for kind in ("cut", "inner"):
            placed = placer.place(kind, (0, kind, k))
            border = np.concatenate([placed.mask[0], placed.mask[-1], placed.mask[:, 0], placed.mask[:, -1]])
            assert border.any() == (kind == "cut")


def test_where_nothing_matches_a_mask_stays_in_its_picture(tmp_path: Path):
    """Its exemplar lies on bars, and no normal shows any."""
    mask, bars = dot(48, 48, 6), np.zeros((SIDE, SIDE, 3), np.uint8)
    bars[::8] = 255
    striped = save(tmp_path / "e" / "0.png", spoilt(bars, mask), mask, "spot")
    rows = [striped, *(save(tmp_path / "n" / f"{k}.png", texture(10 + k)) for k in range(3))]
    placer = placer_of(rows)
    placed = placer.place("spot", (0, "m", 0))
    assert placed.source == IN_PLACE
    assert placed.picture == striped
    assert placed.normal.role == "normal"
    assert placed.movement is None
    assert np.array_equal(placed.mask, mask)
    assert "1 of 1 found no place" in str(placer.of_type("spot").lacking(1 / 3))
    seen = placer.place("spot", (0, "m", 0), normal=rows[1], moved=True)
    assert (seen.source, seen.picture) == (BY_CONTEXT, rows[1])
    assert seen.mask.any()


def test_a_type_that_is_the_whole_product_is_free(tmp_path: Path):
    rows = []
    for k in range(5):
        image = np.full((SIDE, SIDE, 3), 30, np.uint8)
        image[30:70, 25 + k : 75 + k] = 200
        mask = (image[..., 0] == 200) if k < 2 else None
        rows.append(save(tmp_path / "w" / f"{k}.png", image, mask, "wrong" if k < 2 else None))
    assert placer_of(rows).place("wrong", (0, "m", 0)).source == ANYWHERE


def test_a_single_pixel_finds_a_place_at_every_canvas(tmp_path: Path):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[40, 51] = True
    rows = [save(tmp_path / "e" / "0.png", spoilt(texture(0), mask), mask, "pore")]
    rows += [save(tmp_path / "n" / f"{k}.png", texture(10 + k)) for k in range(3)]
    for size in (32, SIDE, 300):
        placer = placer_of(rows, size)
        for k in range(10):
            placed = placer.place("pore", (0, "m", k))
            assert placed.mask.shape == (size, size)
            assert 1 <= placed.mask.sum() <= 4 * max(1, size // SIDE + 1) ** 2


def test_another_picture_than_the_products_takes_masks_too(tmp_path: Path):
    masks = [dot(48, 48, 5), dot(46, 50, 6)]
    rows = [save(tmp_path / "e" / f"{k}.png", spoilt(texture(k), m), m, "spot") for k, m in enumerate(masks)]
    rows += [save(tmp_path / "n" / f"{k}.png", texture(10 + k)) for k in range(3)]
    own = replace(save(tmp_path / "own.png", texture(20, (200, 150))), sample_id="own")
    for size in (64, "native"):
        placed = placer_of(rows, size).place("spot", (0, "m", 0), normal=own, moved=True)
        assert placed.picture == own
        assert placed.mask.shape == canvas_of(own, size)
        assert placed.mask.any()


def test_placing_costs_no_more_at_a_large_canvas(tmp_path: Path):
    """Once the pictures have been read: the same search, and a mask of as many px moved."""

    def cost(side: int) -> float:
        rows = []
        for k in range(3):
            image = np.kron(texture(k), np.ones((side // SIDE, side // SIDE, 1), np.uint8))
            mask = dot(side // 2, side // 2, 24, image.shape[:2]) if k == 0 else None
            rows.append(save(tmp_path / str(side) / f"{k}.png", image, mask, "spot" if k == 0 else None))
        placer = placer_of(rows, "native")
        draw: Callable[[int], object] = lambda k: placer.place("spot", (0, "m", k), normal=rows[1], moved=True)  # noqa: E731
        times = []
        for k in range(8):
            start = time.perf_counter()
            draw(k)
            times.append(time.perf_counter() - start)
        return float(np.median(times[2:]))

    assert cost(40 * SIDE) < 3 * cost(4 * SIDE)
