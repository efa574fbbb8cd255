"""Ranking metrics against scikit-learn, torchmetrics and cases worked by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.measure import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from cadiff.errors import CADiffError
from cadiff.metrics.pixels import PixelRanking, pro
from cadiff.metrics.ranking import accuracy, auroc, average_precision, f1_max


def _random(seed: int, ties: bool, shape: tuple[int, ...] = (3, 9, 9)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(shape) < 0.2
    scores = rng.random(shape) + 0.3 * labels
    return labels, (np.round(scores, 1) if ties else scores).astype(np.float32)


def _f1_by_hand(labels: np.ndarray, scores: np.ndarray) -> float:
    best = 0.0
    for threshold in np.unique(scores):
        called = scores >= threshold
        hit = np.count_nonzero(called & labels)
        best = max(best, 2 * hit / (np.count_nonzero(called) + np.count_nonzero(labels)))
    return best


def _pro_by_hand(masks: np.ndarray, maps: np.ndarray, limit: float) -> float:
    """One threshold after another, regions grown by flood fill: slow, sharing no code with the real one."""
    regions = []
    for index, mask in enumerate(masks):
        left = set(zip(*np.nonzero(mask), strict=True))
        while left:
            stack, region = [left.pop()], []
            while stack:
                row, column = stack.pop()
                region.append((index, row, column))
                near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
                left -= near
                stack.extend(near)
            regions.append(tuple(np.array(region).T))
    curve = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        called = maps >= threshold
        overlap = np.mean([called[region].mean() for region in regions])
        curve.append((called[~masks].mean(), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x1 > x0 and x0 < limit:
            end = min(x1, limit)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_against_independent_oracles(seed: int, ties: bool) -> None:
    labels, scores = _random(seed, ties)
    target, predicted = torch.from_numpy(labels.ravel()).int(), torch.from_numpy(scores.ravel() / 2)
    assert auroc(labels, scores) == pytest.approx(float(binary_auroc(predicted, target)), abs=1e-6)
    assert average_precision(labels, scores) == pytest.approx(
        float(binary_average_precision(predicted, target)), abs=1e-6
    )
    assert f1_max(labels, scores) == pytest.approx(_f1_by_hand(labels, scores), abs=1e-12)
    for limit in (0.05, 0.3, 1.0):
        assert pro(labels, scores, limit) == pytest.approx(_pro_by_hand(labels, scores, limit), abs=1e-9)


def _pro_by_libraries(masks: np.ndarray, maps: np.ndarray, limit: float) -> float:
    """The mean over regions of each one's partial ROC area, its pixels against all normal ones; scikit-learn standardises
    that area (McClish), which is undone here."""
    areas = []
    for index, mask in enumerate(masks):
        regions = label(mask, connectivity=2)
        for number in range(1, regions.max() + 1):
            scores = np.concatenate([maps[index][regions == number], maps[~masks]])
            truth = np.arange(len(scores)) < np.count_nonzero(regions == number)
            standard = roc_auc_score(truth, scores, max_fpr=limit)
            least = limit**2 / 2
            areas.append((2 * standard - 1) * (limit - least) + least)
    return float(np.mean(areas)) / limit


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pro_is_that_of_scikit_image_and_scikit_learn(seed: int, ties: bool) -> None:
    """Stands in for anomalib's AUPRO (test_metrics_anomalib.py) where that is not installed."""
    masks, maps = _random(seed, ties, (4, 16, 16))
    for limit in (0.1, 0.3):
        assert pro(masks, maps, limit) == pytest.approx(_pro_by_libraries(masks, maps, limit), abs=1e-9)
    with PixelRanking() as ranking:
        ranking.add(masks, maps)
        assert ranking.overall().pro == pytest.approx(_pro_by_libraries(masks, maps, 0.3), abs=1e-9)


def test_pro_worked_case() -> None:
    # One column of seven is anomalous and the score falls from row to row: at every threshold the overlap
    # equals the false positive rate, so the area up to 1/3 is a triangle of 1/18, and 1/6 once divided by
    # 1/3.
    masks = np.zeros((1, 7, 7), dtype=bool)
    masks[0, :, 3] = True
    maps = np.repeat(np.linspace(1, 0, 7)[:, None], 7, axis=1)[None]
    assert pro(masks, maps, 1 / 3) == pytest.approx(1 / 6, abs=1e-12)


