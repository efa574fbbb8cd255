"""Leaks by content: pictures that are there twice, however they were saved, where one must not be known of the other.

Equal pixels are told by a digest. What was saved again with losses (JPEG, another size) differs a little everywhere and
much nowhere, and by less than the product's pictures differ among themselves: those of equal parts under the same light are no copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from scipy.ndimage import uniform_filter

from cadiff.pictures import resize_picture
from cadiff.progress import Progress
from cadiff.records import Role, SampleRow
from cadiff.storage import read_image, sha256_bytes

SIDE = 32  # px of the grey thumbnails that are compared with each other
NEAREST, OTHERS = 3, 3  # neighbours that may be copies; the next ones, which say how far apart pictures of this product are
NEAR = 0.5  # distance of thumbnails below which two are looked at, as a share of that to the last of the others
CELL = 8  # px of the squares whose means are compared: JPEG's own blocks
CLOSE = 0.5  # difference of a cell below which it is a copy's, as a share of what it differs by from the others
SHARE = 0.75  # of the cells that tell must be a copy's: of pictures that differ by noise alone no more than half can be
FLOOR, LEAST = 0.5, 8  # grey levels by which a cell must differ from anything to tell, and how many of such there must be
LARGEST = (5.0, 10.0, 10.0)  # by which a cell of a copy may differ: grey levels, and levels of the two colour differences, which JPEG keeps
# more coarsely; a defect, or a part that lies a little elsewhere, differs by more somewhere
NOISE = 0.1  # correlation of two copies' noise, at least; that of two photographs is 0, however alike their parts lie
STRETCHED = 1.02  # aspect ratios of two copies differ by no more than rounding does
ROWS = 256  # of the table of distances in memory at a time
SIDES: dict[Role, int] = {"held_out": 0, "test_good": 0, "calibration": 1, "normal": 2, "exemplar": 2}  # scored, threshold, learned from
HARM = {  # what copies do, by their sides
    (0, 2): "images to be scored are copies of train normals or exemplars: their scores prove nothing",
    (0, 1): "images to be scored are copies of ones that set the threshold: what is said of false alarms and misses is not theirs",
    (1, 2): "of those that set the threshold are copies of ones that are learned from: it will be too low",
}
CONTRADICTED = "images are there as a normal one and as an anomaly"
TOLD = 10  # pairs of a kind that are named

Pixels = UInt8[np.ndarray, "h w 3"]
Colours = Float32[np.ndarray, "h w 3"]
Read = Callable[[int], Pixels]


class Pair(NamedTuple):
    """Places of two pictures that show the same; ``equal``: pixel for pixel."""

    first: int
    second: int
    equal: bool


class Copy(NamedTuple):
    """A sample and another one that shows the same; ``equal``: pixel for pixel."""

    row: SampleRow
    of: SampleRow
    equal: bool

    def text(self) -> str:
        same = "shows the same pixels as" if self.equal else "is nearly"
        return f"{self.row.image_path} ({_filed(self.row)}) {same} {self.of.image_path} ({_filed(self.of)})"


def _filed(row: SampleRow) -> str:
    said = {"normal": "train normal", "calibration": "train normal that sets the threshold", "test_good": "test normal"}
    return said.get(row.role) or f"{row.anomaly_type}, {'learned from' if row.role == 'exemplar' else 'held out'}"


def find_copies(rows: Sequence[SampleRow]) -> list[Copy]:
    """The samples of one product that show the same as one on the other side of the split, or as one that contradicts their label.

    A pair matters where one is learned from (normals, exemplars), sets the threshold or is scored, and the other is not, or where
    one alone is normal. The first of a pair is what is scored, then what sets the threshold.

    Raises:
        CADiffError: if an image does not read.
    """
    order = sorted(rows, key=_side)

    def matters(first: int, second: int) -> bool:
        one, other = order[first], order[second]
        return _side(one) != _side(other) or (one.anomaly_type is None) != (other.anomaly_type is None)

    pairs = find_pairs(len(order), lambda place: read_image(order[place].image_path, levels=order[place].levels), matters)
    return [Copy(order[min(first, second)], order[max(first, second)], equal) for first, second, equal in pairs]


def _side(row: SampleRow) -> int:
    return SIDES[row.role]


def copy_lines(rows: Sequence[SampleRow]) -> list[str]:
    """What ``find_copies`` finds, for a terminal: how many, what harm they do, and the files."""
    by_harm: dict[str, list[Copy]] = {}
    for copy in find_copies(rows):
        by_harm.setdefault(HARM.get((_side(copy.row), _side(copy.of)), CONTRADICTED), []).append(copy)
    lines = []
    for harm, copies in by_harm.items():
        count = len({copy.row.sample_id for copy in copies})
        lines += [f"{count} {harm}; remove either of the two:", *(f"  {copy.text()}" for copy in copies[:TOLD])]
        lines += [f"  and {len(copies) - TOLD} more"] if len(copies) > TOLD else []
    return lines


def find_pairs(count: int, read: Read, matters: Callable[[int, int], bool]) -> list[Pair]:
    """Pairs of ``count`` pictures that show the same, of those that matter, each once and the smaller place first.

    ``read`` gives the picture at a place, and is asked anew when one is looked at again. A picture is compared as it is with its
    ``NEAREST`` by thumbnail alone, and with these only where they are ``NEAR``. Memory: 4 KiB a picture, a table of ``ROWS`` times their
    number, and a handful of pictures as they are.

    Raises:
        CADiffError: if an image does not read.
    """
    groups: dict[str, list[int]] = {}  # of equal pictures: the first stands for all, since equal ones are no measure of what is usual
    looks: list[np.ndarray] = []
    bar = Progress("compare pictures", count)
    for place in range(count):
        pixels = read(place)
        group = groups.setdefault(pixels_digest(pixels), [])
        group.append(place)
        if len(group) == 1:
            looks.append(_look(pixels))
        bar.advance()
    members = list(groups.values())
    found = {Pair(*pair, True) for group in members for pair in combinations(group, 2) if matters(*pair)}
    for one, other, others in _near(np.stack(looks)) if looks else ():
        pairs = [(min(pair), max(pair)) for pair in product(members[one], members[other]) if matters(min(pair), max(pair))]
        if pairs and _is_copy(*(partial(read, members[index][0]) for index in (one, other, *others))):
            found.update(Pair(*pair, False) for pair in pairs)
    return sorted(found)


def pixels_digest(pixels: Pixels) -> str:
    """A digest of what a file shows, however it is compressed."""
    return sha256_bytes(f"{pixels.shape}".encode() + pixels.tobytes())


def _look(pixels: Pixels) -> Float32[np.ndarray, " cells"]:
    """A grey thumbnail without its mean, so that a lamp that flickers sets no distances."""
    grey = Image.fromarray(pixels).convert("L").convert("F")
    small = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).ravel()
    look: np.ndarray = small - small.mean()
    return look


def _near(looks: Float32[np.ndarray, "n cells"]) -> Iterator[tuple[int, int, list[int]]]:
    """Each pair of pictures whose thumbnails are near, once, with the neighbours that say what is usual."""
    looks = looks - looks.mean(axis=0)  # smaller numbers leave smaller errors of rounding
    squares, seen, count = (looks**2).sum(axis=1), set(), min(NEAREST + OTHERS, len(looks) - 1)
    if count < 2:  # with nothing to compare a distance with, equal pixels alone are known to be copies
        return
    for start in range(0, len(looks), ROWS):
        block = slice(start, start + ROWS)
        table = squares[block, None] + squares - 2 * looks[block] @ looks.T
        np.fill_diagonal(table[:, block], np.inf)
        nearest = np.argpartition(table, count - 1, axis=1)[:, :count]
        for one, places, row in zip(range(start, len(looks)), nearest, table, strict=False):
            ordered = places[np.argsort(row[places], kind="stable")]
            split = max(1, count - OTHERS)
            for other in ordered[:split]:
                pair = (min(one, int(other)), max(one, int(other)))
                if pair not in seen and row[other] < NEAR**2 * row[ordered[-1]]:
                    seen.add(pair)
                    yield *pair, ordered[split:].tolist()


def _is_copy(one: Callable[[], Pixels], other: Callable[[], Pixels], *others: Callable[[], Pixels]) -> bool:
    """Whether two pictures differ by little everywhere, share their noise, and are nearly everywhere nearer to each other than the first of
    them is to the others.

    Cells are counted, not their differences added: parts that lie alike by chance differ less at their edges, but not in the noise around.
    """
    first = one()
    pair = _aligned(first, other())
    if pair is None or (np.abs(apart := _cells(pair[0] - pair[1])) > LARGEST).any() or not _share_noise(*pair):
        return False
    usual = [_grain(_cells(both[0] - both[1]), apart.shape) for picture in others if (both := _aligned(first, picture())) is not None]
    if not usual:
        return True
    own, theirs = _grain(apart, apart.shape), np.median(usual, axis=0)
    tells = np.maximum(own, theirs) > FLOOR
    return bool(tells.sum() >= LEAST and (own < CLOSE * theirs)[tells].mean() > SHARE)


def _aligned(one: Pixels, other: Pixels) -> tuple[Colours, Colours] | None:
    """Two pictures as grey levels and colour differences (Y, Cb, Cr), the larger brought to the smaller one's size; None: of another
    shape."""
    (h, w), (h2, w2) = one.shape[:2], other.shape[:2]
    if not 1 / STRETCHED < (w / h) / (w2 / h2) < STRETCHED:
        return None
    shape = min((h, w), (h2, w2), key=lambda sides: sides[0] * sides[1])
    left, right = (np.asarray(Image.fromarray(resize_picture(each, shape)).convert("YCbCr"), np.float32) for each in (one, other))
    return left, right


def _cells(values: Colours) -> Colours:
    """Means of the squares of ``CELL`` px; of smaller ones in a small picture."""
    side = min(CELL, min(values.shape[:2]) // 4)
    rows, columns = values.shape[0] // side, values.shape[1] // side
    means: Colours = values[: rows * side, : columns * side].reshape(rows, side, columns, side, 3).mean(axis=(1, 3))
    return means


def _share_noise(one: Colours, other: Colours) -> bool:
    """Whether what differs from one pixel to the next correlates in the quieter half of the cells, where there are no edges. A picture
    without any noise, as a drawing or a binary one, has none to share."""
    fine, too = (grey - uniform_filter(grey, 3) for grey in (one[..., 0], other[..., 0]))
    products, own, theirs = (_cells(np.repeat(values[..., None], 3, axis=2))[..., 0] for values in (fine * too, fine**2, too**2))
    noisy = (own > 0) & (theirs > 0)
    if not noisy.any():
        return True
    quiet = noisy & (own <= np.median(own[noisy]))
    return bool(products[quiet].sum() > NOISE * np.sqrt(own[quiet].sum() * theirs[quiet].sum()))


def _grain(cells: Colours, shape: tuple[int, ...]) -> Float[np.ndarray, "rows columns"]:
    """By how many grey levels each cell differs from what is around it, so that light which changes over the picture is not in it; brought
    to another number of cells."""
    grey = cells[..., 0]
    apart: np.ndarray = np.abs(grey - uniform_filter(grey, 3))
    if apart.shape == shape[:2]:
        return apart
    return np.asarray(Image.fromarray(apart).resize((shape[1], shape[0]), Image.Resampling.NEAREST))
