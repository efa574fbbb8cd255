"""What transparent pictures are laid on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8

from cadiff.decoding import decode_values
from cadiff.errors import CADiffError, UsageError
from cadiff.opening import read_file

LOOKED_AT = 9  # opaque normals whose border says the background
BORDER = 0.02  # of the shorter side: how wide that is

Colour = tuple[float, float, float]


def parse_colour(text: str) -> Colour:
    """``R,G,B`` in values of the pictures' own depth.

    Raises:
        UsageError: if it is no such colour.
    """
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--background {text}: expected three whole numbers, as 128,128,128, from 0 to 255 (of 16 bits: 65535)") from None
    if min(red, green, blue) < 0:
        raise UsageError(f"--background {text}: expected numbers from 0 on")
    return red, green, blue


def colour_around(normals: Sequence[Path], product: Path) -> Colour:
    """The median colour of what borders a product's opaque normals, of which some are looked at.

    Raises:
        UsageError: if none of them is opaque.
    """
    borders = []
    for values in _opaque(normals):
        width = max(1, round(BORDER * min(values.shape[:2])))
        inner = np.ones(values.shape[:2], bool)
        inner[width:-width, width:-width] = False
        colours = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
        borders.append(np.median(colours[inner], axis=0))
        if len(borders) == LOOKED_AT:
            break
    if not borders:
        raise UsageError(
            f"{product}: pictures with transparent pixels, and no opaque train normal whose background they could be laid on; name a "
            "colour: --background 128,128,128"
        )
    red, green, blue = (float(value) for value in np.median(borders, axis=0))
    return red, green, blue


def _opaque(paths: Sequence[Path]) -> Iterator[Num[np.ndarray, "h w *c"]]:
    """Those that are read as they are: what is wrong with others is told elsewhere."""
    for path in paths:
        try:
            yield decode_values(read_file(path, "an image"), str(path))
        except CADiffError:
            continue


def laid_on(values: Num[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"], colour: Colour) -> Num[np.ndarray, "h w 3"]:
    """Values over a colour, at their own depth.

    Raises:
        UsageError: if the colour is none of this depth.
    """
    most = np.iinfo(values.dtype).max
    if max(colour) > most:
        raise UsageError(f"--background {','.join(f'{value:g}' for value in colour)}: expected numbers up to {most}, as the pictures have")
    share = alpha[..., None].astype(np.float32) / np.float32(255)
    laid: np.ndarray = np.rint(values * share + np.array(colour, np.float32) * (1 - share)).astype(values.dtype)
    return laid
