"""CADiff: context-aware diffusion for controllable anomaly generation."""

from cadiff._torchvision import make_importable

make_importable()

__version__ = "0.1.0"
