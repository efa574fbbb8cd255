"""anomalib's metrics against ours on the same maps. anomalib is an optional extra: pip install -e ".[anomalib]".

Without it nothing goes untested: test_metrics_ranking.py compares the same four figures with scikit-learn's and scikit-image's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cadiff.metrics.pixels import PixelRanking

metrics = pytest.importorskip("anomalib.metrics", reason="anomalib is not installed (the extra `anomalib`)")


def _maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks as regions (none touch, so that 4- and 8-connection agree), scores that follow them loosely."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((6, 32, 32), bool)
    for index in range(4):
        for row, column in ((2, 3), (18, 20)):
            height, width = rng.integers(3, 11, 2)
            masks[index, row : row + height, column : column + width] = True
    return masks, (rng.random(masks.shape) * 0.8 + 0.2 * masks * rng.random((6, 1, 1))).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pixel_figures_are_anomalibs(seed: int) -> None:
    from anomalib.data import ImageBatch

    masks, maps = _maps(seed)
    with PixelRanking() as ranking:
        ranking.add(masks, maps)
        ours = ranking.overall()
    image = torch.zeros(len(maps), 3, 32, 32)
    batch = ImageBatch(image=image, anomaly_map=torch.from_numpy(maps)[:, None], gt_mask=torch.from_numpy(masks))
    found = {}
    for name in ("AUROC", "AUPR", "F1Max", "AUPRO"):
        metric = getattr(metrics, name)(fields=["anomaly_map", "gt_mask"])
        metric.update(batch)
        found[name] = float(metric.compute())
    assert ours.auroc == pytest.approx(found["AUROC"], abs=1e-5)
    assert ours.f1max == pytest.approx(found["F1Max"], abs=1e-5)
    assert ours.ap == pytest.approx(found["AUPR"], abs=2e-3), "theirs is the trapezoids' area, ours the steps' (AP)"
    assert ours.pro == pytest.approx(found["AUPRO"], abs=2e-3), "FPR limit 0.3 is theirs by default"
