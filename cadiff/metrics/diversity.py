"""IC-LPIPS: how much generated images differ among those that are like the same exemplar.

Ojha et al., "Few-shot Image Generation via Cross-domain Correspondence" (CVPR 2021), Sec. 4.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

CAP = 200  # images per cluster
BLOCK = 256  # embeddings in memory at a time


class Embeddings(Protocol):
    """Vectors by index, made when asked for; a tensor is one of these."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> Tensor: ...


def ic_lpips(
    generated: Embeddings, exemplars: Embeddings, cap: int = CAP, block: int = BLOCK, exemplar_block: int = BLOCK
) -> float:
    """Each generated image joins its nearest exemplar; mean distance of the pairs in a cluster, mean over clusters.

    Distances are squared Euclidean between embeddings. Of a cluster the first ``cap`` images count; clusters of fewer
    than two are dropped; nan where none is left.

    ``block`` generated and ``exemplar_block`` real embeddings are in memory at a time. A generated image is embedded once
    for every ``exemplar_block`` exemplars, and those that count once more; an exemplar once.
    """
    nearest = _nearest(generated, exemplars, block, exemplar_block)
    values = []
    for index in range(len(exemplars)):
        members = torch.nonzero(nearest == index)[:cap, 0]
        if len(members) > 1:
            values.append(_mean_distance(generated, members, block))
    return sum(values) / len(values) if values else float("nan")


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


def _mean_distance(generated: Embeddings, members: Tensor, block: int) -> float:
    """Over all pairs of different members, in one pass: squared distances of pairs add up to n times those from the mean.

    The mean and the sum of squares about it are updated image by image (Welford, Technometrics 1962), in float64.
    """
    count, squares, mean = 0, 0.0, torch.zeros((), dtype=torch.float64)
    for part in members.split(block):
        for vector in generated[part].double():
            count += 1
            offset = vector - mean
            mean = mean + offset / count
            squares += float(offset @ (vector - mean))
    return 2 * squares / (count - 1)
