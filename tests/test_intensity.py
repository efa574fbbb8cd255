"""Eq. 11 against hand-worked cases."""

from __future__ import annotations

import torch

from cadiff.intensity import focus_degree, focus_side, mask_cells, reweight, strength, touched_cells


def test_masked_focus_multiplies_the_tokens_column_inside_the_mask_alone() -> None:
    maps = torch.rand(2, 3, 4, 5)
    inside = torch.tensor([[[True, False, False, True]], [[True, True, True, True]]])
    found = reweight(maps, torch.tensor([[2], [1]]), inside, torch.tensor([[1.5], [-2.0]]), torch.tensor([[True], [True]]))
    expected = maps.clone()
    expected[0, :, 0, 2] *= 1.5
    expected[0, :, 3, 2] *= 1.5
    expected[1, :, :, 1] *= -2
    assert torch.equal(found, expected)


def test_inactive_or_absent_types_change_nothing() -> None:
    maps, inside = torch.rand(1, 2, 4, 3), torch.ones(1, 2, 4, dtype=torch.bool)
    found = reweight(maps, torch.tensor([[1, -1]]), inside, torch.full((1, 2), 2.0), torch.tensor([[False, True]]))
    assert torch.equal(found, maps)


def test_several_types_have_their_own_mask_and_intensity() -> None:
    maps = torch.ones(1, 1, 2, 4)
    inside = torch.tensor([[[True, False], [False, True]]])
    found = reweight(maps, torch.tensor([[1, 3]]), inside, torch.tensor([[0.5, 1.5]]), torch.ones(1, 2, dtype=torch.bool))
    assert found[0, 0].tolist() == [[1, 0.5, 1, 1], [1, 1, 1, 1.5]]


def test_without_masked_focus_the_whole_map_is_multiplied() -> None:
    maps, inside = torch.ones(1, 1, 2, 2), torch.tensor([[[True, False]]])
    found = reweight(maps, torch.tensor([[0]]), inside, torch.tensor([[2.0]]), torch.tensor([[True]]), masked_focus=False)
    assert found[0, 0].tolist() == [[2, 1], [2, 1]]


def test_focus_degree_counts_the_masks_cells_above_the_maps_mean() -> None:
    attention = torch.tensor([[[0.9, 0.8, 0.1, 0.0]], [[0.1, 0.1, 0.1, 0.9]]])
    inside = torch.tensor([[[True, True, True, False]], [[False, False, False, False]]])
    assert torch.allclose(focus_degree(attention, inside), torch.tensor([[2 / 3], [0.0]]))


def test_focus_is_read_at_16_for_stable_diffusion_and_never_below_8() -> None:
    assert [focus_side(side) for side in (96, 64, 32, 24, 20, 16, 12, 8)] == [24, 16, 8, 12, 10, 8, 12, 8]


def test_a_mask_that_would_vanish_keeps_its_strongest_cell_and_an_empty_one_stays_empty() -> None:
    masks = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    masks[0, 0, 5, 2] = True
    masks[0, 1, :4, :4] = True
    cells = mask_cells(masks, 2)
    assert cells[0].tolist() == [[False, False, True, False], [True, False, False, False], [False] * 4]


def test_attention_is_multiplied_wherever_a_mask_reaches() -> None:
    """A line one pixel wide through 4 x 4 cells of 2 x 2 pixels: one cell in each row of them, two where it crosses over."""
    mask = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    mask[0, 0, range(8), [0, 0, 1, 2, 2, 2, 3, 3]] = True
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    cells = touched_cells(mask, 4)
    assert cells[0, 0].view(4, 4).int().tolist() == expected
    assert not cells[0, 1].any(), "an empty mask reaches nowhere"


def test_attention_outside_of_the_mask_may_be_zero() -> None:
    """A' = w M A, cell by cell; of a type that does not act, and of other words, nothing changes."""
    maps = torch.rand(2, 2, 4, 3)
    inside = torch.tensor([[[True, False, False, True]], [[True, True, False, False]]])
    active = torch.tensor([[True], [False]])
    found = reweight(maps, torch.tensor([[1], [2]]), inside, torch.tensor([[1.5], [0.5]]), active, outside="zero")
    expected = maps.clone()
    expected[0, :, :, 1] *= torch.tensor([1.5, 0, 0, 1.5])
    assert torch.equal(found, expected)
    whole = reweight(maps, torch.tensor([[1], [2]]), inside, torch.tensor([[1.5], [0.5]]), active, masked_focus=False, outside="zero")
    assert torch.equal(whole[0, :, :, 1], 1.5 * maps[0, :, :, 1]), "without a mask there is no outside"


def test_the_bare_norm_is_the_masks_number_of_cells() -> None:
    inside = torch.tensor([[[True, True, True, False], [False, True, False, False]]])
    weights = torch.tensor([[0.5, -2.0]])
    assert strength(weights, inside, "cells").tolist() == [[1.5, -2.0]]
    assert torch.equal(strength(weights, inside), weights)
