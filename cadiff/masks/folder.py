"""Synthesis masks that someone drew: ``FOLDER/<product>/<anomaly_type>/*.png`` (or any other lossless image)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from cadiff.errors import UsageError
from cadiff.storage import IMAGE_SUFFIXES, LOSSY_SUFFIXES, read_image

SOURCE = "folder"


def mask_files(folder: str | Path, product: str, anomaly_type: str) -> list[Path]:
    """A type's masks by name.

    Raises:
        UsageError: if there are none.
    """
    path = Path(folder) / product / anomaly_type
    there = path.iterdir() if path.is_dir() else ()
    files = sorted(file for file in there if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."))
    if not files:
        raise UsageError(f"{path}: expected at least one mask here (masks.folder), found none")
    return files


def read_mask(path: Path, side: int) -> Bool[np.ndarray, "side side"]:
    """A mask file at ``side`` x ``side``.

    Raises:
        UsageError: if nothing or everything is marked in it, or it is a JPEG.
    """
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise UsageError(f"{path}: JPEG blurs a mask's edge; expected a lossless mask, such as PNG")
    mask = read_image(path, "L", side) > 0
    if not mask.any():
        raise UsageError(f"{path}: empty mask; mark the anomaly or remove the file")
    if mask.all():
        raise UsageError(f"{path}: every pixel is marked; expected the anomaly's alone (is the mask inverted?)")
    return mask
