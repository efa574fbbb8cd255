"""Synthesis masks that someone drew: ``data/masks/<product>/<anomaly_type>/*.png`` (or any other lossless image)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from cadiff.errors import UsageError
from cadiff.storage import check_anomaly, image_files, read_image, resize_mask
from cadiff.visible import link_problem, linked_folders, twin

SOURCE = "folder"
FOLDER = Path("data/masks")  # dvc.yaml names it


def mask_files(product: str, anomaly_type: str) -> list[Path]:
    """A type's masks by name.

    Raises:
        UsageError: if there are none, or they lie behind a link to a folder, which DVC does not watch.
    """
    path = twin(FOLDER / product / anomaly_type)
    if links := linked_folders(FOLDER, [path]):
        raise UsageError(link_problem(links[0], FOLDER))
    files = image_files(path)
    if not files:
        raise UsageError(f"{path}: expected at least one mask here (masks.source: folder), found none")
    return files


def drawn_mask(path: Path, canvas: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """A mask file brought to a canvas, whatever its own shape.

    Raises:
        UsageError: if nothing or everything is marked in it as it is, or it is a JPEG.
    """
    mask = read_image(path, "L")
    check_anomaly(path, mask)
    return resize_mask(mask > 0, canvas)
