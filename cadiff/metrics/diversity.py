"""IC-LPIPS: how much generated images differ among those that are like the same exemplar.

Ojha et al., "Few-shot Image Generation via Cross-domain Correspondence" (CVPR 2021), Sec. 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

CAP = 200  # images per cluster


def ic_lpips(
    generated: Float[Tensor, "n d"], exemplars: Float[Tensor, "e d"], cap: int = CAP
) -> float:
    """Each generated image joins its nearest exemplar; mean distance of the pairs in a cluster, mean over
    clusters.

    Distances are squared Euclidean between embeddings (``cadiff.metrics.imagenet``). Of a cluster the first
    ``cap`` images count; clusters of fewer than two are dropped; nan where none is left.
    """
    nearest = torch.cdist(generated, exemplars, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
    values = []
    for index in range(len(exemplars)):
        members = generated[nearest == index][:cap]
        if len(members) > 1:
            values.append(torch.nn.functional.pdist(members).square().mean())
    return float(torch.stack(values).mean()) if values else float("nan")
