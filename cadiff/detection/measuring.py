"""What every detector is to the rest, and how it is measured: test images in, figures and viewable maps out.

A detector says what it thinks at its own scale; its maps are brought to ``metrics.size`` and set against the mask files there, so that
detectors of all scales are measured alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float

from cadiff.errors import CADiffError
from cadiff.metrics.pixels import PixelRanking
from cadiff.metrics.ranking import auroc, average_precision, f1_max
from cadiff.params import MetricParams, Params
from cadiff.pictures import fitted, read_mask
from cadiff.progress import Progress
from cadiff.records import SCORED_SCHEMA, MetricRow, ProtocolName, SampleRow, ScoredRow, to_table
from cadiff.storage import digest, encode_png
from cadiff.task import Task
from cadiff.thresholds import Threshold

PAPER_SIDE = 256  # the shorter side that detector.pooling is given for
F1_STEPS = tuple(np.arange(0.0, 1.0 + 1e-3, 0.05).tolist())  # of metrics.pixel_f1: steps
_PIXELS = 2**21  # of the pictures that are scored at a time, as their files have them: 32 of 256 px, or a large one


class Scores(NamedTuple):
    """Higher is more anomalous, finite, in no particular unit. A map for each picture, at the detector's scale, with the picture's
    shape there; and a number for each."""

    maps: list[Float[np.ndarray, "h w"]]
    images: Float[np.ndarray, " n"]


class Detector(Protocol):
    """Anything that says how anomalous each pixel and each image is."""

    @property
    def variant(self) -> str:
        """What kind of detector it is: the metric rows' ``variant``."""

    @property
    def made(self) -> str:
        """A digest of all that its maps depend on."""

    @property
    def black(self) -> float:
        """The score that is shown as black."""

    @property
    def white(self) -> float:
        """The score that is shown as white."""

    def score(self, rows: Sequence[SampleRow]) -> Scores:
        """Scores of some pictures, maps at the detector's scale (``cadiff.detection.tiles.View``)."""


Keep = Callable[[pa.Table], None]
Take = Callable[[Sequence[SampleRow], Scores], None]


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
    task: Task, seed: int, detector: Detector, keep: Keep | None = None, protocol: ProtocolName | None = None,
    threshold: Threshold | None = None,
) -> list[MetricRow]:  # fmt: skip
    """Pixel and image figures of one detector on the product's held-out anomalies and good test images.

    Pixels are measured at ``metrics.size``, in memory that does not grow with the number of images. Metrics:
    ``pixel_`` and ``image_`` ``auroc``, ``ap``, ``f1max``; ``pro`` (FPR limit 0.3); ``pixel_ap/<type>`` on that type's
    held-out images and all good ones, and ``pixel_ap_types``, the mean of these over the types (pooled, one type with large masks
    decides). A metric whose labels are all equal is nan. ``n`` counts images. Rows by pixel say whether one of their masks is
    ``approximate``. ``keep`` takes what was said of each image
    (SCORED_SCHEMA, maps at the detector's scale), a batch at a time. ``protocol`` is the parameters' where it is None.
    With a ``threshold`` of an image's score: also what comes of it (``at_threshold``).

    Raises:
        CADiffError: if there is nothing to score, or a score is not finite.
    """
    rows = rows_to_score(task.samples, task.product)

    said: list[float] = []
    kept = keeping(task, seed, detector, keep)

    def take(batch: Sequence[SampleRow], scores: Scores) -> None:
        said.extend(scores.images.tolist())
        kept(batch, scores)

    made = measured_with(task.params, detector)
    values = figures(rows, detector, task.params.metrics, f"score {task.product} {task.method} seed {seed}", take)
    if threshold is not None:
        values |= at_threshold(rows, np.array(said), threshold)
    return [
        MetricRow(
            task.params.dataset.name, task.product, task.method, detector.variant, name, value, seed, n,
            protocol or task.params.detector.protocol, None, made, rests_on_approximate(rows, name),
        )
        for name, (value, n) in values.items()
    ]  # fmt: skip


def keeping(task: Task, seed: int, detector: Detector, keep: Keep | None) -> Take:
    """Gives what a detector says of each batch to ``keep``, as SCORED_SCHEMA has it; None: to nobody."""

    def take(batch: Sequence[SampleRow], scores: Scores) -> None:
        if keep is not None:
            keep(to_table(_scored(batch, scores, task.method, seed, (detector.black, detector.white)), SCORED_SCHEMA))

    return take


def rests_on_approximate(rows: Sequence[SampleRow], metric: str) -> bool:
    """Whether a metric is one by pixel, and an approximate mask is among those of the pictures behind it: all, or one type's
    (``pixel_ap/<type>``)."""
    name, _, kind = metric.partition("/")
    return (name == "pro" or name.startswith("pixel_")) and any(row.approximate for row in rows if kind in ("", row.anomaly_type))


