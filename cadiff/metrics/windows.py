"""How unusual is what lies under a mask: patch features of a square around it, against those of the same squares of normal images.

The network sees 224 px. A picture that is larger would be shrunk to that, and a small defect would vanish with its pixels; so a
window about twice as large as the defect is looked at instead, whose cost is the same at any canvas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cadiff.metrics.imagenet import SIDE, features
from cadiff.pictures import Pictures, resize_picture
from cadiff.seeds import numpy_generator

PATCH_SIDE = 28  # places a side at which a window is compared with normal ones
CELLS = 64  # places of a normal window that say how far normal windows are from each other
LEAST = 64  # pixels of a window's side, at least: less shows grain, and no part
AROUND = 2.0  # a window's side, in extents of the mask
PLACED, ELSEWHERE = 4, 16  # normal windows at the mask's place, and anywhere: of 20 normal images where there are so many
CHUNK = 32  # windows in the network at a time
_KEPT = 64  # banks in memory, 2 MB each


@dataclass(frozen=True)
class Window:
    """A square of a picture: ``side`` px, its first row and column."""

    side: int
    top: int
    left: int

    def of(self, values: np.ndarray) -> np.ndarray:
        return values[self.top : self.top + self.side, self.left : self.left + self.side]


@dataclass(frozen=True)
class Bank:
    """Normal windows' patches at a place and anywhere; ``usual``: the median distance of a patch at the place to the nearest patch
    of another normal image (nan for a single one)."""

    placed: Float[Tensor, "n d"]
    elsewhere: Float[Tensor, "m d"]
    usual: float

    def distance(self, cells: Float[Tensor, "k d"]) -> float:
        """The mean distance to the nearest patch, over what is usual."""
        return float(torch.minimum(nearest(cells, self.placed), nearest(cells, self.elsewhere)).mean()) / self.usual


def window_around(mask: Bool[np.ndarray, "h w"]) -> Window:
    """The square around a mask, ``AROUND`` times its extent, at least ``LEAST`` px and at most the picture's shorter side.

    Sides come in steps of sqrt(2), so that many masks share a bank. A mask that is longer than the window is looked at around
    that pixel of it that is nearest to its centroid. Of an empty mask it is the middle of the picture.
    """
    height, width = mask.shape
    shorter = min(height, width)
    if not mask.any():
        return _at(shorter, (height / 2, width / 2), (height, width))
    rows, columns = np.nonzero(mask)
    extents = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    wanted = max(LEAST, AROUND * max(extents))
    side = min(shorter, round(LEAST * 2 ** (math.ceil(2 * math.log2(wanted / LEAST) - 1e-9) / 2)))
    middle = (rows.max() + rows.min() + 1) / 2, (columns.max() + columns.min() + 1) / 2
    if max(extents) > side:
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        middle = rows[nearest] + 0.5, columns[nearest] + 0.5
    return _at(side, (float(middle[0]), float(middle[1])), (height, width))


def _at(side: int, middle: tuple[float, float], shape: tuple[int, int]) -> Window:
    """The window with this middle, moved into the picture where it would stand out."""
    side = min(side, *shape)
    top, left = (int(np.clip(round(at - side / 2), 0, length - side)) for at, length in zip(middle, shape, strict=True))
    return Window(side, top, left)


class Normals:
    """A product's normal images, looked at through windows; banks are made when they are first asked for."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self._elsewhere = lru_cache(_KEPT)(self._read_elsewhere)
        self.bank = lru_cache(_KEPT)(self._read_bank)

    def distances(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], masks: Sequence[Bool[np.ndarray, "_ _"]]
    ) -> list[float | None]:
        """Of each image the mean distance of the mask's patches to the nearest patch of a normal image, over the same among
        normal images; None for an empty mask, or where nothing says what is usual (a single normal image)."""
        if len(self.pictures) < 2:
            return [None] * len(images)
        windows = [window_around(mask) for mask in masks]
        found = patches([window.of(image) for window, image in zip(windows, images, strict=True)])
        values: list[float | None] = []
        for window, mask, own in zip(windows, masks, found, strict=True):
            inside = _cells(window.of(mask))
            bank = self.bank(window.side, *_place(window, mask.shape)) if inside.any() else None
            values.append(bank.distance(own[inside]) if bank and bank.usual > 0 else None)
        return values

    def _read_bank(self, side: int, row: float, column: float) -> Bank:
        """``row`` and ``column``: where in the picture, as shares of the room that the window has there."""
        chosen = [(index, row, column) for index in range(min(PLACED, len(self.pictures)))]
        placed, (elsewhere, owners) = patches([self._cut(side, *place) for place in chosen]), self._elsewhere(side)
        usual = usual_distance(torch.cat([placed, elsewhere]), torch.tensor([*(index for index, *_ in chosen), *owners]), len(placed))
        return Bank(placed.flatten(0, 1), elsewhere.flatten(0, 1), usual)

    def _read_elsewhere(self, side: int) -> tuple[Float[Tensor, "n cells d"], list[int]]:
        """Windows at places by chance, and the normal images that they are of: further ones, the same again where there are few."""
        places = numpy_generator(0, "quality", "windows", side).random((ELSEWHERE, 2)).tolist()
        chosen = [((PLACED + k) % len(self.pictures), row, column) for k, (row, column) in enumerate(places)]
        if side >= min(min(self.pictures.shape(index)) for index, *_ in chosen):  # nowhere else to look along a side, or along both
            chosen = chosen[: len(self.pictures)]
        return patches([self._cut(side, *place) for place in chosen]), [index for index, *_ in chosen]

    def _cut(self, side: int, index: int, row: float, column: float) -> UInt8[np.ndarray, "s s 3"]:
        image = self.pictures[index].image
        side = min(side, *image.shape[:2])
        top, left = (round(share * (length - side)) for share, length in zip((row, column), image.shape[:2], strict=True))
        return resize_picture(Window(side, top, left).of(image), (SIDE, SIDE))


