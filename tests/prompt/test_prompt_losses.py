"""Eq. 5-7 against small calculations in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cadiff.prompt import contrastive_loss, localizing_loss
from cadiff.prompt.losses import masks_at


def test_localizing_loss_is_the_mean_squared_error_per_token_summed_over_layers() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((2, 3, 8, 8)) > 0.5
    layers = [rng.random((2, 4, side * side, 7)) for side in (4, 2)]
    positions = np.array([[1, 3, -1], [5, 2, 6]])
    expected = 0.0
    for maps, side in zip(layers, (4, 2), strict=True):
        shrunk = masks.reshape(2, 3, side, 8 // side, side, 8 // side).mean((3, 5)).reshape(2, 3, -1)
        errors = [
            np.mean((maps[b].mean(0)[:, positions[b, c]] - shrunk[b, c]) ** 2)
            for b in range(2) for c in range(3) if positions[b, c] >= 0
        ]  # fmt: skip
        expected += np.mean(errors)
    found = localizing_loss([torch.tensor(m) for m in layers], torch.tensor(positions), torch.tensor(masks))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_balanced_localizing_loss_weighs_inside_and_outside_alike() -> None:
    masks = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    masks[0, 0, 0, 0] = True
    silent = torch.zeros(1, 1, 16, 2)  # all of the one inside cell is missed, nothing outside is wrong
    assert localizing_loss([silent], torch.tensor([[1]]), masks, balanced=True).item() == pytest.approx(0.5)
    assert localizing_loss([silent], torch.tensor([[1]]), masks).item() == pytest.approx(1 / 16)


def test_a_perfect_map_costs_nothing_and_errors_of_opposite_sign_do_not_cancel() -> None:
    masks = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    masks[0, 0], masks[0, 1, 0] = True, True
    maps = torch.zeros(1, 1, 4, 3)
    maps[0, 0, :, 0] = 1.0
    maps[0, 0, :2, 2] = 1.0
    assert localizing_loss([maps], torch.tensor([[0, 2]]), masks).item() == 0
    swapped = localizing_loss([1 - maps], torch.tensor([[0, 2]]), masks)
    assert swapped.item() == pytest.approx(1.0)


def test_contrastive_loss_is_nt_xent() -> None:
    rng = np.random.default_rng(1)
    vectors, concepts, temperature = rng.normal(size=(6, 5)), np.array([0, 1, 0, 1, 2, 0]), 0.3
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = np.exp(unit @ unit.T / temperature)
    terms = [
        -np.log(similarity[i, j] / sum(similarity[i, k] for k in range(6) if k != i))
        for i in range(6) for j in range(6) if i != j and concepts[i] == concepts[j]
    ]  # fmt: skip
    arguments = torch.tensor(vectors), torch.tensor(concepts), temperature
    assert contrastive_loss(*arguments, "pairs").item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert len(terms) == 3 * 2 + 2 * 1
    assert contrastive_loss(*arguments, "vectors").item() == pytest.approx(np.sum(terms) / 6, rel=1e-5), "Eq. 7: 1/C 1/B of 6 vectors"


def test_contrastive_loss_without_positives_is_zero_and_differentiable() -> None:
    vectors = torch.randn(3, 4, requires_grad=True)
    loss = contrastive_loss(vectors, torch.tensor([0, 1, 2]), 0.1)
    loss.backward()
    assert loss.item() == 0


def test_masks_are_averaged_not_sampled() -> None:
    masks = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    masks[0, 0, 0, 1] = True
    assert masks_at(masks, 4)[0, 0, 0].item() == pytest.approx(0.25)
