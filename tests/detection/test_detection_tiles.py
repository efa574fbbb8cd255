"""Tiles: what they cover, that stitching leaves no seam, and which of them training draws; the view that they are cut from."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from cadiff.detection.tiles import View, cut, random_tile, smallest_side, stitched, tile_places
from cadiff.errors import UsageError
from cadiff.pictures import Picture
from cadiff.records import SampleRow
from cadiff.storage import read_image, write_image


@pytest.mark.parametrize("shape", [(64, 64), (64, 65), (100, 64), (64, 500), (301, 200), (257, 1260)])
@pytest.mark.parametrize("side", [32, 64])
def test_tiles_cover_all_and_overlap_by_a_quarter_as_few_as_can_be(shape: tuple[int, int], side: int) -> None:
    places = tile_places(shape, side)
    seen = np.zeros(shape, int)
    for row, column in places:
        assert cut(seen[..., None], (row, column), side).shape[:2] == (side, side)
        seen[row : row + side, column : column + side] += 1
    assert seen.min() >= 1
    for axis, length in enumerate(shape):
        along = sorted({place[axis] for place in places})
        assert (along[0], along[-1]) == (0, length - side)
        steps = [b - a for a, b in pairwise(along)]
        assert all(step <= side * 3 / 4 + 1 for step in steps)
        assert max(steps, default=0) - min(steps, default=0) <= 1, "evenly spread"
        if len(along) > 2:  # with one less the steps would be too long
            assert (length - side) / (len(along) - 2) > side * 3 / 4


def test_stitching_gives_back_what_each_tile_says_of_its_own_pixels() -> None:
    """A detector that looks at a pixel alone: the stitched map is that of the whole picture. One that says another number in each
    tile: no step between neighbours is larger than the ramp allows, where the plain mean would jump."""
    image = np.random.default_rng(0).integers(0, 256, (70, 131, 3), dtype=np.uint8)
    sizes = []

    def of_pixels(tiles: np.ndarray) -> np.ndarray:
        sizes.append(len(tiles))
        return tiles.mean(axis=3) / 255

    whole = stitched(image, 32, of_pixels, batch=4)
    assert whole.dtype == np.float32
    assert np.abs(whole - image.mean(axis=2) / 255).max() < 1e-6
    assert max(sizes) == 4
    assert sum(sizes) == len(tile_places((70, 131), 32))

    def of_columns(tiles: np.ndarray) -> np.ndarray:
        """Each tile says one number of all its pixels: the grey of its first."""
        return np.broadcast_to(tiles[:, :1, :1, 0] / 1.0, tiles.shape[:3])

    graded = np.zeros((32, 128, 3), np.uint8)
    graded[:] = np.where(np.arange(128) // 24 % 2, 255, 0)[None, :, None]
    smooth = stitched(graded, 32, of_columns, batch=8)
    assert smooth.max() - smooth.min() > 200, "the tiles differ"
    assert np.abs(np.diff(smooth, axis=1)).max() < 80


def test_a_picture_that_is_one_tile_is_seen_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = []
    found = stitched(image, 64, lambda tiles: seen.append(tiles) or np.zeros(tiles.shape[:3], np.float32), batch=1)
    assert np.array_equal(seen[0], image[None])
    assert found.shape == (64, 64)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    picture = Picture(image, image[..., 0] > 200)
    assert random_tile(picture, 64, generator) is picture
    assert torch.equal(generator.get_state(), before), "nothing is drawn"


def test_an_anomalys_tile_shows_some_of_it_wherever_it_lies() -> None:
    """Every place that shows a mask of one pixel is drawn, and no other; without a mask every place is."""
    image = np.arange(12 * 9, dtype=np.uint8).reshape(12, 9, 1).repeat(3, axis=2)
    for marked in ((0, 0), (11, 8), (5, 4), None):
        mask = np.zeros((12, 9), bool)
        if marked:
            mask[marked] = True
        expected = {
            (row, column) for row in range(12 - 4 + 1) for column in range(9 - 4 + 1)
            if marked is None or (row <= marked[0] < row + 4 and column <= marked[1] < column + 4)
        }  # fmt: skip
        drawn = set()
        for k in range(600):
            tile = random_tile(Picture(image, mask), 4, torch.Generator().manual_seed(k))
            row, column = divmod(int(tile.image[0, 0, 0]), 9)
            assert np.array_equal(tile.image, image[row : row + 4, column : column + 4])
            assert np.array_equal(tile.mask, mask[row : row + 4, column : column + 4])
            drawn.add((row, column))
        assert drawn == expected


def _row(path: Path, shape: tuple[int, int]) -> SampleRow:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    write_image(path, image)
    return SampleRow("x", "toy", "cube", None, "normal", str(path), None, shape[1], shape[0], "x")


def test_a_picture_is_seen_through_its_canvas(toy, tmp_path: Path) -> None:
    """At twice the canvas it has no more detail than the canvas; at the canvas it is the canvas's pixels."""
    row = _row(tmp_path / "a.png", (128, 200))
    at_canvas, twice = View(64, 64, 256), View(64, 128, 256)
    assert at_canvas.shape(row) == (64, 100)
    assert twice.shape(row) == (128, 200)
    assert np.array_equal(at_canvas.read(row).image, read_image(row.image_path, "RGB", (64, 100)))
    enlarged = twice.read(row).image.astype(float)
    assert enlarged.shape == (128, 200, 3)
    rough = np.abs(np.diff(enlarged, axis=0)).mean()
    assert rough < np.abs(np.diff(read_image(row.image_path).astype(float), axis=0)).mean() / 2
    assert View("native", "native", 256).shape(row) == (128, 200)
    assert View("native", 32, 256).shape(row) == (32, 50)
    params = toy.params.model_copy(update={"detector": toy.params.detector.model_copy(update={"size": 96, "tile": 64})})
    assert View.of(params) == View(32, 96, 64)
    assert View.of(toy.params) == View(32, 32, 256)


def test_the_tiles_side_fits_the_networks_or_says_what_to_set() -> None:
    view = View("native", "native", 256)
    assert [view.side(shorter) for shorter in (32, 63, 64, 250, 256, 5000)] == [32, 32, 64, 224, 256, 256]
    assert dataclasses.replace(view, tile=100).side(500) == 96
    assert smallest_side(view, [(300, 500), (200, 90), (256, 256)]) == 64
    with pytest.raises(UsageError, match=r"detector\.size: expected pictures of at least 32 px .* found 31 px; set detector\.size: 32"):
        view.side(31)
    assert View(16, 48, 256).square() == 32
    assert View("native", "native", 128).square() == 128
    with pytest.raises(UsageError, match="found 16 px"):
        View(16, 16, 256).square()
