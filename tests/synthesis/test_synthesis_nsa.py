"""Poisson blending against a sparse solver that shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from cadiff.errors import CADiffError
from cadiff.synthesis.nsa import blend, nsa


def _solved(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """One equation a pixel: the target on the border, the source's Laplacian inside."""
    height, width = target.shape[:2]
    matrix, right = lil_matrix((height * width, height * width)), np.zeros((height * width, 3))
    for y in range(height):
        for x in range(width):
            k = y * width + x
            if y in (0, height - 1) or x in (0, width - 1):
                matrix[k, k], right[k] = 1, target[y, x]
                continue
            matrix[k, k] = 4
            right[k] = 4 * source[y, x]
            for i, j in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                matrix[k, i * width + j] = -1
                right[k] -= source[i, j]
    return np.stack([spsolve(matrix.tocsr(), right[:, c]) for c in range(3)], axis=-1).reshape(height, width, 3)


@pytest.mark.parametrize("shape", [(3, 3), (3, 9), (12, 7)])
def test_blending_solves_poissons_equation(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    target, source = (rng.integers(0, 255, (*shape, 3)).astype(float) for _ in range(2))
    assert blend(target, source) == pytest.approx(_solved(target, source), abs=1e-8)


def test_a_patch_on_its_own_place_and_a_brighter_copy_change_nothing() -> None:
    image = np.random.default_rng(1).integers(0, 200, (9, 11, 3)).astype(float)
    assert blend(image, image) == pytest.approx(image, abs=1e-9)
    assert blend(image, image + 40) == pytest.approx(image, abs=1e-9), "light is the target's, structure the source's"


def test_normals_of_one_colour_are_refused() -> None:
    with pytest.raises(CADiffError, match="nsa: no patch"):
        nsa(np.full((2, 32, 32, 3), 128, np.uint8), seed=0)


def test_patches_are_of_another_image() -> None:
    """One of the two is of one colour: patched with its own colour, nothing would show."""
    grain = np.random.default_rng(0).integers(60, 200, (32, 32, 3), dtype=np.uint8)
    normals = np.stack([np.full_like(grain, 128), grain])
    for seed in range(20):
        image, mask = nsa(normals, seed)
        base = normals[0] if (image[~mask] == normals[0][~mask]).all() else normals[1]
        assert (image[~mask] == base[~mask]).all()
        assert (image[mask] != base[mask]).any()
