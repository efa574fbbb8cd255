"""Inception Score and IC-LPIPS on cases worked by hand, and the network behind them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from parameters import bare
from PIL import Image
from skimage import data, transform

from cadiff.errors import CADiffError
from cadiff.metrics.diversity import cluster_distances, ic_lpips, over_clusters
from cadiff.metrics.generated import IC_LPIPS, IS, NAME, VARIANTS, ic_lpips_name, score_generated
from cadiff.metrics.imagenet import embeddings, posteriors
from cadiff.metrics.realism import inception_score
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, SampleRow, to_table
from cadiff.storage import encode_png, write_image, write_table
from cadiff.task import Task


def test_inception_score_of_known_posteriors() -> None:
    assert inception_score(torch.eye(5)) == pytest.approx(5)
    assert inception_score(torch.tensor([[0.2, 0.8]] * 3)) == pytest.approx(1)
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    entropy = -sum(x * math.log(x) for x in (0.7, 0.3))
    conditional = -sum(x * math.log(x) for x in (0.9, 0.1, 0.5, 0.5)) / 2
    assert inception_score(p) == pytest.approx(math.exp(entropy - conditional), rel=1e-6)


def test_ic_lpips_of_known_embeddings() -> None:
    exemplars = torch.tensor([[0.0], [10.0], [100.0]])
    generated = torch.tensor([[-1.0], [1.0], [2.0], [9.0], [11.0], [99.0]])
    first, second = (4 + 9 + 1) / 3, 4.0  # the third cluster has one image and is dropped
    assert ic_lpips(generated, exemplars) == pytest.approx((first + second) / 2)
    assert ic_lpips(generated, exemplars, cap=2) == pytest.approx((4 + 4) / 2)
    assert math.isnan(ic_lpips(generated[5:], exemplars))
    assert ic_lpips(torch.zeros(3, 1), exemplars) == 0


def test_the_network_is_a_trained_one() -> None:
    cat = (transform.resize(data.chelsea()[:, 75:375], (224, 224)) * 255).astype(np.uint8)
    probabilities = posteriors(cat[None])[0]
    assert int(probabilities.argmax()) in range(281, 286)  # ImageNet's five domestic cats
    near, far = np.clip(cat + 3, 0, 255).astype(np.uint8), np.ascontiguousarray(cat[::-1])
    same, close, other = embeddings(np.stack([cat, near, far]))
    assert torch.equal(same, embeddings(cat[None])[0]) or torch.allclose(
        same, embeddings(cat[None])[0], atol=1e-5
    )
    assert (same - close).square().sum() < (same - other).square().sum() / 3


def test_caps_and_clusters_of_one_by_hand() -> None:
    """Three exemplars on a line: four images at the first, one at the second, none at the third."""
    generated, exemplars = torch.tensor([[0.0], [1.0], [3.0], [0.0], [100.0]]), torch.tensor([[0.0], [100.0], [200.0]])
    found = cluster_distances(generated, exemplars, (2, 3, 50))
    squares = {2: [1], 3: [1, 9, 4], 50: [1, 9, 0, 4, 1, 9]}
    for cap, pairs in squares.items():
        assert found[cap][0] == pytest.approx(sum(pairs) / len(pairs))
        assert found[cap][1:] == [None, None]
        assert over_clusters(found[cap]) == pytest.approx(sum(pairs) / len(pairs))
        assert over_clusters(found[cap], "zero") == pytest.approx(sum(pairs) / len(pairs) / 3), "DFMGAN's first figure"
        assert ic_lpips(generated, exemplars, cap) == over_clusters(found[cap])
    assert math.isnan(over_clusters([None]))


def test_shards_are_scored_by_type(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    write_image(tmp_path / "real.png", picture)
    samples = [
        SampleRow("e", "toy", "cube", "hole", "exemplar", str(tmp_path / "real.png"), None, 32, 32, "e")
    ]
    varied = [rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in ((32, 32), (32, 50), (44, 32))]
    for kind, images in (("hole", varied), ("anomaly", [picture] * 2), ("good", [picture])):
        rows = [
            GeneratedRow(
                f"{kind}-{k}", "cube", [kind], {"bytes": encode_png(image), "path": ""},
                {"bytes": encode_png(image[..., 0]), "path": ""}, "drawn", None, None, 0, None, None, None,
                None, [None], None, None, "none", "none",
            )
            for k, image in enumerate(images)
        ]  # fmt: skip
        write_table(tmp_path / "shards" / f"{kind}.parquet", to_table(rows, GENERATED_SCHEMA))
    params = bare(products={"cube": {}})
    found = {
        row.metric: row for row in score_generated(Task(params, "cube", "drawn", samples), tmp_path / "shards")
    }
    filtered = bare(products={"cube": {"filter": {"min_normal_distance": 1}, "detector": {"protocol": "filtered"}}}).for_product("cube")
    again = score_generated(Task(filtered, "cube", "drawn", samples), tmp_path / "shards")
    assert {row.params_digest for row in again}.isdisjoint(row.params_digest for row in found.values()), "other images may be measured"
    assert {*found} == {IS, IC_LPIPS, *(f"{m}/{k}" for m in (IS, IC_LPIPS) for k in ("hole", "anomaly"))}
    assert found[f"{IC_LPIPS}/hole"].value == found[IC_LPIPS].value > 0
    assert math.isnan(found[f"{IC_LPIPS}/anomaly"].value)
    assert found[f"{IS}/anomaly"].value == pytest.approx(1)
    assert (found[IS].n, found[f"{IS}/hole"].n) == (5, 3)
    squares = embeddings(np.stack([np.asarray(Image.fromarray(each).resize((256, 256), Image.Resampling.LANCZOS)) for each in varied]))
    pairs = [float((squares[i] - squares[j]).square().sum()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found[IC_LPIPS].value == pytest.approx(np.mean(pairs), rel=1e-5), "one exemplar, so one cluster: all pairs"
    legacy = params.model_copy(update={"detector": params.detector.model_copy(update={"protocol": "legacy"})})
    every = {row.metric: row for row in score_generated(Task(legacy, "cube", "drawn", samples), tmp_path / "shards")}
    names = {ic_lpips_name(NAME, cap, single) for _, cap, single in VARIANTS}
    assert {name for name in every if "/" not in name} == {IS, *names}
    assert {row.protocol for row in every.values()} == {"legacy"}
    assert {every[name].value for name in names} == {found[IC_LPIPS].value}, "no cluster is that large, or that small"
    with pytest.raises(CADiffError, match="expected shards"):
        score_generated(Task(params, "cube", "drawn", samples), tmp_path)
