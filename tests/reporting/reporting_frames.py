"""Metric rows with figures that can be worked out by hand."""

from __future__ import annotations

import pandas as pd


def frame_of(values: dict[tuple[str, str, int], float], metric: str = "pixel_ap") -> pd.DataFrame:
    """Metric rows from {(method, product, seed): value}."""
    rows = [
        {"method": method, "product": product, "seed": seed, "metric": metric, "value": value, "n": 9, "protocol": "strict"}
        for (method, product, seed), value in values.items()
    ]
    return pd.DataFrame(rows)


def paired(*gains: float) -> pd.DataFrame:
    """Two products; seed s of cadiff is gains[s] ahead of exemplars, which is at 0.5 and 0.7."""
    values = {}
    for seed, gain in enumerate(gains):
        for product, base in (("a", 0.5), ("b", 0.7)):
            values["exemplars", product, seed] = base
            values["cadiff", product, seed] = base + gain
    return frame_of(values)


def over_types(frame: pd.DataFrame, shift: float) -> pd.DataFrame:
    """The same rows, and the mean over types that much lower."""
    return pd.concat([frame, frame.assign(metric="pixel_ap_types", value=frame["value"] - shift)])
