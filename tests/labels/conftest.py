"""A few drawn pictures, which the labels are of."""

from __future__ import annotations

from pathlib import Path

import pytest
from plates import picture

from cadiff.storage import write_image


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """``plate``: bad/1.png to bad/3.png with a spot, ok/1.png to ok/6.png without."""
    for index in range(1, 4):
        write_image(tmp_path / "plate" / "bad" / f"b{index}.png", picture(index, spot=True))
    for index in range(1, 7):
        write_image(tmp_path / "plate" / "ok" / f"g{index}.png", picture(100 + index))
    return tmp_path / "plate"
