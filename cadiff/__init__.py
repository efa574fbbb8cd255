"""CADiff: context-aware diffusion for controllable anomaly generation."""

from cadiff._torchvision import mend_when_imported

mend_when_imported()

__version__ = "0.1.0"
