"""What a threshold promises, held against simulations and against other ways to count."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadiff.thresholds import Threshold, between, beyond, conformal

SHARES = st.sampled_from([0.001, 0.01, 0.02, 0.05, 0.07, 0.1, 0.3, 0.5, 0.9])


@given(st.integers(1, 400), SHARES)
def test_the_threshold_is_the_kth_smallest_and_says_how_many_are_missing(count: int, share: float) -> None:
    """Counted in another way: the least k with which at most a share of n + 1 lies above."""
    scores = np.random.default_rng(count).permutation(count).astype(float)
    found, allowed = conformal(scores, share), Fraction(str(share))
    fitting = [k for k in range(1, count + 1) if Fraction(count + 1 - k, count + 1) <= allowed]
    assert found.normals == count
    if fitting:
        assert found.value == beyond(sorted(scores)[fitting[0] - 1])
        assert found.missing == 0
        assert found.promised <= share + 1e-12
    else:
        assert found.value == beyond(scores.max())
        assert found.promised == pytest.approx(1 / (count + 1))
        assert found.promised > share
        enough, short = (conformal(np.arange(count + found.missing - less, dtype=float), share) for less in (0, 1))
        assert enough.promised <= share + 1e-12 < short.promised, "so many more are needed, and no fewer"
        assert (enough.missing, short.missing) == (0, 1)
    assert 0 <= found.low <= found.promised <= found.high <= 1


@pytest.mark.parametrize(("count", "share"), [(5, 0.01), (19, 0.1), (60, 0.02), (99, 0.01), (250, 0.01)])
def test_false_alarms_are_as_many_as_promised_and_vary_as_the_interval_says(count: int, share: float) -> None:
    """Scores of a law that has nothing to do with the rule; of each of many calibrations the true rate is known from the law."""
    rng, rates, seen = np.random.default_rng(count), [], []
    for _ in range(4000):
        found = conformal(rng.exponential(size=count), share)
        rates.append(np.exp(-found.value))
        seen.append((rng.exponential(size=20) > found.value).mean())
    spread = np.std(rates) / len(rates) ** 0.5
    assert np.mean(rates) == pytest.approx(found.promised, abs=5 * spread)
    assert np.mean(seen) == pytest.approx(found.promised, abs=5 * np.std(seen) / len(seen) ** 0.5)
    below, above = np.mean(np.array(rates) < found.low), np.mean(np.array(rates) > found.high)
    assert below == pytest.approx(0.025, abs=0.01)
    assert above == pytest.approx(0.025, abs=0.01)


@pytest.mark.parametrize("score", [0.02, 0.5, 0.9, 0.999, 0.99998])
def test_a_good_picture_that_is_nearly_certain_leaves_room_above_it(score: float) -> None:
    """A threshold above 1 would never call anything defective; what it moves the odds by is little."""
    value = conformal(np.array([0.01, score]), 0.5).value
    assert score < value < 1
    assert value / (1 - value) == pytest.approx(score / (1 - score), rel=0.06)


def test_tied_scores_alarm_less_often_than_promised() -> None:
    rng, seen = np.random.default_rng(0), []
    for _ in range(2000):
        found = conformal(rng.integers(0, 4, 30).astype(float), 0.1)
        seen.append((rng.integers(0, 4, 20) > found.value).mean())
    assert np.mean(seen) <= 0.1
    assert conformal(np.zeros(30), 0.1).value == 0.0, "another 0 is not above"


def test_a_calibration_picture_is_good_whatever_its_score_is_rounded_to() -> None:
    for score in (1e-7, 0.03, 0.999, 12.5):
        last = 5e-7 if score == 0.999 else 1e-5 * score  # a probability near 1 is rounded as float32 is
        assert conformal(np.array([score]), 0.01).value > score + last, "another runtime's last digits"
        assert conformal(np.array([score]), 0.01).value < score * 1.001, "and no more: faint defects lie close"


def test_no_score_is_no_threshold() -> None:
    with pytest.raises(ValueError, match="found none"):
        conformal(np.array([]), 0.1)


def test_between_is_half_way_in_odds_and_never_below_the_good() -> None:
    good = Threshold(0.2, 50, 1 / 51, 0.0005, 0.07, 49)
    faint = np.full(20, 0.8)
    moved = between(good, faint)
    assert moved.value == pytest.approx(0.5), "odds of 1/4 and 4"
    assert (moved.promised, moved.low, moved.high, moved.normals) == (good.promised, 0.0, good.high, 50)
    mixed = np.r_[0.01, np.full(99, 0.9)]
    odds = (0.25 * np.quantile(mixed, 0.05) / (1 - np.quantile(mixed, 0.05))) ** 0.5
    assert between(good, mixed).value == pytest.approx(odds / (1 + odds))
    assert between(good, np.full(20, 0.1)) == good
    for value in (0.0, 1e-9, 0.5, 1 - 1e-9):
        sure = between(Threshold(value, 9, 0.1, 0, 0.3, 0), np.ones(9))
        assert value <= sure.value <= 1
