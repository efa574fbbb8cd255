"""Where anomalies may lie, and the scenes that are made of it."""

from cadiff.masks.exemplars import Placed
from cadiff.masks.foreground import foreground
from cadiff.masks.make import Placer, make_scenes

__all__ = ["Placed", "Placer", "foreground", "make_scenes"]
