"""Anomaly maps for the page: what each method's detector saw on a few held-out images of a product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sklearn.metrics import average_precision_score

from cadiff.params import KINDS
from cadiff.records import SampleRow, ScoredRow
from cadiff.reporting.artefacts import Artefacts
from cadiff.reporting.gallery import Picture, data_uri, heat, real_picture
from cadiff.storage import decode_image


@dataclass(frozen=True)
class AnomalyMap:
    """``ap``: the pixel AP of this image's 8-bit map, None without an anomaly."""

    method: str
    uri: str
    alt: str
    ap: float | None


@dataclass(frozen=True)
class MapRow:
    """A held-out image, and what each method's detector saw."""

    title: str
    picture: Picture
    maps: list[AnomalyMap]


@dataclass(frozen=True)
class _Ranked:
    sample_id: str
    ap: float | None
    image_score: float


def map_rows(artefacts: Artefacts, product: str) -> list[MapRow]:
    """The best, median and worst held-out anomaly by pixel AP of the first method's map, and the good image
    that its detector suspects most. Maps are the lowest seed's; AP comes from their 8 bits, to rank.

    A few images are in memory at a time, however many were scored.
    """
    samples = {row.sample_id: row for row in artefacts.samples(product)}
    ranked: list[_Ranked] = []
    for method in artefacts.params.methods:
        if ranked := list(_ranked(artefacts, method, product, samples)):
            break
    chosen = _chosen(ranked)
    shown = {sample_id for _, sample_id in chosen}
    found = {method: {row.sample_id: row for row in artefacts.scored(method, product, shown)} for method in artefacts.params.methods}
    rows = []
    for title, sample_id in chosen:
        if picture := real_picture(artefacts, samples[sample_id]):
            scored = [by_id[sample_id] for by_id in found.values() if sample_id in by_id]
            rows.append(MapRow(title, picture, [map_of(artefacts, row, samples[sample_id], picture) for row in scored]))
    return rows


def _ranked(artefacts: Artefacts, method: str, product: str, samples: dict[str, SampleRow]) -> Iterator[_Ranked]:
    for row in artefacts.scored(method, product):
        if row.sample_id in samples and samples[row.sample_id].role != "calibration":  # those stand where the threshold does
            ap = _ap(artefacts, row, samples[row.sample_id])
            if ap is not None or row.anomaly_type is None:
                yield _Ranked(row.sample_id, ap, row.image_score)


def _chosen(ranked: list[_Ranked]) -> list[tuple[str, str]]:
    """(title, sample_id) of the rows to show."""
    anomalies = [sample_id for _, sample_id in sorted((-row.ap, row.sample_id) for row in ranked if row.ap is not None)]
    good = sorted((-row.image_score, row.sample_id) for row in ranked if row.ap is None)
    chosen = []
    if anomalies:
        chosen = [("best", anomalies[0]), ("median", anomalies[len(anomalies) // 2]), ("worst", anomalies[-1])]
    return chosen + [("most suspected good image", sample_id) for _, sample_id in good[:1]]


def _ap(artefacts: Artefacts, row: ScoredRow, sample: SampleRow) -> float | None:
    """Of an image's 8-bit map, whose shape the true mask is brought to; None for a good image, or if the mask is absent or empty."""
    if sample.mask_path is None:
        return None
    pixels = decode_image(row.anomaly_map["bytes"], "L", row.sample_id)
    height, width = pixels.shape
    mask = artefacts.image(sample.mask_path, "L", (height, width))
    return float(average_precision_score(mask.ravel() > 127, pixels.ravel())) if mask is not None and mask.any() else None


def map_of(artefacts: Artefacts, row: ScoredRow, sample: SampleRow, picture: Picture) -> AnomalyMap:
    """What a detector saw on an image, in colours."""
    pixels = decode_image(row.anomaly_map["bytes"], "L", row.sample_id)
    by = "by a detector trained on" if "detect" in KINDS[artefacts.params.kind_of(row.method)] else "by"
    return AnomalyMap(row.method, data_uri(heat(pixels)), f"Anomaly map of {picture.alt}, {by} {row.method}", _ap(artefacts, row, sample))
