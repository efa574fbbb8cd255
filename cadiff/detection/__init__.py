"""The segmenter and the classifier that are trained on generated anomalies, their peers, and how all are scored."""

from cadiff.detection.classifier import classify
from cadiff.detection.filtering import filter_shards
from cadiff.detection.measuring import rows_to_score
from cadiff.detection.peers import fit_peer, score_maps, score_peer
from cadiff.detection.scoring import score
from cadiff.detection.seeds import detect_seeds
from cadiff.detection.training import train_detector

__all__ = [
    "classify", "detect_seeds", "filter_shards", "fit_peer", "rows_to_score", "score", "score_maps", "score_peer", "train_detector",
]  # fmt: skip