def _place(window: Window, shape: tuple[int, ...]) -> tuple[float, float]:
    """Where the window lies, as shares of the room that it has, in steps of at most half its side: neighbours share a bank."""
    found = []
    for at, length in zip((window.top, window.left), shape, strict=True):
        room = length - window.side
        steps = math.ceil(2 * room / window.side)
        found.append(round(at / room * steps) / steps if room else 0.0)
    return found[0], found[1]


def _cells(mask: Bool[np.ndarray, "s s"]) -> Bool[Tensor, " cells"]:
    """The places of a window that have some of the mask."""
    return F.adaptive_max_pool2d(torch.from_numpy(np.array(mask))[None, None].float(), PATCH_SIDE).flatten() > 0


def patches(images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float[Tensor, "n cells d"]:
    """Features of PATCH_SIDE x PATCH_SIDE places of squares of any size: the levels at strides 8 and 16 side by side, each of
    unit length.

    Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (CVPR 2022), Sec. 3.1, without pooling.
    """
    parts = []
    for start in range(0, len(images), CHUNK):
        seen = np.stack([resize_picture(image, (SIDE, SIDE)) for image in images[start : start + CHUNK]])
        levels = [F.normalize(level, dim=1) for level in features(seen, 3)[1:]]
        joined = torch.cat([F.interpolate(level, (PATCH_SIDE, PATCH_SIDE), mode="bilinear") for level in levels], dim=1)
        parts.append(joined.flatten(2).transpose(1, 2))
    return torch.cat(parts)


def usual_distance(found: Float[Tensor, "n cells d"], owners: Tensor, first: int) -> float:
    """The median distance of a patch of the ``first`` windows to the nearest patch of the windows of other images; nan where
    there is no other image."""
    if len(set(owners.tolist())) < 2:
        return float("nan")
    rng, values = numpy_generator(0, "quality", "cells"), []
    for index in range(first):
        cells = torch.from_numpy(rng.choice(found.shape[1], min(CELLS, found.shape[1]), replace=False))
        values.append(nearest(found[index, cells], found[owners != owners[index]].flatten(0, 1)))
    return float(torch.cat(values).median())


def nearest(cells: Float[Tensor, "n d"], bank: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """The distance of each to the nearest in the bank."""
    return torch.cdist(cells, bank).amin(dim=1)
