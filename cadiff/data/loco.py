"""MVTec LOCO AD: logical anomalies (a wrong number of parts, a wrong place) beside structural ones, in MVTec AD's layout (``mvtec``)."""

from __future__ import annotations

import os
from pathlib import Path

from cadiff.data import mvtec

TYPES = ("logical_anomalies", "structural_anomalies")


def is_product(path: Path) -> bool:
    return any(os.path.isdir(path / "test" / name) for name in TYPES)


READER = mvtec.READER
