"""Poisson blending against a sparse solver that shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from cadiff.errors import CADiffError
from cadiff.synthesis.nsa import blend, nsa, on_object


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
        nsa([np.full((32, 32, 3), 128, np.uint8)] * 2, seed=0)


def test_patches_are_of_another_image_of_another_shape_too() -> None:
    """One of the two is of one colour: patched with its own colour, nothing would show."""
    normals = [np.full((40, 24, 3), 128, np.uint8), np.random.default_rng(0).integers(60, 200, (32, 64, 3), dtype=np.uint8)]
    for seed in range(20):
        image, mask, which = nsa(normals, seed)
        base = normals[which]
        assert image.shape == base.shape
        assert (image[~mask] == base[~mask]).all()
        assert (image[mask] != base[mask]).any()


def test_the_product_is_found_alike_at_any_size() -> None:
    """A bright part on a dark backdrop: what is found in a picture of 4 times the side is the same, 4 times as large."""
    image = np.full((96, 144, 3), 20, np.uint8)
    image[30:70, 40:110] = (200, 190, 180)
    small = on_object(image)
    large = on_object(np.kron(image, np.ones((4, 4, 1), np.uint8)))
    assert large.shape == (384, 576)
    assert (large[2::4, 2::4] == small).mean() > 0.98
    assert small[35:65, 45:105].all()
    assert not small[:20].any()
