"""Measured figures: the joined rows, means with their spread, and the comparison of two methods, paired by product and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from cadiff.errors import CADiffError
from cadiff.params import METHODS, of_kind
from cadiff.records import METRIC_SCHEMA
from cadiff.reporting.artefacts import Artefacts

TYPES = "pixel_ap_types"  # the mean over anomaly types of pixel_ap/<type>: pooled, one type with large masks decides
HEADLINE = {
    "pixel_ap": "Pixel AP",
    TYPES: "Pixel AP, mean over types",
    "pixel_auroc": "Pixel AUROC",
    "pixel_f1max": "Pixel F1-max",
    "pro": "PRO",
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
}
METRIC_NAMES = {**HEADLINE, "image_f1max": "Image F1-max"}
MIXTURES = set(of_kind("union"))  # of other methods' images
ABSENT = "–"


@dataclass(frozen=True)
class Comparison:
    """A metric's gain over a peer, in its unit, paired by product and seed; ``means`` ours and theirs."""

    metric: str
    peer: str
    means: tuple[float, float]
    gain: float
    by_seed: list[float]
    by_product: dict[str, float]

    @property
    def outcome(self) -> str:
        """``better`` or ``worse`` only when every seed agrees and there are at least three of them."""
        signs = {gain > 0 for gain in self.by_seed if gain != 0}
        if len(self.by_seed) < 3 or len(signs) != 1 or 0.0 in self.by_seed:
            return "undecided"
        return "better" if self.gain > 0 else "worse"


def join_metrics(artefacts: Artefacts) -> pa.Table:
    """All evaluated rows of params.products x params.methods, in that order (METRIC_SCHEMA).

    Raises:
        CADiffError: if a file holds another product's or method's rows, or two rows for one metric and seed.
    """
    parts = []
    for product in artefacts.params.products:
        for method in artefacts.params.methods:
            part = artefacts.metrics(method, product)
            _check(part, method, product)
            parts.append(part.cast(METRIC_SCHEMA))
    return pa.concat_tables(parts)


def join_published(artefacts: Artefacts) -> pd.DataFrame:
    """The rows of the published evaluation, where it was asked for.

    Raises:
        CADiffError: as ``join_metrics``.
    """
    parts = []
    for product in artefacts.params.products:
        for method in artefacts.params.methods:
            parts.append(artefacts.published(method, product))
            _check(parts[-1], method, product, "published.parquet")
    figures: pd.DataFrame = pa.concat_tables(parts).to_pandas()
    return figures


def _check(part: pa.Table, method: str, product: str, file: str = "metrics.parquet") -> None:
    name = f"evaluated/{method}/{product}/{file}"
    strangers = {(row["product"], row["method"]) for row in part.to_pylist()} - {(product, method)}
    if strangers:
        raise CADiffError(
            f"{name}: expected rows of {(product, method)} only, found {sorted(strangers)}. Rerun evaluate."
        )
    keys = part.select(["variant", "metric", "seed"]).to_pandas()
    if keys.duplicated(["metric", "seed"]).any():
        first = keys[keys.duplicated(["metric", "seed"])].iloc[0].to_dict()
        raise CADiffError(
            f"{name}: expected one row per metric and seed, found a second for {first}. Rerun evaluate."
        )


def mean_and_spread(frame: pd.DataFrame, method: str, metric: str) -> tuple[float, float, int]:
    """Mean over products and seeds, standard deviation over seeds of the mean over products, number of seeds.

    NaN (a metric that is undefined for a product) is left out. Only seeds that every product has enter the
    spread, which is NaN for fewer than two of them.
    """
    rows = frame[(frame["method"] == method) & (frame["metric"] == metric)].dropna(subset=["value"])
    if rows.empty:
        return float("nan"), float("nan"), 0
    grid = rows.pivot(index="seed", columns="product", values="value")
    by_seed = grid.dropna().mean(axis=1)
    return float(grid.mean().mean()), float(by_seed.std(ddof=1)), len(by_seed)


def means(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """{method: {metric: mean over products and seeds}}, without per-type metrics (``name/type``)."""
    result: dict[str, dict[str, float]] = {}
    for (method, metric), _ in frame.groupby(["method", "metric"], sort=True):
        value = mean_and_spread(frame, str(method), str(metric))[0]
        if "/" not in str(metric) and not pd.isna(value):
            result.setdefault(str(method), {})[str(metric)] = value
    return result


def compare(frame: pd.DataFrame, metric: str, ours: str, peer: str) -> Comparison | None:
    """The gain of ``ours`` over ``peer``, from products and seeds that both have; None if there are none."""
    rows = frame[frame["metric"] == metric].dropna(subset=["value"])
    grid = rows.pivot(index=["product", "seed"], columns="method", values="value")
    if ours not in grid or peer not in grid:
        return None
    pairs = grid[[ours, peer]].dropna()
    if pairs.empty:
        return None
    own, theirs = (float(pairs[method].unstack("product").mean().mean()) for method in (ours, peer))
    gains = (pairs[ours] - pairs[peer]).unstack("product")
    by_seed = gains.dropna().mean(axis=1)
    by_product = {str(product): float(gain) for product, gain in gains.mean().items()}
    gain = float(gains.mean().mean())
    return Comparison(metric, peer, (own, theirs), gain, [float(value) for value in by_seed], by_product)


def comparable(frame: pd.DataFrame, methods: Sequence[str], metric: str = "pixel_ap") -> pd.DataFrame:
    """The rows of the products that every measured method has: after a stop, one may have the easy products alone."""
    rows = frame[(frame["metric"] == metric) & frame["method"].isin(methods)].dropna(subset=["value"])
    by_method = [set(part["product"]) for _, part in rows.groupby("method")]
    return frame[frame["product"].isin(set.intersection(*by_method))] if by_method else frame


def ranking(frame: pd.DataFrame, methods: Sequence[str], metric: str = "pixel_ap") -> list[tuple[str, float]]:
    """The methods that were measured with their means, the best first; equal means in the order given."""
    found = [(method, mean_and_spread(frame, method, metric)[0]) for method in methods]
    return sorted(((method, value) for method, value in found if pd.notna(value)), key=lambda pair: -pair[1])


def percent(value: float) -> str:
    return ABSENT if pd.isna(value) else f"{100 * value:.1f}\u202f%"


def points(gain: float) -> str:
    """A difference of two shares in points, with its sign; a true minus sign, as in print."""
    text = f"{100 * gain:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def title_of(method: str) -> str:
    """What a method is called; of one that was made elsewhere its own name."""
    return METHODS[method].title if method in METHODS else method


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
