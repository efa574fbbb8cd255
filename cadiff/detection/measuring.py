"""What every detector is to the rest, and how it is measured: test images in, figures and viewable maps out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Float

from cadiff.data.images import load_samples
from cadiff.errors import CADiffError
from cadiff.metrics.pixels import PixelRanking
from cadiff.metrics.ranking import auroc, average_precision, f1_max
from cadiff.params import Params
from cadiff.progress import Progress
from cadiff.records import SCORED_SCHEMA, MetricRow, ProtocolName, SampleRow, ScoredRow, to_table
from cadiff.storage import encode_png

PAPER_SIDE = 256  # the side that detector.pooling is given for
_BATCH = 32


class Scores(NamedTuple):
    """Higher is more anomalous, finite, in no particular unit."""

    maps: Float[np.ndarray, "n h w"]
    images: Float[np.ndarray, " n"]


class Detector(Protocol):
    """Anything that says how anomalous each pixel and each image is."""

    @property
    def variant(self) -> str:
        """What kind of detector it is: the metric rows' ``variant``."""

    @property
    def made(self) -> str:
        """A digest of all that its scores depend on."""

    @property
    def black(self) -> float:
        """The score that is shown as black."""

    @property
    def white(self) -> float:
        """The score that is shown as white."""

    def score(self, rows: Sequence[SampleRow]) -> Scores:
        """Scores of a batch, maps at ``base.size``."""


Keep = Callable[[pa.Table], None]


def rows_to_score(samples: Sequence[SampleRow], product: str) -> list[SampleRow]:
    """The product's held-out anomalies and good test images: nothing is trained on them.

    Raises:
        CADiffError: if there is none, or an anomaly has no mask.
    """
    rows = [row for row in samples if row.product == product and row.role in ("held_out", "test_good")]
    if not rows:
        raise CADiffError(f"{product}: expected held-out or good test images, found none.")
    for row in rows:
        if row.role == "held_out" and row.mask_path is None:
            raise CADiffError(f"{row.image_path}: expected a mask for this anomaly, found none.")
    return rows


def measure(
    params: Params, method: str, product: str, samples: Sequence[SampleRow], seed: int, detector: Detector,
    keep: Keep | None = None, protocol: ProtocolName | None = None,
) -> list[MetricRow]:  # fmt: skip
    """Pixel and image figures of one detector on the product's held-out anomalies and good test images.

    Everything is measured at ``base.size``, in memory that does not grow with the number of images. Metrics:
    ``pixel_`` and ``image_`` ``auroc``, ``ap``, ``f1max``; ``pro`` (FPR limit 0.3); ``pixel_ap/<type>`` on that type's
    held-out images and all good ones. A metric whose labels are all equal is nan. ``n`` counts images. ``keep`` takes
    what was said of each image (SCORED_SCHEMA), a batch at a time. ``protocol`` is ``params.detector``'s where it is None.

    Raises:
        CADiffError: if there is nothing to score, or a score is not finite.
    """
    rows = rows_to_score(samples, product)

    def take(batch: Sequence[SampleRow], scores: Scores) -> None:
        if keep is not None:
            keep(to_table(_scored(batch, scores, method, seed, (detector.black, detector.white)), SCORED_SCHEMA))

    values = figures(rows, detector, params.base.size, f"score {product} {method} seed {seed}", take)
    return [
        MetricRow(
            params.dataset.name, product, method, detector.variant, name, value, seed, n,
            protocol or params.detector.protocol, None, detector.made,
        )
        for name, (value, n) in values.items()
    ]  # fmt: skip


def figures(
    rows: Sequence[SampleRow], detector: Detector, size: int, title: str = "",
    take: Callable[[Sequence[SampleRow], Scores], None] = lambda rows, scores: None,
) -> dict[str, tuple[float, int]]:  # fmt: skip
    """Each metric's value and the number of images behind it; ``take`` sees each batch."""
    anomalous = np.array([row.role == "held_out" for row in rows])
    types = [row.anomaly_type if row.role == "held_out" else None for row in rows]
    progress = Progress(title, len(rows)) if title else None
    image_scores = []
    with PixelRanking() as pixels:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            scores = detector.score(batch)
            pixels.add(load_samples(batch, size)[1], scores.maps, types[start : start + _BATCH])
            image_scores.append(scores.images)
            take(batch, scores)
            if progress:
                progress.advance(len(batch))
        found = pixels.overall()
        by_type = {name: pixels.of_type(name).ap for name in sorted({name for name in types if name})}
    values = {f"pixel_{name}": (value, len(rows)) for name, value in found._asdict().items() if name != "pro"}
    values["pro"] = (found.pro, len(rows))
    for name, metric in {"auroc": auroc, "ap": average_precision, "f1max": f1_max}.items():
        values[f"image_{name}"] = (metric(anomalous, np.concatenate(image_scores)), len(rows))
    good = types.count(None)
    return values | {f"pixel_ap/{name}": (value, good + types.count(name)) for name, value in by_type.items()}


def pooling_window(pooling: int, size: int) -> int:
    """The odd window whose share of the image is that of ``pooling`` at 256 px: 21 becomes 5 at 64 px."""
    return 2 * int(pooling * size / PAPER_SIDE / 2) + 1


def image_score(maps: Float[np.ndarray, "n h w"], window: int) -> Float[np.ndarray, " n"]:
    """The maximum of each map after average pooling, odd window, zeros beyond the border (as DRAEM)."""
    pooled = F.avg_pool2d(torch.from_numpy(maps)[:, None], window, stride=1, padding=window // 2)
    return pooled.amax(dim=(1, 2, 3)).numpy()


def _scored(
    rows: Sequence[SampleRow], scores: Scores, method: str, seed: int, span: tuple[float, float]
) -> list[ScoredRow]:
    black, white = span
    shown = np.round(np.clip((scores.maps - black) / (white - black), 0, 1) * 255).astype(np.uint8)
    return [
        ScoredRow(
            row.sample_id, row.product, row.anomaly_type, method, seed, float(image),
            {"bytes": encode_png(map_), "path": f"{row.sample_id}.png"},
        )
        for row, image, map_ in zip(rows, scores.images, shown, strict=True)
    ]  # fmt: skip
