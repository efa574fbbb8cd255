"""What counts as marked in a mask is decided on the file's own values, at its own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from data.conftest import picture, square
from PIL import Image
from scipy import ndimage

from cadiff.data import inspect_root
from cadiff.errors import CADiffError
from cadiff.storage import read_image, write_image

SIDE = 96


def soft() -> np.ndarray:
    """A blurred bar, from 0 to 1, as renderings and image editors save masks."""
    bar = np.zeros((SIDE, SIDE))
    bar[40:56, 24:70] = 1
    return ndimage.gaussian_filter(bar, 4)


def area(path: Path) -> int:
    return int((read_image(path, "L") > 0).sum())


@pytest.mark.parametrize("white", [255, 1023, 4095, 65535])
def test_a_soft_mask_has_its_area_at_any_depth(white: int, tmp_path: Path) -> None:
    """Half of full white and more, as in 8 bits; clipped to 8 bits first, all of the blur would count."""
    values = (soft() * white).round()
    Image.fromarray(values.astype(np.uint8 if white == 255 else np.uint16)).save(tmp_path / "mask.png")
    assert area(tmp_path / "mask.png") == (values > white / 2).sum()


@pytest.mark.parametrize("sigma", [8, 20])
@pytest.mark.parametrize("white", [255, 4095])
def test_a_mask_with_a_wide_soft_rim_is_no_mask_of_labels(sigma: int, white: int, tmp_path: Path) -> None:
    """As image editors feather selections: far from the edge the slope has steps of several pixels, each of one value."""
    bar = np.zeros((300, 300))
    bar[100:200, 80:220] = white
    values = ndimage.gaussian_filter(bar, sigma).round()
    Image.fromarray(values.astype(np.uint8 if white == 255 else np.uint16)).save(tmp_path / "mask.png")
    assert area(tmp_path / "mask.png") == (values > white / 2).sum()


@pytest.mark.parametrize("labels", [(1, 255), (1, 2, 255), (7, 300), (3, 200)])
def test_labels_beside_each_other_and_bright_ones_are_still_refused(labels: tuple[int, ...], tmp_path: Path) -> None:
    values = np.zeros((40, 40), np.uint16)
    for place, label in enumerate(labels):
        values[4:30, 4 + 8 * place : 12 + 8 * place] = label
    Image.fromarray(values).save(tmp_path / "mask.png")
    with pytest.raises(CADiffError, match="Save it with two values"):
        read_image(tmp_path / "mask.png", "L")


def test_a_soft_mask_of_real_numbers_has_its_area_too(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", soft().astype(np.float32))
    assert area(tmp_path / "mask.tif") == (soft() > 0.5).sum()


@pytest.mark.parametrize("white", [1, 255, 4095, 65535])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_two_values_are_a_mask_whatever_the_upper_one_is(white: int, kind: type, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.where(square() > 0, white, 0).astype(kind))
    assert np.array_equal(read_image(tmp_path / "mask.tif", "L"), square())


def test_numbered_regions_are_marked_at_any_depth(tmp_path: Path) -> None:
    labels = np.zeros((24, 24), np.uint16)
    labels[2:6, 2:6], labels[10, 10], labels[15:20, 4:9] = 1, 2, 3
    Image.fromarray(labels).save(tmp_path / "mask.png")
    assert area(tmp_path / "mask.png") == (labels > 0).sum()


def test_more_numbers_than_a_soft_rim_explains_are_refused(tmp_path: Path) -> None:
    """Instances numbered to 300: below half of that they could as well be grey."""
    labels = np.zeros((24, 24), np.uint16)
    labels[2:8, 2:8], labels[12:18, 12:18] = 7, 300
    Image.fromarray(labels).save(tmp_path / "mask.png")
    with pytest.raises(CADiffError, match=rf"^{tmp_path / 'mask.png'}: .* found both 300 and areas of 7\. Save it with two values"):
        read_image(tmp_path / "mask.png", "L")
    Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    assert area(tmp_path / "mask.png") == (labels > 0).sum(), "as advised"


@pytest.mark.parametrize("value", [np.nan, np.inf, -1])
def test_values_that_mean_nothing_are_refused(value: float, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.where(square() > 0, 1, value).astype(np.float32))
    with pytest.raises(CADiffError, match=rf"^{tmp_path / 'mask.tif'}: "):
        read_image(tmp_path / "mask.tif", "L")


def test_no_colour_but_black_is_unmarked(tmp_path: Path) -> None:
    """The darkest blue is 0 in grey of 8 bits."""
    for colour in ((0, 0, 1), (1, 0, 0), (0, 0, 255), (128, 0, 0)):
        write_image(tmp_path / "mask.png", np.where(square()[..., None] > 0, colour, 0).astype(np.uint8))
        assert np.array_equal(read_image(tmp_path / "mask.png", "L"), square())


@pytest.mark.parametrize(("one", "other"), [("red", "lime"), ("blue", "yellow"), ("white", "red"), ("maroon", "lime")])
@pytest.mark.parametrize("palette", [False, True])
def test_a_mask_with_a_colour_for_each_class_marks_them_all(one: str, other: str, palette: bool, tmp_path: Path) -> None:
    """As annotation tools draw them: in grey one colour is more than half of white, and the other less."""
    image = Image.new("RGB", (24, 24))
    image.paste(one, (2, 2, 8, 8))
    image.paste(other, (12, 12, 20, 20))
    (image.quantize(8) if palette else image).save(tmp_path / "mask.png")
    assert area(tmp_path / "mask.png") == 6 * 6 + 8 * 8


def test_a_tint_is_no_colour(tmp_path: Path) -> None:
    """A mask that once was a JPEG: what is nearly black is not marked, of whatever colour."""
    values = np.repeat(square()[..., None], 3, axis=2).astype(int) + np.random.default_rng(0).integers(-9, 10, (*square().shape, 3))
    write_image(tmp_path / "mask.png", values.clip(0, 255).astype(np.uint8))
    assert np.array_equal(read_image(tmp_path / "mask.png", "L"), square())


@pytest.mark.parametrize("mode", ["1", "P"])
def test_one_bit_and_palettes_mark_what_is_white(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(square()).convert(mode)
    if mode == "P":  # white as the palette's first colour
        image = Image.fromarray(np.where(square() > 0, 0, 1).astype(np.uint8), "P")
        image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_image(tmp_path / "mask.png", "L"), square())


def test_it_is_decided_before_it_is_resized(tmp_path: Path) -> None:
    """A faint haze around a bar: below half it is no anomaly, however much of it a small pixel covers."""
    values = np.zeros((SIDE, SIDE), np.uint16)
    values[:, 20:60] = np.arange(20, 60, dtype=np.uint16)[:, None][: 40, 0] * 400  # a ramp up to 23600
    values[:, 60:68] = 65535
    Image.fromarray(values).save(tmp_path / "mask.png")
    shrunk = read_image(tmp_path / "mask.png", "L", (SIDE // 4, SIDE // 4)) > 0
    assert np.array_equal(np.flatnonzero(shrunk.any(0)), [15, 16])


def test_soft_masks_of_8_and_16_bits_are_as_large_for_inspect(mvtec_root: Path) -> None:
    """As in the field: inspect said 199 px where there were 86."""
    said = {}
    for kind in (np.uint8, np.uint16):
        for index in range(7):
            write_image(mvtec_root / f"nut/test/scratch/{index:03}.png", picture(index, SIDE))
            values = (soft() * np.iinfo(kind).max).round().astype(kind)
            Image.fromarray(values).save(mvtec_root / f"nut/ground_truth/scratch/{index:03}_mask.png")
        (summary,) = inspect_root(mvtec_root, base=16).products
        said[kind] = summary.defects["scratch"].pixels
    assert said[np.uint8] == said[np.uint16] == [(soft() > 0.5).sum()] * 7
