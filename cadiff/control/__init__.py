"""SSC: ControlNet on the anomaly mask, joined to the U-Net through the self-adaptive interaction module (Eq. 9-10)."""

from cadiff.control.saim import SelfAdaptiveInteraction
from cadiff.control.spatial import SpatialControl

__all__ = ["SelfAdaptiveInteraction", "SpatialControl"]
