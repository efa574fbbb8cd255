"""Does each part of the method do its work: where the drawn change is, how it follows w, where words attend.

All measures compare a drawn image with its *counterpart*: the same noise, background and prompt, drawn without the
anomaly (no mask in the control, the anomaly's token silenced everywhere). What differs is what asking for the anomaly did.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from cadiff.metrics.ranking import auroc

VISIBLE = 0.1  # of the range: a change of 25 grey levels is seen on any of the products
SHARE = 0.25  # of the mask's area: less visible change inside is missing, more of it outside is leakage


def change(drawn: UInt8[np.ndarray, "n h w 3"], counterpart: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n h w"]:
    """Per pixel, the mean over channels of the absolute difference, in [0, 1]."""
    share: np.ndarray = np.abs(drawn.astype(np.float64) - counterpart).mean(-1) / 255
    return share


def grown(masks: Bool[np.ndarray, "n h w"], pixels: int) -> Bool[np.ndarray, "n h w"]:
    """The masks grown by a margin along both axes (a square): a latent cell is the finest that control can reach."""
    if not pixels:
        return masks
    return np.stack([ndimage.binary_dilation(mask, np.ones((2 * pixels + 1,) * 2, bool)) for mask in masks])


def control_figures(
    changed: Float[np.ndarray, "n h w"], masks: Bool[np.ndarray, "n h w"], margin: int
) -> dict[str, float]:
    """How well the change keeps to the masks; ``margin`` is a latent cell in pixels. Means over images.

    - ``inside_share``: the part of the change (its sum over pixels) that lies inside the grown mask. An even
      change has the grown mask's share of the image, which is ``chance``.
    - ``missing_rate``: images whose visible change (above ``VISIBLE``) covers less than ``SHARE`` of the mask.
    - ``leakage_rate``: images whose visible change outside the grown mask is more than ``SHARE`` of the mask's area.
    """
    near, visible = grown(masks, margin), changed > VISIBLE
    area = masks.sum((1, 2))
    total = changed.sum((1, 2))
    inside = np.divide((changed * near).sum((1, 2)), total, out=np.zeros_like(total), where=total > 0)
    return {
        "inside_share": float(inside.mean()),
        "chance": float(near.mean()),
        "missing_rate": float(((visible & masks).sum((1, 2)) < SHARE * area).mean()),
        "leakage_rate": float(((visible & ~near).sum((1, 2)) > SHARE * area).mean()),
    }


def intensity_figures(
    by_weight: dict[float, Float[np.ndarray, "n h w"]], moved: dict[float, Float[np.ndarray, "n h w"]],
    masks: Bool[np.ndarray, "n h w"], margin: int,
) -> dict[str, float]:  # fmt: skip
    """How contrast follows w.

    Args:
        by_weight: per w, the change against the counterpart; its mean inside the mask is the anomaly's contrast.
        moved: per w, the change against the same image at w = 1.
        margin: a latent cell in pixels.

    ``contrast@w`` for each w; ``rising``: the share of neighbouring w (over all images) where contrast rises;
    ``monotone``: 1 where the mean contrast rises at every step; ``slope``: contrast gained per unit of w, least squares
    over the means; ``outside``: the mean over images and the largest w of what moves outside the grown mask,
    ``outside_max``: the largest such mean of any image at any w.
    """
    weights = sorted(by_weight)
    area, outside = masks.sum((1, 2)), ~grown(masks, margin)
    contrast = np.stack([(by_weight[w] * masks).sum((1, 2)) / area for w in weights])
    rest = np.stack([(moved[w] * outside).sum((1, 2)) / outside.sum((1, 2)).clip(min=1) for w in weights])
    means = contrast.mean(1)
    return {
        **{f"contrast@{w:g}": float(mean) for w, mean in zip(weights, means, strict=True)},
        "rising": float((np.diff(contrast, axis=0) > 0).mean()),
        "monotone": float((np.diff(means) > 0).all()),
        "slope": float(np.polyfit(weights, means, 1)[0]),
        "outside": float(rest[-1].mean()),
        "outside_max": float(rest.max()),
    }


def separation(vectors: Float[np.ndarray, "n d"], concepts: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Mean cosine of the pairs that share a concept (``within``), of the others (``across``), and the gap.

    ``within`` is nan where no concept has two vectors.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    cosine = unit @ unit.T
    same, pairs = concepts[:, None] == concepts[None, :], np.triu(np.ones_like(cosine, bool), 1)
    within = float(cosine[same & pairs].mean()) if (same & pairs).any() else float("nan")
    across = float(cosine[~same & pairs].mean()) if (~same & pairs).any() else float("nan")
    return {"within": within, "across": across, "gap": within - across}


def attention_figures(maps: Float[np.ndarray, "n cells"], masks: Bool[np.ndarray, "n cells"]) -> dict[str, float]:
    """How a token's maps lie on its masks, means over images: ``auroc``, and ``iou`` of the mask with as many of the
    map's strongest cells as the mask has. Images whose mask is empty or everything are left out."""
    chosen = masks.any(1) & ~masks.all(1)
    scores, overlaps = [], []
    for attention, mask in zip(maps[chosen], masks[chosen], strict=True):
        scores.append(auroc(mask, attention))
        strongest = np.zeros_like(mask)
        strongest[np.argsort(-attention, kind="stable")[: mask.sum()]] = True
        overlaps.append((strongest & mask).sum() / (strongest | mask).sum())
    return {"auroc": float(np.mean(scores)), "iou": float(np.mean(overlaps))} if scores else {"auroc": float("nan"), "iou": float("nan")}
