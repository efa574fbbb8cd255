"""How well anomaly scores rank pixels and images: AUROC, AP, F1-max and PRO, all over exact thresholds.

A ranking needs something to rank: where the labels are all equal (no anomaly, or nothing else) each of these
is nan, which means "not defined for these labels" and never "bad". Ties share one threshold, so the order in
which equal scores come changes nothing.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Num
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from cadiff.errors import CADiffError

PRO_LIMIT = 0.3
_EIGHT_CONNECTED = np.ones((3, 3), dtype=int)


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


def pro(masks: Bool[np.ndarray, "n h w"], maps: Num[np.ndarray, "n h w"], limit: float = PRO_LIMIT) -> float:
    """Per-region overlap, integrated over the false positive rate up to ``limit`` and divided by it.

    Regions are the 8-connected components of each mask and weigh the same whatever their size; the false
    positive rate is over all normal pixels of all images. The curve starts at (0, 0), its points are the
    distinct scores, and it is linear between them, as in Bergmann et al., "The MVTec Anomaly Detection
    Dataset" (IJCV 2021), 5.2.

    Returns:
        A share in [0, 1]; nan where no pixel is anomalous or none is normal.

    Raises:
        CADiffError: if the shapes differ, a score is not finite, or the limit is not in (0, 1].
    """
    if not 0 < limit <= 1:
        raise CADiffError(f"limit: expected a false positive rate in (0, 1], found {limit}.")
    labels, scores = _flat(masks, maps)
    if not _rankable(labels):
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    overlap = np.cumsum(_region_shares(masks)[order])[last_of_tie]
    false_positives = np.cumsum(~labels[order])[last_of_tie] / np.count_nonzero(~labels)
    return _area_up_to(np.append(0.0, false_positives), np.append(0.0, overlap), limit)


def _region_shares(masks: Bool[np.ndarray, "n h w"]) -> Num[np.ndarray, " pixels"]:
    """What each pixel adds to the mean overlap when called anomalous: 1 / (regions * its region's pixels)."""
    regions = np.zeros(masks.shape, dtype=np.int64)
    count = 0
    for index, mask in enumerate(masks):
        found, of_image = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        regions[index] = np.where(mask, found + count, 0)
        count += of_image
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    shares = 1.0 / (count * np.maximum(sizes, 1))
    shares[0] = 0.0
    return shares[regions.ravel()]


def _area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """The trapezoid area below the curve for ``x <= limit``, over ``limit``; ``x`` is rising, from 0 to 1."""
    inside = np.searchsorted(x, limit, side="right")
    # x may rise straight up at the limit itself; what lies at the limit adds no area, so interpolation is
    # safe.
    x_end, y_end = np.append(x[:inside], limit), np.append(y[:inside], np.interp(limit, x, y))
    return float(np.trapezoid(y_end, x_end) / limit)


def _flat(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape:
        raise CADiffError(f"scores: expected one per label, {labels.shape}, found {scores.shape}.")
    if not np.isfinite(scores).all():
        count = np.count_nonzero(~np.isfinite(scores))
        raise CADiffError(f"scores: expected finite numbers, {count} are not; did training diverge?")
    return labels.astype(bool).ravel(), scores.astype(np.float64).ravel()


def _rankable(labels: np.ndarray) -> bool:
    return bool(labels.any()) and not bool(labels.all())
