"""Synthesis masks that someone drew: ``FOLDER/<anomaly_type>/*.png``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from cadiff.errors import UsageError
from cadiff.storage import read_image

SOURCE = "folder"


def mask_files(folder: str | Path, anomaly_type: str) -> list[Path]:
    """A type's PNG files by name.

    Raises:
        UsageError: if there are none.
    """
    path = Path(folder) / anomaly_type
    files = sorted(path.glob("*.png"))
    if not files:
        raise UsageError(f"{path}: expected at least one PNG mask here (masks.folder), found none")
    return files


def read_mask(path: Path, side: int) -> Bool[np.ndarray, "side side"]:
    """A mask file at ``side`` x ``side``.

    Raises:
        UsageError: if nothing is marked in it.
    """
    mask = read_image(path, "L", side) > 0
    if not mask.any():
        raise UsageError(f"{path}: empty mask; mark the anomaly or remove the file")
    return mask