def test_pro_gives_small_and_large_regions_the_same_weight() -> None:
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, :4, :4] = True
    masks[0, 7, 7] = True
    maps = np.zeros((1, 8, 8))
    maps[0, 7, 7] = 1.0  # only the single pixel is found: one region of two
    assert pro(masks, maps, 0.3) == pytest.approx((0.5 + 0.5 + 0.5 * 0.3) / 2, abs=1e-12)


def test_pro_diagonal_neighbours_are_one_region() -> None:
    masks = np.zeros((1, 4, 4), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = True
    maps = np.zeros((1, 4, 4))
    maps[0, 0, 0] = 1.0
    separate = np.stack([masks[0].copy(), masks[0].copy()])
    separate[0, 1, 1] = separate[1, 0, 0] = False
    assert pro(masks, maps, 1.0) == pytest.approx(0.75)
    assert pro(separate, np.stack([maps[0], maps[0] * 0]), 1.0) < 0.76


def test_perfect_and_tied_scores() -> None:
    labels, _ = _random(0, ties=False)
    assert (auroc(labels, labels), average_precision(labels, labels), f1_max(labels, labels)) == (1, 1, 1)
    assert pro(labels, labels.astype(float)) == pytest.approx(1)
    flat = np.full(labels.shape, 0.5)
    share = labels.mean()
    assert auroc(labels, flat) == 0.5
    assert average_precision(labels, flat) == pytest.approx(share)
    assert f1_max(labels, flat) == pytest.approx(2 * share / (1 + share))
    assert pro(labels, flat, 0.3) == pytest.approx(0.15)


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max, pro])
@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 1, 1)])
def test_constant_labels_are_not_defined(metric, value: bool, shape: tuple[int, ...]) -> None:
    scores = np.random.default_rng(0).random(shape)
    assert math.isnan(metric(np.full(shape, value), scores))


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max, pro])
def test_what_cannot_be_ranked_is_an_error(metric) -> None:
    labels, scores = _random(0, ties=False)
    with pytest.raises(CADiffError, match="expected one per label"):
        metric(labels, scores[:1])
    scores[0, 0, 0] = np.nan
    with pytest.raises(CADiffError, match="1 are not"):
        metric(labels, scores)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("run", [1, 50, 200, 10**6])
def test_pixels_in_runs_on_disk_give_the_figures_of_all_at_once(run: int, ties: bool, tmp_path: Path) -> None:
    masks, maps = _random(5, ties, (12, 9, 9))
    maps -= 0.4  # negative scores too
    masks[:4] = False
    types = [None] * 4 + ["hole"] * 4 + ["crack"] * 4
    with PixelRanking(0.3, run, tmp_path) as ranking:
        for k in range(0, 12, 3):
            ranking.add(masks[k : k + 3], maps[k : k + 3], types[k : k + 3])
            ranking.overall()  # asking early changes nothing
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert bool(files) == (run < 12 * 81)
        for kind, chosen in ((None, slice(None)), ("hole", slice(8)), ("crack", np.r_[0:4, 8:12])):
            found = ranking.of_type(kind) if kind else ranking.overall()
            labels, scores = masks[chosen].ravel(), maps[chosen].ravel()
            precision, recall, _ = precision_recall_curve(labels, scores)
            f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
            expected = (roc_auc_score(labels, scores), average_precision_score(labels, scores), f1)
            assert found[:3] == pytest.approx(expected, abs=1e-12)
            assert found.pro == pytest.approx(_pro_by_hand(masks[chosen], maps[chosen], 0.3), abs=1e-9)
    assert not list(tmp_path.iterdir())


