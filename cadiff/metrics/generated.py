"""Realism and diversity of one method's generated shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cadiff.errors import CADiffError
from cadiff.metrics.diversity import CAP, ic_lpips
from cadiff.metrics.imagenet import NAME, embeddings, posteriors
from cadiff.metrics.realism import inception_score
from cadiff.params import Params
from cadiff.records import GENERATED_SCHEMA, MetricRow, SampleRow
from cadiff.storage import decode_image, digest, read_image, read_table

IS = f"is({NAME})"
IC_LPIPS = f"ic_lpips({NAME},cap={CAP},single=dropped)"


def score_generated(
    params: Params, method: str, product: str, samples: Sequence[SampleRow], generated: Path
) -> list[MetricRow]:
    """``is(...)`` and ``ic_lpips(...)`` of each anomaly type (metric name ``.../<type>``) and their means
    over types.

    Every image of a shard counts. A type without exemplars (cut-paste) has no IC-LPIPS: nan, left out of the
    mean. ``n`` counts images; the seed is ``params.seed``.

    Raises:
        CADiffError: if the folder has no shard of anomalies.
    """
    params = params.for_product(product)
    shards = [path for path in sorted(Path(generated).glob("*.parquet")) if path.stem != "good"]
    if not shards:
        raise CADiffError(
            f"{generated}: expected shards of anomalies (*.parquet), found none. Generate them."
        )
    values: dict[str, dict[str, float]] = {IS: {}, IC_LPIPS: {}}
    counts: dict[str, int] = {}
    makers: set[str] = set()
    for shard in shards:
        table = (
            read_table(shard, GENERATED_SCHEMA)
            .select(["image", "generator_digest", "params_digest"])
            .to_pylist()
        )
        images = np.stack([decode_image(row["image"]["bytes"], "RGB", str(shard)) for row in table])
        makers |= {f"{row['generator_digest']}/{row['params_digest']}" for row in table}
        counts[shard.stem] = len(images)
        values[IS][shard.stem] = inception_score(posteriors(images))
        values[IC_LPIPS][shard.stem] = _diversity(images, product, shard.stem, samples)
    made, protocol = digest(sorted(makers)), params.detector.protocol

    def row(metric: str, value: float, n: int) -> MetricRow:
        return MetricRow(
            params.dataset.name,
            product,
            method,
            "images",
            metric,
            value,
            params.seed,
            n,
            protocol,
            None,
            made,
        )

    rows = []
    for metric, by_type in values.items():
        defined = [value for value in by_type.values() if not np.isnan(value)]
        rows.append(row(metric, float(np.mean(defined)) if defined else float("nan"), sum(counts.values())))
        rows += [row(f"{metric}/{kind}", value, counts[kind]) for kind, value in by_type.items()]
    return rows


def _diversity(images: np.ndarray, product: str, kind: str, samples: Sequence[SampleRow]) -> float:
    exemplars = [
        read_image(row.image_path, "RGB", images.shape[1])
        for row in samples
        if (row.product, row.role, row.anomaly_type) == (product, "exemplar", kind)
    ]
    return ic_lpips(embeddings(images), embeddings(np.stack(exemplars))) if exemplars else float("nan")
