"""Realism and diversity of one method's generated shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import UInt8
from torch import Tensor

from cadiff.errors import CADiffError
from cadiff.metrics.diversity import CAP, Single, cluster_distances, over_clusters
from cadiff.metrics.imagenet import NAME
from cadiff.metrics.networks import Embed, Networks, load_networks
from cadiff.metrics.realism import inception_score
from cadiff.params import Params
from cadiff.pictures import resize_picture
from cadiff.progress import Progress
from cadiff.records import GENERATED_SCHEMA, MetricRow, SampleRow
from cadiff.storage import decode_image, digest, read_image, read_table
from cadiff.task import Task

SIDE = 256  # px of the square that every picture is brought to; most networks resize it again
PART = 64  # images decoded at a time
MEMORY = 2**28  # bytes of a block of generated images' embeddings
EXEMPLAR_MEMORY = 2**30  # of exemplars' ones: 33 with VGG, so that a handful needs one pass


def is_name(network: str) -> str:
    return f"is({network})"


def ic_lpips_name(network: str, cap: int = CAP, single: Single = "dropped") -> str:
    return f"ic_lpips({network},cap={cap},single={single})"


# IC-LPIPS as published code has it, all at 256 px: its net, its cap, and what a cluster of one counts. DFMGAN's prints both of the latter
# (AlexNet); AnomalyDiffusion's takes 50 of a cluster (VGG); others that are in use take 140, and do not say what becomes of one alone.
VARIANTS: tuple[tuple[str, int, Single], ...] = (
    ("vgg", 50, "dropped"), ("alex", 200, "dropped"), ("alex", 200, "zero"), ("vgg", 140, "dropped"), ("vgg", 140, "zero"),
)  # fmt: skip
IS, IC_LPIPS = is_name(NAME), ic_lpips_name(NAME)  # with the shipped network


def score_generated(task: Task, generated: Path) -> list[MetricRow]:
    """``is(...)`` and ``ic_lpips(...)`` of each anomaly type (metric name ``.../<type>``) and their means
    over types; by the published evaluation (``detector.protocol: legacy``) IC-LPIPS in all of ``VARIANTS``.

    Pictures of a product may have different shapes: each, real or generated, is brought to one square of ``SIDE`` px first.
    Every image of a shard counts. A type without exemplars (cut-paste) has no IC-LPIPS: nan, left out of the
    mean. ``n`` counts images; the seed is the parameters'.

    Raises:
        CADiffError: if the folder has no shard of anomalies, or a network's weights are not those expected.
    """
    shards = [path for path in sorted(Path(generated).glob("*.parquet")) if path.stem != "good"]
    if not shards:
        raise CADiffError(
            f"{generated}: expected shards of anomalies (*.parquet), found none. Generate them."
        )
    networks = load_networks(task.params)
    realism = is_name(networks.inception_name)
    measures = _measures(task.params, networks)
    values: dict[str, dict[str, float]] = {realism: {}}
    counts: dict[str, int] = {}
    makers: set[str] = set()
    bar = Progress(f"realism and diversity {task.product} {task.method}, types", len(shards))
    for shard in shards:
        kind = shard.stem
        table = read_table(shard, GENERATED_SCHEMA).select(["image", "generator_digest", "params_digest"])
        makers |= {f"{row['generator_digest']}/{row['params_digest']}" for row in table.drop(["image"]).to_pylist()}
        counts[kind] = table.num_rows
        values[realism][kind] = _realism(table, networks, shard)
        for embed, variants in measures:
            for name, value in _diversity(table, embed, variants, shard, task.product, kind, task.samples).items():
                values.setdefault(name, {})[kind] = value
        bar.advance()
    # the filter is no part of how an image was made, but of which ones are measured
    made, protocol = digest([sorted(makers), task.params.digest_of("filter")]), task.params.detector.protocol

    def row(metric: str, value: float, n: int) -> MetricRow:
        return MetricRow(
            task.params.dataset.name, task.product, task.method, "images", metric, value, task.params.seed, n, protocol, None, made
        )

    rows = []
    for metric, by_type in values.items():
        defined = [value for value in by_type.values() if not np.isnan(value)]
        rows.append(row(metric, float(np.mean(defined)) if defined else float("nan"), sum(counts.values())))
        rows += [row(f"{metric}/{kind}", value, counts[kind]) for kind, value in by_type.items()]
    return rows


Variants = dict[str, tuple[int, Single]]  # by a metric's name its cap, and what a cluster of one counts


def _measures(params: Params, networks: Networks) -> list[tuple[Embed, Variants]]:
    """The embeddings that IC-LPIPS is measured with, each with its variants."""
    if params.detector.protocol != "legacy":
        return [(embed, {ic_lpips_name(name): (CAP, "dropped")}) for name, embed in networks.lpips.values()]
    found: dict[str, tuple[Embed, Variants]] = {}
    for net, cap, single in VARIANTS:
        if net in networks.lpips:
            name, embed = networks.lpips[net]
            found.setdefault(name, (embed, {}))[1][ic_lpips_name(name, cap, single)] = (cap, single)
    return list(found.values())


def _realism(table: pa.Table, networks: Networks, shard: Path) -> float:
    parts = torch.arange(table.num_rows).split(PART)
    return inception_score(torch.cat([networks.posteriors(_decoded(table, part, shard)) for part in parts]))


def _diversity(
    table: pa.Table, embed: Embed, variants: Variants, shard: Path, product: str, kind: str, samples: Sequence[SampleRow]
) -> dict[str, float]:
    exemplars = [
        row for row in samples if (row.product, row.role, row.anomaly_type) == (product, "exemplar", kind)
    ]
    if not exemplars:
        return dict.fromkeys(variants, float("nan"))

    def real(indices: Tensor) -> UInt8[np.ndarray, "n h w 3"]:
        rows = [exemplars[index] for index in indices.tolist()]
        return np.stack([read_image(row.image_path, "RGB", (SIDE, SIDE), levels=row.levels) for row in rows])

    first = embed(real(torch.tensor([0])))
    blocks = [max(1, memory // (first.shape[1] * first.element_size())) for memory in (MEMORY, EXEMPLAR_MEMORY)]
    lazy = _Lazy(table.num_rows, lambda indices: _decoded(table, indices, shard), embed)
    made = lazy[torch.arange(len(lazy))] if len(lazy) <= blocks[0] else lazy  # what fits into memory is embedded once, not twice
    caps = sorted({cap for cap, _ in variants.values()})
    distances = cluster_distances(made, _Lazy(len(exemplars), real, embed), caps, *blocks)
    return {name: over_clusters(distances[cap], single) for name, (cap, single) in variants.items()}


class _Lazy:
    """Embeddings by index, from images that are read when asked for."""

    def __init__(self, count: int, read: Callable[[Tensor], UInt8[np.ndarray, "n h w 3"]], embed: Embed) -> None:
        self.count, self.read, self.embed = count, read, embed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: Tensor) -> Tensor:
        return torch.cat([self.embed(self.read(part)) for part in indices.split(PART)])


def _decoded(table: pa.Table, indices: Tensor, shard: Path) -> UInt8[np.ndarray, "n h w 3"]:
    rows = table.take(indices.tolist())["image"].to_pylist()
    return np.stack([resize_picture(decode_image(image["bytes"], "RGB", str(shard)), (SIDE, SIDE)) for image in rows])
