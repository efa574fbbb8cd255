"""Inception Score (Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def inception_score(posteriors: Float[Tensor, "n classes"]) -> float:
    """``exp(mean KL(p(y|x) || p(y)))``: from 1, all images alike, to the number of classes.

    One split over all images, so the score does not depend on their order (torchmetrics' version shuffles
    them with the global random state).
    """
    p = posteriors.double()
    log_ratio = p.clamp_min(1e-30).log() - p.mean(dim=0).clamp_min(1e-30).log()
    return float((p * log_ratio).sum(dim=1).mean().exp())
