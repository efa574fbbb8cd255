"""The measures of control, intensity and tokens on cases that are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cadiff.metrics.control import attention_figures, change, control_figures, grown, intensity_figures, separation


def square(*places: tuple[int, int], side: int = 4, size: int = 16) -> np.ndarray:
    masks = np.zeros((len(places), size, size), bool)
    for mask, (y, x) in zip(masks, places, strict=True):
        mask[y : y + side, x : x + side] = True
    return masks


def test_change_is_the_mean_over_channels_in_shares_of_the_range() -> None:
    black = np.zeros((1, 2, 2, 3), np.uint8)
    lit = black.copy()
    lit[0, 0, 0] = (255, 0, 51)
    assert change(lit, black)[0].tolist() == [[pytest.approx(0.4), 0], [0, 0]]
    assert np.array_equal(change(black, lit), change(lit, black)), "no wrap-around of unsigned pixels"


def test_a_mask_grows_by_a_square_and_stops_at_the_border() -> None:
    masks = square((0, 6), side=2)
    assert grown(masks, 1)[0].sum() == 3 * 4
    assert grown(masks, 0) is masks


def test_change_that_fills_the_mask_alone_is_perfect_control() -> None:
    masks = square((4, 4), (8, 2))
    found = control_figures(masks * 0.5, masks, margin=1)
    assert found == {"inside_share": 1, "chance": pytest.approx(36 / 256), "missing_rate": 0, "leakage_rate": 0}


def test_missing_leaking_and_spilling_over_the_edge_are_told_apart() -> None:
    masks = square((4, 4), (4, 4), (4, 4), (4, 4))
    changed = np.zeros(masks.shape)
    changed[0, 4, 4:7] = 0.5  # 3 of 16 pixels: missing
    changed[1] = masks[1] * 0.5
    changed[1, 12, 0:5] = 0.5  # 5 pixels far away are more than a quarter of 16: leaking
    changed[2] = grown(masks[2:3], 1)[0] * 0.5  # within a latent cell of the mask: fine
    changed[3] = masks[3] * 0.05  # faint: invisible, so missing
    found = control_figures(changed, masks, margin=1)
    assert (found["missing_rate"], found["leakage_rate"]) == (0.5, 0.25)
    assert found["inside_share"] == pytest.approx((1 + 16 / 21 + 1 + 1) / 4)


def test_an_even_change_has_the_share_of_chance() -> None:
    masks = square((0, 0), (6, 6))
    found = control_figures(np.ones(masks.shape), masks, margin=0)
    assert found["inside_share"] == pytest.approx(found["chance"])
    assert control_figures(np.zeros(masks.shape), masks, margin=0)["inside_share"] == 0, "nothing was drawn at all"


def test_contrast_over_intensity() -> None:
    masks = square((4, 4), (8, 8))
    by_weight = {w: masks * np.array([0.1 * w, 0.3 * w])[:, None, None] for w in (0.5, 1.0, 1.5)}
    by_weight[1.5][1] *= 0.1  # the second image falls at the last step; the mean falls with it
    moved = {w: np.full(masks.shape, 0.01 * abs(w - 1)) for w in by_weight}
    found = intensity_figures(by_weight, moved, masks, margin=1)
    assert found["contrast@1"] == pytest.approx(0.2)
    assert found["contrast@1.5"] == pytest.approx((0.15 + 0.045) / 2)
    assert (found["rising"], found["monotone"]) == (0.75, 0)
    assert found["outside"] == pytest.approx(0.005)
    assert found["outside_max"] == pytest.approx(0.005)
    straight = intensity_figures({w: masks * 0.2 * w for w in (0.5, 1.0, 1.5)}, moved, masks, margin=1)
    assert (straight["monotone"], straight["slope"]) == (1, pytest.approx(0.2))


def test_separation_is_the_mean_cosine_of_pairs() -> None:
    vectors, concepts = np.array([[1.0, 0], [2, 0], [0, 3], [1, 1]]), np.array([0, 0, 1, 1])
    found = separation(vectors, concepts)
    half = 2**-0.5
    assert found["within"] == pytest.approx((1 + half) / 2)
    assert found["across"] == pytest.approx((0 + half + 0 + half) / 4)
    assert np.isnan(separation(vectors[:1], concepts[:1])["within"])


def test_attention_on_and_off_its_mask() -> None:
    masks = np.zeros((3, 8), bool)
    masks[0, :2] = masks[1, :2] = True  # the third is empty and does not count
    maps = np.zeros((3, 8))
    maps[0, :2] = 1
    maps[1, 1:3] = 1
    found = attention_figures(maps, masks)
    assert found["iou"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["auroc"] == pytest.approx((1 + (1 * 5 + 0.5 * 1 + 0 + 0.5 * 5) / 12) / 2)
    assert np.isnan(attention_figures(maps[2:], masks[2:])["iou"])
