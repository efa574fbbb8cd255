"""The segmenter that is trained on generated anomalies, and how it is scored on real ones."""

from cadiff.detection.scoring import score
from cadiff.detection.training import train_detector

__all__ = ["score", "train_detector"]
