"""IC-LPIPS: how much generated images differ among those that are like the same exemplar.

Ojha et al., "Few-shot Image Generation via Cross-domain Correspondence" (CVPR 2021), Sec. 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

CAP = 200  # images per cluster
Single = Literal["dropped", "zero"]
BLOCK = 256  # embeddings in memory at a time


class Embeddings(Protocol):
    """Vectors by index, made when asked for; a tensor is one of these."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> Tensor: ...


def ic_lpips(
    generated: Embeddings, exemplars: Embeddings, cap: int = CAP, block: int = BLOCK, exemplar_block: int = BLOCK
) -> float:
    """Each generated image joins its nearest exemplar; mean distance of the pairs in a cluster, mean over clusters.

    Of a cluster the first ``cap`` images count; clusters of fewer than two are dropped; nan where none is left. The rest is as
    ``cluster_distances`` says.
    """
    return over_clusters(cluster_distances(generated, exemplars, (cap,), block, exemplar_block)[cap])


def over_clusters(distances: Sequence[float | None], single: Single = "dropped") -> float:
    """The mean over clusters, those of fewer than two images (None) dropped, or counted as 0; nan where there is nothing to average."""
    values = [0.0 if value is None else value for value in distances if value is not None or single == "zero"]
    return sum(values) / len(values) if values else float("nan")


def cluster_distances(
    generated: Embeddings, exemplars: Embeddings, caps: Sequence[int], block: int = BLOCK, exemplar_block: int = BLOCK
) -> dict[int, list[float | None]]:
    """For each cap the mean distance of the pairs among the first so many generated images of each exemplar's cluster; None of fewer
    than two. Distances are squared Euclidean between embeddings.

    ``block`` generated and ``exemplar_block`` real embeddings are in memory at a time. A generated image is embedded once
    for every ``exemplar_block`` exemplars, and those that count once more; an exemplar once.
    """
    nearest = _nearest(generated, exemplars, block, exemplar_block)
    found: dict[int, list[float | None]] = {cap: [] for cap in caps}
    for index in range(len(exemplars)):
        members = torch.nonzero(nearest == index)[: max(caps), 0]
        for cap, distance in _mean_distances(generated, members, caps, block).items():
            found[cap].append(distance)
    return found


def _nearest(generated: Embeddings, exemplars: Embeddings, block: int, exemplar_block: int) -> Tensor:
    """The index of each generated image's nearest exemplar; of several the first."""
    distance = torch.full((len(generated),), torch.inf)
    nearest = torch.zeros(len(generated), dtype=torch.long)
    for some in torch.arange(len(exemplars)).split(exemplar_block):
        real = exemplars[some]
        for part in torch.arange(len(generated)).split(block):
            found, index = torch.cdist(generated[part], real, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
            closer = found < distance[part]
            distance[part[closer]], nearest[part[closer]] = found[closer], some[index[closer]]
    return nearest


def _mean_distances(generated: Embeddings, members: Tensor, caps: Sequence[int], block: int) -> dict[int, float | None]:
    """Over all pairs of the first ``cap`` members, for each cap, in one pass: squared distances of pairs add up to n times those from
    the mean.

    The mean and the sum of squares about it are updated image by image (Welford, Technometrics 1962), in float64.
    """
    found: dict[int, float | None] = dict.fromkeys(caps)
    if len(members) < 2:
        return found
    count, squares, mean = 0, 0.0, torch.zeros((), dtype=torch.float64)
    for part in members.split(block):
        for vector in generated[part].double():
            count += 1
            offset = vector - mean
            mean = mean + offset / count
            squares += float(offset @ (vector - mean))
            if count > 1:
                found |= {cap: 2 * squares / (count - 1) for cap in caps if cap >= count}
    return found
