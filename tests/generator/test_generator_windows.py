"""Where windows lie: around masks wherever these are, and in training at the places and the scales at which they are drawn in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cadiff.errors import UsageError
from cadiff.generator.windows import (
    Window,
    box_of,
    check_canvas,
    drawn_anywhere,
    drawn_around,
    overlapping,
    pieces,
    placed_like,
    whole,
)
from cadiff.params import WindowParams

SIZE = 32
AROUND = WindowParams()


def canvas_with(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of rectangles: top, left, bottom, right."""
    mask = np.zeros(shape, bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def places(mask: np.ndarray, context: float = 2.0) -> list[tuple[int, int, int, int]]:
    windows = [piece.window for piece in pieces(mask, WindowParams(context=context), SIZE)]
    return [(w.top, w.left, w.height, w.width) for w in windows]


@pytest.mark.parametrize(
    ("shape", "box", "context", "expected"),
    [
        ((100, 200), (40, 90, 60, 110), 2.0, (30, 80, 40, 40)),  # twice its extent, it in the middle
        ((100, 200), (40, 90, 60, 110), 3.0, (20, 70, 60, 60)),
        ((100, 200), (47, 97, 53, 103), 2.0, (34, 84, 32, 32)),  # never less than what the base draws
        ((100, 200), (0, 180, 20, 200), 2.0, (0, 160, 40, 40)),  # in a corner: inside of the picture, the mask at its edge
        ((100, 200), (80, 0, 100, 20), 2.0, (60, 0, 40, 40)),
        ((200, 100), (99, 50, 100, 51), 2.0, (83, 34, 32, 32)),  # one pixel
        ((40, 200), (0, 0, 1, 1), 2.0, (0, 0, 32, 32)),
        ((100, 200), (10, 60, 90, 140), 2.0, (0, 50, 100, 100)),  # more than the picture has: as large as that
        ((32, 32), (0, 0, 32, 32), 2.0, (0, 0, 32, 32)),
    ],
)
def test_a_window_lies_around_its_mask_and_in_its_picture(
    shape: tuple[int, int], box: tuple[int, int, int, int], context: float, expected: tuple[int, int, int, int]
) -> None:
    mask = canvas_with(shape, box)
    assert places(mask, context) == [expected]
    (piece,) = pieces(mask, WindowParams(context=context), SIZE)
    assert piece.part.sum() == mask.sum()
    assert (piece.part == piece.window.of(mask)).all()


def test_a_mask_that_no_window_holds_is_covered_by_several_that_overlap() -> None:
    """190 px long in a picture that is 100 px wide: three windows, of which each later one has what those before it have not."""
    mask = canvas_with((100, 200), (45, 5, 55, 195))
    assert places(mask) == [(0, left, 100, 100) for left in (5, 50, 95)]
    assert [piece.part.sum() for piece in pieces(mask, AROUND, SIZE)] == [1000, 450, 450]
    assert places(mask.T.copy()) == [(top, 0, 100, 100) for top in (5, 50, 95)]


def test_far_masks_have_a_window_each_and_near_ones_share_theirs() -> None:
    far = canvas_with((128, 256), (10, 10, 20, 20), (100, 230, 110, 240))
    assert sorted(places(far)) == [(0, 0, 32, 32), (89, 219, 32, 32)]
    near = canvas_with((128, 256), (50, 50, 55, 55), (50, 62, 55, 67))
    assert places(near) == [(35, 41, 34, 34)], "twice their common 17 px, centred on both"
    assert len(places(canvas_with((128, 256), (10, 10, 20, 20), (100, 230, 110, 240), (40, 120, 50, 130)))) == 3
    whole_picture = [piece.window for piece in pieces(far, WindowParams(cut="whole"), SIZE)]
    assert whole_picture == [whole((128, 256))], "the picture itself, whatever is in it"


RECTANGLE = st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 120), st.integers(1, 120))


@settings(deadline=None, max_examples=60)
@given(height=st.integers(SIZE, 300), width=st.integers(SIZE, 600), rectangles=st.lists(RECTANGLE, min_size=1, max_size=5),
       context=st.floats(1, 3))  # fmt: skip
def test_every_pixel_of_a_mask_is_drawn_in_one_window(height: int, width: int, rectangles: list, context: float) -> None:
    """Whatever the masks and the picture's shape; and what is no mask is in none."""
    mask = np.zeros((height, width), bool)
    for row, column, down, across in rectangles:
        mask[row % height :][:down, column % width :][:, :across] = True
    counts = np.zeros(mask.shape, int)
    for piece in pieces(mask, WindowParams(context=context), SIZE):
        window = piece.window
        assert 0 <= window.top <= height - window.height
        assert 0 <= window.left <= width - window.width
        assert SIZE <= window.height == window.width <= min(height, width)
        assert piece.part.any(), "a window in which nothing is to be drawn"
        window.of(counts)[:] += piece.part
    assert (counts == mask).all()


def test_a_window_brought_to_the_bases_size_keeps_a_thin_mask_and_the_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    mask = canvas_with((300, 400), (100, 60, 101, 340))
    window = Window(0, 50, 300, 300)
    assert window.scale(SIZE) == pytest.approx(300 / 32)
    assert window.mask(mask, SIZE).any(1).sum() == 1
    assert window.mask(mask, SIZE).sum() == 28, "a line of 1 px, all of the 28 pixels that it crosses"
    assert (window.mask(canvas_with((300, 400), (7, 222, 8, 223)), SIZE).sum()) == 1
    assert window.picture(image, SIZE).shape == (SIZE, SIZE, 3)
    own = Window(10, 20, SIZE, SIZE)
    assert (own.picture(image, SIZE) == image[10:42, 20:52]).all(), "at its own scale nothing is resampled"
    own.of(image)[:] = 7
    assert (image[10:42, 20:52] == 7).all(), "a view: what is written to it is in the picture"


