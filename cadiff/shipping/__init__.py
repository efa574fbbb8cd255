"""A trained detector as a folder that needs none of this package: ONNX graphs, a script that runs them, what is known of it."""

from cadiff.shipping.folder import check_out, ship_detector
from cadiff.shipping.pace import pace_of
from cadiff.shipping.refit import refit

__all__ = ["check_out", "pace_of", "refit", "ship_detector"]