def figures(
    rows: Sequence[SampleRow], detector: Detector, settings: MetricParams, title: str = "",
    take: Take = lambda rows, scores: None,
) -> dict[str, tuple[float, int]]:  # fmt: skip
    """Each metric's value and the number of images behind it; ``take`` sees each batch."""
    anomalous = np.array([row.role == "held_out" for row in rows])
    types = [row.anomaly_type if row.role == "held_out" else None for row in rows]
    progress = Progress(title, len(rows)) if title else None
    of_images = []
    with PixelRanking(thresholds=F1_STEPS if settings.pixel_f1 == "steps" else ()) as pixels:
        for batch in batches(rows):
            scores = detector.score(batch)
            for row, map_ in zip(batch, scores.maps, strict=True):
                truth = true_mask(row, settings)
                pixels.add([truth], [resized(map_, truth.shape)], [row.anomaly_type if row.role == "held_out" else None])
            of_images.append(scores.images)
            take(batch, scores)
            if progress:
                progress.advance(len(batch))
        found = pixels.overall()
        by_type = {name: pixels.of_type(name).ap for name in sorted({name for name in types if name})}
    values = {f"pixel_{name}": (value, len(rows)) for name, value in found._asdict().items() if name != "pro"}
    values["pro"] = (found.pro, len(rows))
    for name, metric in {"auroc": auroc, "ap": average_precision, "f1max": f1_max}.items():
        values[f"image_{name}"] = (metric(anomalous, np.concatenate(of_images)), len(rows))
    good = types.count(None)
    known = [value for value in by_type.values() if not math.isnan(value)]  # by the rule nearest a type may lose all of its masks
    values["pixel_ap_types"] = (sum(known) / len(known) if known else float("nan"), len(rows))
    return values | {f"pixel_ap/{name}": (value, good + types.count(name)) for name, value in by_type.items()}


def measured_with(params: Params, detector: Detector) -> str:
    """What a detector's figures depend on, as a digest: the rows' ``params_digest``."""
    scored = params.metrics
    return digest([detector.made, scored.size, scored.mask_rule, scored.pixel_f1, params.detector.false_alarms])


def at_threshold(
    rows: Sequence[SampleRow], scores: Float[np.ndarray, " n"], threshold: Threshold
) -> dict[str, tuple[float, int]]:
    """Each figure and the number of images behind it: ``false_alarm_rate``, the share of good test pictures that are called defective;
    ``miss_rate``, that of held-out anomalies that are not, and of each type ``miss_rate/<type>``; ``threshold_promised``, the false-alarm
    rate that so many calibration normals promise. A share of no images is left out."""
    above = scores > threshold.value
    called: dict[str, list[bool]] = {"false_alarm_rate": []}
    for row, defective in zip(rows, above.tolist(), strict=True):
        if row.role == "test_good":
            called["false_alarm_rate"].append(defective)
        else:
            for name in ("miss_rate", f"miss_rate/{row.anomaly_type}"):
                called.setdefault(name, []).append(not defective)
    found = {name: (sum(values) / len(values), len(values)) for name, values in called.items() if values}
    return found | {"threshold_promised": (threshold.promised, threshold.normals)}


def batches(rows: Sequence[SampleRow]) -> Iterator[list[SampleRow]]:
    """The rows in order, as many at a time as have ``_PIXELS`` together; one that has more by itself."""
    chosen: list[SampleRow] = []
    for row in rows:
        if chosen and sum(r.height * r.width for r in (*chosen, row)) > _PIXELS:
            yield chosen
            chosen = []
        chosen.append(row)
    if chosen:
        yield chosen


def true_mask(row: SampleRow, settings: MetricParams) -> Bool[np.ndarray, "h w"]:
    """The mask as its file has it, brought to ``metrics.size`` by ``metrics.mask_rule``; all False for a good picture."""
    shape = fitted(row.height, row.width, settings.size)
    return read_mask(row.mask_path, shape, settings.mask_rule) if row.mask_path is not None else np.zeros(shape, bool)


def resized(map_: Float[np.ndarray, "h w"], shape: tuple[int, ...]) -> Float[np.ndarray, "h2 w2"]:
    """A map at another height and width: bilinear, antialiased where it shrinks."""
    if map_.shape == tuple(shape):
        return map_
    given = torch.from_numpy(np.ascontiguousarray(map_, np.float32))[None, None]
    return F.interpolate(given, tuple(shape), mode="bilinear", antialias=True, align_corners=False)[0, 0].numpy()


def pooling_window(pooling: int, shorter: int) -> int:
    """The odd window whose share of the shorter side is that of ``pooling`` at 256 px: 21 becomes 5 at 64 px."""
    return 2 * int(pooling * shorter / PAPER_SIDE / 2) + 1


def image_scores(maps: Sequence[Float[np.ndarray, "h w"]], pooling: int) -> Float[np.ndarray, " n"]:
    """The maximum of each map after average pooling (``pooling_window`` of its shorter side), zeros beyond the border (as DRAEM)."""
    found = []
    for map_ in maps:
        window = pooling_window(pooling, min(map_.shape))
        pooled = F.avg_pool2d(torch.from_numpy(map_)[None, None], window, stride=1, padding=window // 2)
        found.append(float(pooled.amax()))
    return np.array(found)


def _scored(
    rows: Sequence[SampleRow], scores: Scores, method: str, seed: int, span: tuple[float, float]
) -> list[ScoredRow]:
    black, white = span

    def shown(map_: Float[np.ndarray, "h w"]) -> bytes:
        return encode_png(np.round(np.clip((map_ - black) / (white - black), 0, 1) * 255).astype(np.uint8))

    return [
        ScoredRow(
            row.sample_id, row.product, row.anomaly_type, method, seed, float(image),
            {"bytes": shown(map_), "path": f"{row.sample_id}.png"}, row.approximate,
        )
        for row, image, map_ in zip(rows, scores.images, scores.maps, strict=True)
    ]  # fmt: skip
