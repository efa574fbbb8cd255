"""How well anomaly scores rank images: AUROC, AP and F1-max over exact thresholds. (Pixels: cadiff.metrics.pixels.)

A ranking needs something to rank: where the labels are all equal (no anomaly, or nothing else) each of these
is nan, which means "not defined for these labels" and never "bad". Ties share one threshold, so the order in
which equal scores come changes nothing.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Num
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from cadiff.errors import CADiffError
from cadiff.metrics.pixels import check_scores


def auroc(labels: Bool[np.ndarray, "*n"], scores: Num[np.ndarray, "*n"]) -> float:
    """Area under the ROC curve (ties count half); nan where the labels are all equal.

    Raises:
        CADiffError: if the shapes differ or a score is not finite.
    """
    labels, scores = _flat(labels, scores)
    return float(roc_auc_score(labels, scores)) if _rankable(labels) else float("nan")


def average_precision(labels: Bool[np.ndarray, "*n"], scores: Num[np.ndarray, "*n"]) -> float:
    """Step-wise area under the precision-recall curve; nan where the labels are all equal.

    Raises:
        CADiffError: if the shapes differ or a score is not finite.
    """
    labels, scores = _flat(labels, scores)
    return float(average_precision_score(labels, scores)) if _rankable(labels) else float("nan")


def f1_max(labels: Bool[np.ndarray, "*n"], scores: Num[np.ndarray, "*n"]) -> float:
    """The largest F1 that any threshold reaches; nan where the labels are all equal.

    Raises:
        CADiffError: if the shapes differ or a score is not finite.
    """
    labels, scores = _flat(labels, scores)
    if not _rankable(labels):
        return float("nan")
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)))


def accuracy(labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: int) -> float:
    """The share of labels that were predicted; nan where there is nothing to tell apart (no image, or one class)."""
    if labels.shape != predicted.shape:
        raise CADiffError(f"predicted: expected one per label, {labels.shape}, found {predicted.shape}.")
    return float(np.mean(labels == predicted)) if len(labels) and classes > 1 else float("nan")


def _flat(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores)
    check_scores(labels, scores)
    return labels.astype(bool).ravel(), scores.astype(np.float64).ravel()


def _rankable(labels: np.ndarray) -> bool:
    return bool(labels.any()) and not bool(labels.all())
