"""The segmenter and the classifier that are trained on generated anomalies, their peers, how all are scored, and how one is applied."""

from cadiff.detection.classifier import classify
from cadiff.detection.filtering import filter_shards
from cadiff.detection.inspector import Inspector, Prediction, Region, load_detector
from cadiff.detection.measuring import rows_to_score
from cadiff.detection.peers import fit_peer, score_maps, score_peer
from cadiff.detection.scoring import score
from cadiff.detection.seeds import detect_published, detect_seeds, train_seed
from cadiff.detection.training import train_detector

__all__ = [
    "Inspector", "Prediction", "Region", "classify", "detect_published", "detect_seeds", "filter_shards", "fit_peer", "load_detector",
    "rows_to_score", "score", "score_maps", "score_peer", "train_detector", "train_seed",
]  # fmt: skip
