"""TensorBoard's files of a training, where ``CADIFF_TENSORBOARD`` names a folder for them; no result depends on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cadiff.errors import UsageError

VARIABLE = "CADIFF_TENSORBOARD"


def check_installed() -> Any:
    """TensorBoard's writer.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            f"{VARIABLE}: TensorBoard's files need the extra tensorboard, which does not import ({str(error).splitlines()[0]}); "
            f'pip install -e ".[tensorboard]", or unset {VARIABLE}'
        ) from None
    return SummaryWriter


class Board:
    """One run of ``folder``; from ``start`` on, so that what a stopped training had told beyond its checkpoint is hidden."""

    def __init__(self, folder: Path, start: int) -> None:
        self.writer = check_installed()(str(folder), purge_step=start or None)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """uint8 images (``h w 3``) by name."""
        for name, image in images.items():
            self.writer.add_image(f"validation/{name}", image, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def opened(name: str, start: int) -> Board | None:
    """The board of a training called ``name``; None where none is asked for.

    Raises:
        UsageError: if TensorBoard is not installed.
    """
    folder = os.environ.get(VARIABLE)
    return Board(Path(folder) / name, start) if folder else None
