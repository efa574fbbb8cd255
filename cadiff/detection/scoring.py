"""Scoring a trained detector on real images that nothing was trained on: held-out anomalies and test/good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float

from cadiff.data.images import load_samples, to_tensor
from cadiff.detection.training import identity
from cadiff.detection.unet import UNet, anomaly_map, check_side, place
from cadiff.devices import pick_device
from cadiff.errors import CADiffError
from cadiff.metrics.ranking import auroc, average_precision, f1_max, pro
from cadiff.params import Params
from cadiff.records import MetricRow, SampleRow, ScoredRow
from cadiff.storage import digest, encode_png, read_tensors

VARIANT = "unet"
PAPER_SIDE = 256  # the side that detector.pooling is given for
_BATCH = 32


def score(
    params: Params, method: str, product: str, samples: Sequence[SampleRow], seed: int, detector: Path
) -> tuple[list[MetricRow], list[ScoredRow]]:
    """Pixel and image metrics of one detector on the product's held-out anomalies and good test images.

    Everything is measured at ``base.size``. Metrics: ``pixel_`` and ``image_`` ``auroc``, ``ap``, ``f1max``;
    ``pro`` (FPR limit 0.3); ``pixel_ap/<type>`` on that type's held-out images and all good ones. A metric
    whose labels are all equal is nan (cadiff.metrics.ranking). ``n`` counts images.

    Raises:
        CADiffError: if there is nothing to score, or the detector is not one of this product, method, seed
        and size.
    """
    params = params.for_product(product)
    check_side(params.base.size)
    rows = [row for row in samples if row.product == product and row.role in ("held_out", "test_good")]
    if not rows:
        raise CADiffError(f"{product}: expected held-out or good test images, found none.")
    for row in rows:
        if row.role == "held_out" and row.mask_path is None:
            raise CADiffError(f"{row.image_path}: expected a mask for this anomaly, found none.")
    model, made_by = load_detector(params, method, product, seed, Path(detector) / f"seed-{seed}.safetensors")
    masks = load_samples(rows, params.base.size)[1]
    maps = predict(model, rows, params.base.size)
    image_scores = image_score(maps, pooling_window(params.detector.pooling, params.base.size))
    made = digest([params.digest_of("base", "detector"), made_by])
    dataset, protocol = params.dataset.name, params.detector.protocol
    metrics = [
        MetricRow(dataset, product, method, VARIANT, name, value, seed, n, protocol, None, made)
        for name, (value, n) in _values(rows, masks, maps, image_scores).items()
    ]
    scored = [
        ScoredRow(row.sample_id, product, row.anomaly_type, method, seed, float(image), _viewable(row, map_))
        for row, image, map_ in zip(rows, image_scores, maps, strict=True)
    ]
    return metrics, scored


def load_detector(params: Params, method: str, product: str, seed: int, path: Path) -> tuple[UNet, str]:
    """A trained detector, and the digest of what its training images were generated with.

    Raises:
        CADiffError: if the file is not there, not whole, or not the detector that is asked for.
    """
    tensors, metadata = read_tensors(path)
    for name, wanted in identity(params, method, product, seed).items():
        if (found := metadata.get(name)) != wanted:
            raise CADiffError(f"{path}: expected a detector of {name} {wanted}, found {found}. Train again.")
    model = UNet(params.detector.width)
    model.load_state_dict(tensors)
    return place(model, pick_device(params.base.device)).eval(), metadata["made_by"]


@torch.inference_mode()
def predict(model: UNet, rows: Sequence[SampleRow], size: int) -> Float[np.ndarray, "n h w"]:
    """Anomaly maps in [0, 1], reading and scoring a batch of images at a time."""
    device = next(model.parameters()).device
    maps = []
    for start in range(0, len(rows), _BATCH):
        pixels, _ = load_samples(rows[start : start + _BATCH], size)
        image = to_tensor(pixels).to(device, memory_format=torch.channels_last)
        maps.append(anomaly_map(model(image)).cpu().numpy())
    return np.concatenate(maps)


def pooling_window(pooling: int, size: int) -> int:
    """The odd window whose share of the image is that of ``pooling`` at 256 px: 21 becomes 5 at 64 px."""
    return 2 * int(pooling * size / PAPER_SIDE / 2) + 1


def image_score(maps: Float[np.ndarray, "n h w"], window: int) -> Float[np.ndarray, " n"]:
    """The maximum of each map after average pooling, odd window, zeros beyond the border (as DRAEM)."""
    pooled = F.avg_pool2d(torch.from_numpy(maps)[:, None], window, stride=1, padding=window // 2)
    return pooled.amax(dim=(1, 2, 3)).numpy()


def _values(
    rows: Sequence[SampleRow],
    masks: Bool[np.ndarray, "n h w"],
    maps: Float[np.ndarray, "n h w"],
    image_scores: Float[np.ndarray, " n"],
) -> dict[str, tuple[float, int]]:
    """Each metric's value and the number of images behind it."""
    anomalous = np.array([row.role == "held_out" for row in rows])
    types = np.array([row.anomaly_type or "" for row in rows])
    ranking = {"auroc": auroc, "ap": average_precision, "f1max": f1_max}
    values = {f"pixel_{name}": (metric(masks, maps), len(rows)) for name, metric in ranking.items()}
    values["pro"] = (pro(masks, maps), len(rows))
    for name, metric in ranking.items():
        values[f"image_{name}"] = (metric(anomalous, image_scores), len(rows))
    for name in sorted(set(types[anomalous])):
        chosen = ~anomalous | (types == name)
        values[f"pixel_ap/{name}"] = (average_precision(masks[chosen], maps[chosen]), int(chosen.sum()))
    return values


def _viewable(row: SampleRow, map_: Float[np.ndarray, "h w"]) -> dict[str, bytes | str]:
    return {"bytes": encode_png(np.round(map_ * 255).astype(np.uint8)), "path": f"{row.sample_id}.png"}
