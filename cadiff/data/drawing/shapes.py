"""Silhouettes as signed distances, and the parts that are built from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cadiff.data.drawing.scene import Field, rotate

SignedDistance = Callable[[Field, Field], Field]


def disc(x: Field, y: Field, radius: float = 0.62) -> Field:
    distance: Field = np.hypot(x, y) - radius
    return distance


def box(x: Field, y: Field, half_width: float, half_height: float, corner: float = 0.05) -> Field:
    """A rounded rectangle."""
    dx, dy = np.abs(x) - half_width + corner, np.abs(y) - half_height + corner
    distance: Field = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner
    return distance


def capsule(x: Field, y: Field, half_length: float = 0.42, radius: float | Field = 0.26) -> Field:
    distance: Field = np.hypot(np.abs(x) - np.minimum(np.abs(x), half_length), y) - radius
    return distance


def polygon(x: Field, y: Field, sides: int = 6, apothem: float = 0.60) -> Field:
    """A regular polygon: the largest distance to its edges."""
    angles = np.arange(sides) * 2 * np.pi / sides
    distance: Field = np.max([np.cos(a) * x + np.sin(a) * y for a in angles], axis=0) - apothem
    return distance


def gear(x: Field, y: Field, teeth: int = 10, radius: float = 0.62, depth: float = 0.10) -> Field:
    wave = np.clip(1.6 * np.cos(np.arctan2(y, x) * teeth), -1, 1)
    distance: Field = np.hypot(x, y) - radius - 0.5 * depth * wave
    return distance


def drilled(body: Field, x: Field, y: Field, radius: float) -> Field:
    """The body with a round hole through its middle."""
    distance: Field = np.maximum(body, radius - np.hypot(x, y))
    return distance


def silhouette_of(word: str, proportions: np.ndarray) -> SignedDistance:
    """The signed distance of the shape called ``word``; ``proportions`` (4 numbers in [0, 1]) are the product's own."""
    p, q, r, s = map(float, proportions)
    shapes: dict[str, SignedDistance] = {
        "disc": lambda x, y: disc(x, y, 0.45 + 0.27 * p),
        "ring": lambda x, y: drilled(disc(x, y, 0.55 + 0.2 * p), x, y, 0.2 + 0.15 * q),
        "plate": lambda x, y: box(x, y, 0.45 + 0.35 * p, 0.35 + 0.35 * q, 0.02 + 0.2 * r),
        "capsule": lambda x, y: capsule(x, y, 0.25 + 0.25 * p, 0.2 + 0.14 * q),
        "bar": lambda x, y: box(x, y, 0.65 + 0.2 * p, 0.12 + 0.15 * q, 0.02 + 0.1 * r),
        "nut": lambda x, y: drilled(polygon(x, y, 6, 0.48 + 0.17 * p), x, y, 0.2 + 0.1 * q),
        "tile": lambda x, y: polygon(x, y, 3 + round(5 * q), 0.45 + 0.18 * p),
        "gear": lambda x, y: drilled(gear(x, y, 6 + round(8 * q), 0.5 + 0.15 * p, 0.1 + 0.08 * r), x, y, 0.12 + 0.15 * s),
        "bottle": lambda x, y: np.minimum(box(x, y - 0.15, 0.28 + 0.12 * p, 0.55, 0.12), box(x, y + 0.55, 0.10 + 0.06 * q, 0.25, 0.03)),
        "bracket": lambda x, y: np.minimum(box(x + 0.35, y, 0.18 + 0.1 * p, 0.62, 0.03), box(x, y - 0.42, 0.6, 0.18 + 0.1 * q, 0.03)),
    }  # fmt: skip
    return shapes[word]


SHAPES = ("disc", "ring", "plate", "capsule", "bar", "nut", "tile", "gear", "bottle", "bracket")


def placed(distance: SignedDistance, x: Field, y: Field, centre: tuple[float, float], angle: float, scale: float) -> Field:
    """The signed distance of a shape moved to ``centre``, turned by ``angle`` and scaled."""
    u, v = rotate((x - centre[0]) / scale, (y - centre[1]) / scale, angle)
    return distance(u, v) * scale


@cache
def _letters(text: str) -> tuple[Field, float]:
    """A text drawn 64 px high, 1 where ink is, and its width by its height."""
    font = ImageFont.load_default(64)
    left, top, right, bottom = map(round, font.getbbox(text))
    page = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(page).text((4 - left, 4 - top), text, fill=255, font=font)
    return np.asarray(page, np.float32) / 255, page.width / page.height


def lettering(x: Field, y: Field, text: str, height: float) -> Field:
    """1 where a text of this height, its middle at the origin, has ink; its edges are as soft as the coordinates are coarse."""
    page, wide = _letters(text)
    across, down = x / (height * wide) + 0.5, y / height + 0.5
    inside = (np.abs(across - 0.5) < 0.5) & (np.abs(down - 0.5) < 0.5)
    found = np.zeros(x.shape, np.float32)
    at = np.stack([down[inside] * page.shape[0] - 0.5, across[inside] * page.shape[1] - 0.5])
    found[inside] = ndimage.map_coordinates(_softened(text, round(len(x) * height / 2)), at, order=1, mode="nearest")
    return found


@cache
def _softened(text: str, pixels: int) -> Field:
    """The letters blurred to what so many pixels of height can show."""
    page, _ = _letters(text)
    return np.asarray(ndimage.gaussian_filter(page, 0.4 * page.shape[0] / max(pixels, 1)), np.float32)


def bevel(distance: Field, rise: float, width: float) -> Field:
    """The height of a body with rounded edges: 0 at the silhouette, ``rise`` inside of ``width``."""
    inward = np.clip(-distance / width, 0, 1)
    return (rise * np.sqrt(np.clip(inward * (2 - inward), 0, 1))).astype(np.float32)