def test_pictures_of_any_shapes_are_ranked_together() -> None:
    """The figures of all their pixels in one row; a map that is not of its mask's shape is refused, and nothing is taken."""
    parts = [_random(seed, True, shape) for seed, shape in enumerate([(9, 9), (5, 20), (16, 3)])]
    labels, scores = (np.concatenate([part[k].ravel() for part in parts]) for k in (0, 1))
    with PixelRanking() as ranking:
        ranking.add([mask for mask, _ in parts[:2]], [map_ for _, map_ in parts[:2]])
        with pytest.raises(CADiffError, match=r"expected one per label, \(16, 3\), found \(3, 16\)"):
            ranking.add([parts[0][0], parts[2][0]], [parts[0][1], parts[2][1].T])
        with pytest.raises(CADiffError, match="a map for each of 2 masks, found 1"):
            ranking.add([parts[0][0], parts[2][0]], [parts[0][1]])
        ranking.add([parts[2][0]], [parts[2][1]])
        found = ranking.overall()
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 1, 1)])
def test_pixels_of_one_label_are_not_defined(value: bool, shape: tuple[int, ...]) -> None:
    with PixelRanking() as ranking:
        assert all(map(math.isnan, ranking.overall())), "no pixel at all"
        ranking.add(np.full(shape, value), np.random.default_rng(0).random(shape), ["hole"] * shape[0])
        assert all(map(math.isnan, ranking.overall()))
        assert all(map(math.isnan, ranking.of_type("hole")))


def test_accuracy() -> None:
    labels = np.array([0, 0, 1, 2])
    assert accuracy(labels, np.array([0, 1, 1, 2]), 3) == 0.75
    assert math.isnan(accuracy(labels * 0, labels * 0, 1)), "one class: nothing to tell apart"
    assert math.isnan(accuracy(labels[:0], labels[:0], 3))
    with pytest.raises(CADiffError, match="expected one per label"):
        accuracy(labels, labels[:2], 3)


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    """In a process each, so that one's peak is not the other's: eight times the pixels, the same memory."""
    script = (
        "import resource, sys, numpy as np; from cadiff.metrics.pixels import PixelRanking; rng = np.random.default_rng(0)\n"
        "mask = np.zeros((1, 256, 256), bool); mask[0, 9:40, 9:40] = True\n"
        "with PixelRanking(run=2**18) as ranking:\n"
        "    for k in range(int(sys.argv[1])):\n"
        "        ranking.add(mask, rng.random((1, 256, 256), dtype=np.float32))\n"
        "    ranking.overall()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    few, many = (
        int(subprocess.run([sys.executable, "-c", script, count], capture_output=True, text=True, check=True).stdout)
        for count in ("16", "128")
    )
    pixels = 112 * 256 * 256 * 4 / 1024  # kB of the further maps alone, as float32
    assert many - few < pixels / 4, f"peak of 16 images {few} kB, of 128 {many} kB"


@pytest.mark.parametrize("run", [7, 10**6])
def test_f1_above_given_thresholds_alone(run: int) -> None:
    """As published code has it: the pixels above 0, 0.05, ..., 1, in double precision, whatever scores there are in between."""
    steps = np.arange(0.0, 1.0 + 1e-3, 0.05)
    for seed, ties in ((0, False), (1, True)):
        labels, scores = _random(seed, ties)
        scores = np.clip(scores, 0, 1)
        scores[0, 0, :3] = np.float32(0.05), np.float32(0.7), np.float32(1.0)  # at a threshold, on either side of its double
        best = 0.0
        for step in steps:
            called = scores.astype(np.float64) > step
            best = max(best, 2 * np.count_nonzero(called & labels) / (np.count_nonzero(called) + np.count_nonzero(labels)))
        with PixelRanking(run=run, thresholds=steps.tolist()) as ranking:
            ranking.add(list(labels), list(scores), ["hole"] * 3)
            assert ranking.overall().f1max == ranking.of_type("hole").f1max == pytest.approx(best, rel=1e-12)
        with PixelRanking() as ranking:
            ranking.add(list(labels), list(scores))
            assert ranking.overall().f1max >= best
    with PixelRanking(thresholds=[0.5]) as ranking:
        ranking.add([np.eye(3, dtype=bool)], [np.full((3, 3), 0.4)])
        assert ranking.overall().f1max == 0, "nothing is above it"
