"""From boxes to approximate masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plates import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, picture
from scipy.ndimage import binary_dilation

from cadiff.labels.boxes import box_mask
from cadiff.labels.model import Box

TIGHT = Box(LEFT, TOP, RIGHT, BOTTOM)


def test_what_differs_in_a_loose_box_is_its_mask() -> None:
    pixels = picture(1, spot=True)
    mask, how = box_mask(pixels, Box(LEFT - 3, TOP - 3, RIGHT + 4, BOTTOM + 5))
    assert how == "cut"
    spot = pixels[..., 0] < 80
    assert mask[spot].all()
    assert not mask[~binary_dilation(spot, iterations=2)].any()


def test_where_nothing_hangs_together_the_ellipse_fills_the_box() -> None:
    pixels = picture(3)
    pixels[TOP : TOP + 2, LEFT : LEFT + 2] = pixels[BOTTOM - 2 : BOTTOM, RIGHT - 2 : RIGHT] = 20
    mask, how = box_mask(pixels, TIGHT)
    assert how == "ellipse"
    assert mask.sum() == pytest.approx(np.pi / 4 * 12 * 7, rel=0.1)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (LEFT, RIGHT, TOP, BOTTOM)


@pytest.mark.parametrize("box", [Box(-5, -5, WIDTH + 5, HEIGHT + 5), Box(0, 0, WIDTH, HEIGHT)])
def test_a_box_without_surroundings_has_an_ellipse(box: Box) -> None:
    mask, how = box_mask(picture(1, spot=True), box)
    assert how == "ellipse"
    assert not mask.all()


def test_a_box_outside_of_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="outside of the picture of 40x30"):
        box_mask(picture(1), Box(WIDTH + 2, 3, WIDTH + 9, 9))


@given(st.floats(-9, 45), st.floats(-9, 35), st.floats(0.01, 50), st.floats(0.01, 50), st.booleans())
def test_a_mask_lies_in_its_box_and_is_never_empty(left: float, top: float, width: float, height: float, flat: bool) -> None:
    box = Box(left, top, left + width, top + height)
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8) if flat else picture(4, spot=True)
    if box.right <= 0 or box.bottom <= 0 or left >= WIDTH or top >= HEIGHT:
        return
    mask, _ = box_mask(pixels, box)
    rows, columns = np.nonzero(mask)
    assert len(rows)
    assert np.floor(box.top) <= rows.min() <= rows.max() < np.ceil(box.bottom)
    assert np.floor(box.left) <= columns.min() <= columns.max() < np.ceil(box.right)
