"""Masks that are boxes: what `inspect` says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cadiff.data.inspect import inspect_root
from cadiff.storage import write_image

SIDE = 64


def plate(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(120, 4, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)


def draw(root: Path, kind: str) -> Path:
    """Nine scratches of 24 px, or stamped rectangles; their masks are rectangles of 35x32, or the scratches themselves."""
    for index in range(6):
        write_image(root / "part/train/good" / f"{index}.png", plate(index))
    for index in range(9):
        image, mask = plate(100 + index), np.zeros((SIDE, SIDE), np.uint8)
        if kind != "drawn":
            mask[15:50, 14:46] = 255
        if kind == "stamped":
            image[15:50, 14:46] = 20
        for step in range(24 if kind != "stamped" else 0):
            image[20 + step, 18 + step] = 250
            if kind == "drawn":
                mask[20 + step, 18 + step] = 255
        write_image(root / "part/test/scratch" / f"{index}.png", image)
        write_image(root / "part/ground_truth/scratch" / f"{index}_mask.png", mask)
    return root


def test_loose_boxes_as_masks_are_remarked_and_the_product_runs_all_the_same(tmp_path: Path) -> None:
    found = inspect_root(draw(tmp_path, "boxed"), base=16)
    assert not found.problems
    assert "scratch: the masks are filled rectangles, in which 2 % of the pixels differ from the normals" in found.text()


@pytest.mark.parametrize("kind", ["drawn", "stamped"])
def test_masks_that_fit_are_not_remarked(kind: str, tmp_path: Path) -> None:
    assert "filled rectangles" not in inspect_root(draw(tmp_path, kind), base=16).text()
