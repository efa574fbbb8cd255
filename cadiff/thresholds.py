"""The arithmetic of a threshold: what the scores of good pictures promise.

Split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005; Lei et al., JASA 2018): of n calibration scores
the k-th smallest, k = ceil((n + 1) (1 - a)), is exceeded by a new good picture's with a probability of at most a, whatever the detector,
provided that the new picture comes as those did. A picture is defective where its score is *above* the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Float
from scipy import stats

INTERVAL = 0.95
FAINT = 0.05  # the quantile of generated anomalies' scores that counts: most lie above it
ROUNDING = 1e-4  # of a score: the same picture in another batch or runtime has other last digits; a calibration picture stays good there
CERTAIN = 1e-6  # logits are taken of scores this far from 0 and 1


@dataclass(frozen=True)
class Threshold:
    """A score above ``value`` is called defective.

    ``promised`` is the chance that a new good picture's is, over draws of the ``normals`` calibration pictures; with those that were
    drawn, the share of good pictures above lies between ``low`` and ``high`` with 95 % probability. ``missing``: how many more
    calibration normals it takes before ``detector.false_alarms`` can be promised (0: it is).
    """

    value: float
    normals: int
    promised: float
    low: float
    high: float
    missing: int


@dataclass(frozen=True)
class Thresholds:
    """Of an image's score, and of a pixel in a picture that is called defective."""

    image: Threshold
    pixel: Threshold


def conformal(scores: Float[np.ndarray, " n"], false_alarms: float) -> Threshold:
    """The threshold that n good pictures set: with r = floor((n + 1) a) of n + 1 allowed above, the r-th largest
    (with ``ROUNDING``).

    Where that is less than one (n < 1/a - 1) there are too few: the largest score is taken, which promises 1 / (n + 1), more than a.
    The share of good pictures above an r-th largest of n is Beta(r, n + 1 - r) distributed (the law of order statistics of a uniform
    variable); ``low`` and ``high`` are its 2.5 and 97.5 % points. Where scores are tied the share is smaller still.

    Raises:
        ValueError: if there is no score.
    """
    count = len(scores)
    if count == 0:
        raise ValueError("conformal: expected at least one score, found none")
    share = Fraction(str(false_alarms))  # 0.07 x 100 is below 7 in floating point
    allowed = max(1, math.floor((count + 1) * share))
    low, high = stats.beta.interval(INTERVAL, allowed, count + 1 - allowed)
    missing = max(0, math.ceil(1 / share) - 1 - count)
    return Threshold(beyond(float(np.sort(scores)[-allowed])), count, allowed / (count + 1), float(low), float(high), missing)


def beyond(score: float) -> float:
    """The least threshold that is above a score, wherever the picture is scored.

    Of a probability above a half the margin is a share of what is left to 1: that is how its rounding shrinks, down to that of float32
    itself, and a share of the score would end above 1, where nothing is ever called defective.
    """
    return score + ROUNDING * (max(1 - score, 0.01) if 0.5 < score < 1 else abs(score))


def between(good: Threshold, anomalous: Float[np.ndarray, " n"]) -> Threshold:
    """Moved half way, in logits, towards the 5 % quantile of generated anomalies' scores (probabilities), where that lies above it.

    What good pictures promise then holds as a bound: no more of them are above a higher threshold, and ``low`` is 0.
    """
    faint = float(np.quantile(anomalous, FAINT))
    if faint <= good.value:
        return good
    middle = (_logit(good.value) + _logit(faint)) / 2
    return replace(good, value=max(good.value, 1 / (1 + math.exp(-middle))), low=0.0)


def _logit(score: float) -> float:
    clipped = min(max(score, CERTAIN), 1 - CERTAIN)
    return math.log(clipped / (1 - clipped))