def test_windows_along_a_large_mask_overlap_by_a_quarter() -> None:
    windows = overlapping((10, 0, 90, 300), SIZE, (100, 300))
    covered = np.zeros((100, 300), bool)
    for window in windows:
        assert (window.height, window.width) == (SIZE, SIZE)
        window.of(covered)[:] = True
    assert covered[10:90].all()
    lefts = sorted({window.left for window in windows})
    assert max(np.diff(lefts)) <= 0.75 * SIZE
    assert overlapping((5, 5, 9, 9), 64, (40, 50)) == [Window(0, 0, 40, 40)], "no larger than the picture"


def test_training_windows_hold_the_box_and_vary() -> None:
    """Sides from 1.5 to 3 times its extent, and the box anywhere in them, not always in the middle."""
    box, canvas = (90, 200, 130, 220), (256, 512)
    windows = [drawn_around(box, canvas, AROUND, SIZE, torch.Generator().manual_seed(k)) for k in range(200)]
    for w in windows:
        assert w.top <= box[0]
        assert box[2] <= w.top + w.height
        assert w.left <= box[1]
        assert box[3] <= w.left + w.width
        assert 60 <= w.height == w.width <= 120
    shares = np.array([[(box[0] - w.top) / (w.height - 40), (box[1] - w.left) / (w.width - 20)] for w in windows])
    assert (shares.min(0) < 0.1).all()
    assert (shares.max(0) > 0.9).all()
    assert np.ptp([w.height for w in windows]) > 50
    assert windows == [drawn_around(box, canvas, AROUND, SIZE, torch.Generator().manual_seed(k)) for k in range(200)]
    assert drawn_around(box, canvas, WindowParams(cut="whole"), SIZE, torch.Generator()) == whole(canvas)


@settings(deadline=None, max_examples=60)
@given(height=st.integers(SIZE, 200), width=st.integers(SIZE, 400), where=st.tuples(*[st.floats(0, 1)] * 4), seed=st.integers(0, 99))
def test_a_training_window_lies_in_its_picture_and_on_its_mask(height: int, width: int, where: tuple, seed: int) -> None:
    """Of a mask that no window holds it shows a part."""
    top, left = int(where[0] * (height - 1)), int(where[1] * (width - 1))
    box = (top, left, top + 1 + int(where[2] * (height - top - 1)), left + 1 + int(where[3] * (width - left - 1)))
    window = drawn_around(box, (height, width), AROUND, SIZE, torch.Generator().manual_seed(seed))
    assert 0 <= window.top <= height - window.height
    assert 0 <= window.left <= width - window.width
    inside = window.of(canvas_with((height, width), box))
    assert inside.any()
    if max(box[2] - box[0], box[3] - box[1]) <= window.height:
        assert inside.sum() == (box[2] - box[0]) * (box[3] - box[1])


def test_windows_of_normals_lie_anywhere_at_the_scales_that_are_asked_for() -> None:
    sides, canvas = [32, 64, 500], (128, 256)
    windows = [drawn_anywhere(canvas, sides, AROUND, SIZE, torch.Generator().manual_seed(k)) for k in range(300)]
    assert {w.height for w in windows} == {32, 64, 128}
    assert all(w.height == w.width and w.top + w.height <= 128 and w.left + w.width <= 256 for w in windows)
    small = [w for w in windows if w.height == 32]
    assert min(w.top for w in small) < 5
    assert max(w.left for w in small) > 215


def test_a_normal_is_seen_at_the_same_relative_place_as_large() -> None:
    assert placed_like(Window(0, 0, 40, 40), (100, 200), (300, 100)) == Window(0, 0, 40, 40)
    assert placed_like(Window(60, 160, 40, 40), (100, 200), (300, 100)) == Window(260, 60, 40, 40), "its far corner"
    assert placed_like(Window(30, 80, 40, 40), (100, 200), (300, 100)) == Window(130, 30, 40, 40), "its middle"
    assert placed_like(Window(30, 80, 40, 40), (100, 200), (32, 90)) == Window(0, 29, 32, 32), "no larger than that one"
    assert placed_like(Window(0, 0, 100, 100), (100, 200), (100, 200)) == Window(0, 0, 100, 100)
    assert placed_like(whole((100, 200)), (100, 200), (90, 70)) == whole((90, 70))
    assert placed_like(whole((64, 64)), (64, 64), (64, 64)) == whole((64, 64))


def test_the_box_of_a_mask_is_its_least_rectangle() -> None:
    assert box_of(canvas_with((20, 30), (3, 4, 5, 9), (10, 2, 11, 3))) == (3, 2, 11, 9)
    assert box_of(canvas_with((20, 30), (19, 29, 20, 30))) == (19, 29, 20, 30)


def test_a_picture_smaller_than_what_the_base_draws_is_one_clear_line() -> None:
    check_canvas("a.png", (64, 64), 64)
    with pytest.raises(UsageError, match=r"a.png: 200 x 63 px, smaller than what the base draws \(base.size: 64\); set dataset.size: 64"):
        check_canvas("a.png", (63, 200), 64)
