"""Drawn pictures: exact masks, seeds, every kind of defect on every product."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cadiff.data.demo import draw_product
from cadiff.data.drawing.defects import DEFECTS
from cadiff.data.drawing.products import DEMO, draw, random_product
from cadiff.params import DrawParams
from cadiff.pretraining.stream import picture
from cadiff.storage import read_image


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("name", DEMO)
def test_every_demo_type_leaves_a_mark_of_its_own(name: str, side: int) -> None:
    for kind in DEMO[name].kinds:
        image, mask = draw(DEMO[name], np.random.default_rng(0), side, kind)
        assert image.shape == (side, side, 3)
        assert image.dtype == np.uint8
        assert (0.002 if side == 64 else 0.0004) < mask.mean() < 0.4


def test_the_demo_is_drawn_at_its_side(tmp_path: Path) -> None:
    draw_product(DrawParams(normals=1, test_good=0, anomalies_per_type=3), "fabric", 0, tmp_path / "a")
    draw_product(DrawParams(normals=2, test_good=0, anomalies_per_type=3), "fabric", 0, tmp_path / "b", side=48)
    for folder, side in (("a", 256), ("b", 48)):
        assert {read_image(path).shape for path in (tmp_path / folder).rglob("*.png")} == {(side, side, 3)}


def test_a_larger_picture_shows_what_a_small_one_cannot() -> None:
    """Good parts at 256 px are alike in colour to those at 64 px, and their edges are steeper than an enlargement's."""
    steady = dataclasses.replace(DEMO["capsule"], vary=0.0)  # one light for all
    large, small = (np.stack([draw(steady, np.random.default_rng(seed), side)[0] for seed in range(8)]).astype(float) for side in (256, 64))
    assert large.mean((0, 1, 2)) == pytest.approx(small.mean((0, 1, 2)), abs=4)
    enlarged = ndimage.zoom(small, (1, 4, 4, 1), order=1)
    steepest = [np.abs(np.diff(pictures.mean(-1), axis=2)).max() for pictures in (large, enlarged)]
    assert steepest[0] > 1.5 * steepest[1]


@pytest.mark.parametrize("name", DEMO)
def test_a_large_pictures_grain_is_no_noise_alone_and_no_enlargement(name: str) -> None:
    """What lies between 2 and 4 px, 4 and 8, 8 and 16: each octave has its share, the finest the least of a photograph's."""
    picture = draw(DEMO[name], np.random.default_rng(1), 256)[0].astype(float).mean(-1)
    blurred = [picture] + [ndimage.gaussian_filter(picture, sigma) for sigma in (0.8, 1.6, 3.2)]
    octaves = [np.std(fine - coarse) for fine, coarse in pairwise(blurred)]
    assert octaves[0] > 0.6, "of 255: nothing as fine as a pixel is an enlargement"
    assert octaves[0] < octaves[1] + octaves[2], "all of it as fine as a pixel is noise"


def test_defects_are_drawn_thinner_where_there_are_more_pixels() -> None:
    """Twice the largest distance to the outside, in px of the picture's own: the thinnest scratch of 2 to 4 px."""
    widths = []
    for seed in range(24):
        _, mask = draw(DEMO["nut"], np.random.default_rng(seed), 256, "scratch")
        widths.append(2 * ndimage.distance_transform_edt(mask).max())
    assert 2 <= min(widths) <= 4.5
    assert max(widths) > 8


def test_good_parts_have_no_mask_and_vary() -> None:
    rng = np.random.default_rng(0)
    first, second = draw(DEMO["nut"], rng, 64), draw(DEMO["nut"], rng, 64)
    assert not first[1].any()
    assert np.abs(first[0].astype(int) - second[0]).mean() > 3


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_changes_its_mask_more_than_the_rest(kind: str) -> None:
    """The same scene with and without the defect: what changed lies inside the mask."""
    from cadiff.data.drawing.scene import Light, develop

    inside = outside = 0.0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        product = random_product(rng)
        good = product.build(np.random.default_rng(seed), 128)
        bad = product.build(np.random.default_rng(seed), 128)
        DEFECTS[kind](bad, rng)
        light = Light.drawn(np.random.default_rng(seed))
        a, _ = develop(good, light, np.random.default_rng(seed), 2)
        b, mask = develop(bad, light, np.random.default_rng(seed), 2)
        if mask.any():
            change = np.abs(a.astype(float) - b).mean(-1)
            inside, outside = inside + change[mask].mean(), outside + change[~mask].mean()
    assert inside > 8 * outside


@pytest.mark.parametrize("kind", ["dent", "bubble"])
def test_a_defect_at_the_edge_changes_nothing_beyond_the_object(kind: str) -> None:
    """The bench behind keeps its height and gloss; only a shadow or a highlight's blur may reach a few pixels beyond the mask."""
    from cadiff.data.drawing.scene import Light, develop

    beyond = []
    for seed in range(24):
        good, bad = (DEMO["capsule"].build(np.random.default_rng(seed), 64) for _ in range(2))
        DEFECTS[kind](bad, np.random.default_rng(seed))
        light = Light.drawn(np.random.default_rng(seed))
        a, _ = develop(good, light, np.random.default_rng(seed), 2)
        b, mask = develop(bad, light, np.random.default_rng(seed), 2)
        assert np.array_equal(good.height[~good.silhouette], bad.height[~good.silhouette])
        assert np.array_equal(good.gloss[~good.silhouette], bad.gloss[~good.silhouette])
        beyond.append(int((np.abs(a.astype(float) - b).mean(-1) > 15)[~ndimage.binary_dilation(mask, iterations=2)].sum()))
    assert max(beyond) <= 5, beyond


def test_picture_k_is_the_same_whenever_it_is_drawn() -> None:
    one, again, other = picture(0, 7, 64), picture(0, 7, 64), picture(1, 7, 64)
    assert np.array_equal(one.image, again.image)
    assert (one.product, one.defect) == (again.product, again.defect)
    assert not np.array_equal(one.image, other.image)
