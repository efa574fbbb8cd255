"""IC-LPIPS: how much generated images differ among those that are like the same exemplar.

Ojha et al., "Few-shot Image Generation via Cross-domain Correspondence" (CVPR 2021), Sec. 4.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

CAP = 200  # images per cluster
BLOCK = 256  # embeddings in memory at a time, twice


class Embeddings(Protocol):
    """Vectors by index, made when asked for; a tensor is one of these."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> Tensor: ...


def ic_lpips(generated: Embeddings, exemplars: Embeddings, cap: int = CAP, block: int = BLOCK) -> float:
    """Each generated image joins its nearest exemplar; mean distance of the pairs in a cluster, mean over clusters.

    Distances are squared Euclidean between embeddings. Of a cluster the first ``cap`` images count; clusters of fewer
    than two are dropped; nan where none is left. No more than two blocks of embeddings are in memory at a time.
    """
    nearest = _nearest(generated, exemplars, block)
    values = []
    for index in range(len(exemplars)):
        members = torch.nonzero(nearest == index)[:cap, 0]
        if len(members) > 1:
            values.append(_mean_distance(generated, members, block))
    return sum(values) / len(values) if values else float("nan")


def _nearest(generated: Embeddings, exemplars: Embeddings, block: int) -> Tensor:
    """The index of each generated image's nearest exemplar; of several the first."""
    distance = torch.full((len(generated),), torch.inf)
    nearest = torch.zeros(len(generated), dtype=torch.long)
    for some in torch.arange(len(exemplars)).split(block):
        real = exemplars[some]
        for part in torch.arange(len(generated)).split(block):
            found, index = _distances(generated[part], real).min(dim=1)
            closer = found < distance[part]
            distance[part[closer]], nearest[part[closer]] = found[closer], some[index[closer]]
    return nearest


def _mean_distance(generated: Embeddings, members: Tensor, block: int) -> float:
    """Over all pairs of different members."""
    total, parts = 0.0, members.split(block)
    for i, part in enumerate(parts):
        own = generated[part]
        total += float(torch.nn.functional.pdist(own).square().sum(dtype=torch.float64)) if len(own) > 1 else 0.0
        for other in parts[i + 1 :]:
            total += float(_distances(own, generated[other]).square().sum(dtype=torch.float64))
    return total / (len(members) * (len(members) - 1) / 2)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
