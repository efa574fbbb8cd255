"""Masks as runs: alternating counts of pixels outside and inside, as COCO, CVAT and Label Studio keep them.

The codes are small and their decoders read files of strangers, so they are written here: pycocotools' C code trusts the counts it is
given. In the tests it is the oracle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

MOST = 2**28  # pixels of the largest mask that is decoded: more than Pillow opens of a picture


class Runs(NamedTuple):
    """A mask of ``height`` x ``width`` px: of the whole picture, or, with a ``corner`` (row, column), of the part that begins there.

    ``counts``: how many pixels are outside, then inside, then outside again; their sum is the mask's pixels. They go down the columns
    (``by_columns``: COCO) or along the rows.
    """

    counts: Int[np.ndarray, " n"]
    height: int
    width: int
    by_columns: bool = False
    corner: tuple[int, int] | None = None

    def pixels(self) -> Bool[np.ndarray, "h w"]:
        """The mask itself, without its place."""
        flat = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        return flat.reshape(self.width, self.height).T if self.by_columns else flat.reshape(self.height, self.width)

    def placed(self, height: int, width: int) -> Bool[np.ndarray, "h w"]:
        """The mask on a picture of this size.

        Raises:
            ValueError: if it is not of the picture's size, or does not lie within the picture.
        """
        top, left = self.corner or (0, 0)
        bottom, right = top + self.height, left + self.width
        fits = (bottom, right) == (height, width) if self.corner is None else min(top, left) >= 0 and bottom <= height and right <= width
        if not fits:
            place = "" if self.corner is None else f" at ({left}, {top})"
            raise ValueError(f"a mask of {self.width}x{self.height}{place} on a picture of {width}x{height}")
        whole = np.zeros((height, width), bool)
        whole[top:bottom, left:right] = self.pixels()
        return whole


def runs(counts: Iterable[int], height: int, width: int, by_columns: bool = False, corner: tuple[int, int] | None = None) -> Runs:
    """Runs that are known to fill their mask.

    Raises:
        ValueError: if a count is negative, their sum is not ``height`` times ``width``, or that is more than ``MOST``.
    """
    numbers = list(counts)
    if height < 1 or width < 1 or height * width > MOST:
        raise ValueError(f"a mask of {width}x{height}; expected 1 to {MOST} pixels")
    if any(number < 0 for number in numbers) or sum(numbers) != height * width:
        raise ValueError(f"the counts of a mask are of {sum(numbers)} pixels; expected {width}x{height}, which are {height * width}")
    return Runs(np.asarray(numbers, np.int64), height, width, by_columns, corner)


def to_runs(mask: Bool[np.ndarray, "h w"], by_columns: bool = False, corner: tuple[int, int] | None = None) -> Runs:
    """A mask's runs, beginning with those outside (0 of them, if the first pixel is inside)."""
    flat = np.ravel(mask, order="F" if by_columns else "C")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]]))
    if flat.size and flat[0]:
        counts = np.concatenate([[0], counts])
    height, width = mask.shape
    return Runs(counts.astype(np.int64), height, width, by_columns, corner)


def unpack_coco(text: str) -> list[int]:
    """The counts in COCO's compressed string: five bits a character and a sign, each count from the third on as the difference from the
    last but one (``rleFrString`` of pycocotools).

    Raises:
        ValueError: if the text is no such string.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 50:
            raise ValueError(f"{character!r} in a compressed mask; expected the characters 0 to o, as pycocotools writes them")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("a compressed mask that ends within a number")
    return counts


def pack_coco(counts: Iterable[int]) -> str:
    """The compressed string that ``unpack_coco`` reads (``rleToString`` of pycocotools)."""
    numbers, text = [int(count) for count in counts], []
    for index, number in enumerate(numbers):
        left = number - (numbers[index - 2] if index > 2 else 0)
        more = True
        while more:
            code = left & 31
            left >>= 5
            more = left != (-1 if code & 16 else 0)
            text.append(chr(code + (32 if more else 0) + 48))
    return "".join(text)


def unpack_brush(data: Iterable[int], height: int, width: int) -> Runs:
    """Label Studio's brush: four channels a pixel, packed by ``@thi.ng/rle-pack``; a pixel is inside where its last channel is not 0.

    32 bits: how many values; 5: bits a value, less one; four times 4: bits of each of four lengths, less one. Then, again and again,
    one bit (1: one value is repeated), two bits (which of the four lengths), the length less one, and that value, or those values.

    Raises:
        ValueError: if the bits end early, or are of another size.
    """
    if height < 1 or width < 1 or height * width > MOST:
        raise ValueError(f"a mask of {width}x{height}; expected 1 to {MOST} pixels")
    bits = _Bits(bytes(data))
    total, size = bits.take(32), bits.take(5) + 1
    lengths = [bits.take(4) + 1 for _ in range(4)]
    if total != 4 * height * width:
        raise ValueError(f"a brush mask of {total} values; expected four for each pixel of {width}x{height}")
    values = np.zeros(total, bool)
    at = 0
    while at < total:
        repeated = bits.take(1)
        end = at + 1 + bits.take(lengths[bits.take(2)])
        if end > total:
            raise ValueError("a brush mask with more values than it says")
        if repeated:
            values[at:end] = bits.take(size) > 0
        else:
            values[at:end] = [bits.take(size) > 0 for _ in range(end - at)]
        at = end
    return to_runs(values[3::4].reshape(height, width))


class _Bits:
    """Bits of bytes, the most significant first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> int:
        end = self.at + count
        if end > 8 * len(self.data):
            raise ValueError("a brush mask that ends early")
        part = int.from_bytes(self.data[self.at // 8 : (end + 7) // 8], "big")
        self.at = end
        return (part >> (-end % 8)) & ((1 << count) - 1)
