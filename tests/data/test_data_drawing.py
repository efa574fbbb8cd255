"""Drawn pictures: exact masks, seeds, every kind of defect on every product."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cadiff.data.drawing.defects import DEFECTS
from cadiff.data.drawing.products import DEMO, draw, random_product
from cadiff.pretraining.stream import picture


@pytest.mark.parametrize("name", DEMO)
def test_every_demo_type_leaves_a_mark_of_its_own(name: str) -> None:
    for kind in DEMO[name].kinds:
        image, mask = draw(DEMO[name], np.random.default_rng(0), 64, kind)
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        assert 0.002 < mask.mean() < 0.4
        assert not mask.all()


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
        a, _ = develop(good, light, np.random.default_rng(seed))
        b, mask = develop(bad, light, np.random.default_rng(seed))
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
        a, _ = develop(good, light, np.random.default_rng(seed))
        b, mask = develop(bad, light, np.random.default_rng(seed))
        assert np.array_equal(good.height[~good.silhouette], bad.height[~good.silhouette])
        assert np.array_equal(good.gloss[~good.silhouette], bad.gloss[~good.silhouette])
        beyond.append(int((np.abs(a.astype(float) - b).mean(-1) > 15)[~ndimage.binary_dilation(mask, iterations=2)].sum()))
    assert max(beyond) <= 5, beyond


def test_picture_k_is_the_same_whenever_it_is_drawn() -> None:
    one, again, other = picture(0, 7, 64), picture(0, 7, 64), picture(1, 7, 64)
    assert np.array_equal(one.image, again.image)
    assert (one.product, one.defect) == (again.product, again.defect)
    assert not np.array_equal(one.image, other.image)
