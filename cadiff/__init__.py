"""CADiff: context-aware diffusion for controllable anomaly generation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cadiff._torchvision import mend_when_imported

if TYPE_CHECKING:
    from cadiff.detection import Inspector

mend_when_imported()

__version__ = "0.1.0"


def load_detector(path: str | Path) -> Inspector:
    """A trained detector: ``load_detector("data/made/detectors/both/nut").predict("picture.png")``. ``path`` is its folder (its lowest
    seed), or its ``seed-<s>.json``.

    Raises:
        cadiff.errors.UsageError: if there is none.
        cadiff.errors.CADiffError: if its files are not whole.
    """
    from cadiff.detection import load_detector as load  # torch takes a second to import

    return load(path)
