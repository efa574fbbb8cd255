"""The paper's Tables 1-5 as data: paper.csv, values as printed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from cadiff.reporting.comparing import ABSENT

SOURCE = Path(__file__).with_name("paper.csv")
NAMES = {
    "pixel_auroc": "AUC-P",
    "pixel_ap": "AP-P",
    "pixel_f1max": "F1-P",
    "image_auroc": "AUC-I",
    "image_ap": "AP-I",
    "ic_lpips": "IC-L",
    "is": "IS",
}
PLAIN_UNITS = ("is", "ic_lpips")  # not shares, printed with two digits
MVTEC, VISA = "MVTec AD", "VisA"
DATASETS = {"mvtec": MVTEC, "mvtecad": MVTEC, "visa": VISA}  # by name, letters only
PRODUCTS_OF_VISA = 12
DETECTORS_TABLE = 2  # its DRAEM is the detector, Table 3's the way to draw anomalies


@cache
def printed() -> pd.DataFrame:
    """Columns table, metric, method, product, value: shares in %, IS and IC-LPIPS, as the paper prints them.

    Two corrections of names, none of values: Table 3's "DREAM" is DRAEM, and "Ours" is CADiff. Some printed
    averages are truncated rather than rounded, and DevNet's pixel AUROC average (86.4) is not the mean of its
    column (88.4).
    """
    return pd.read_csv(SOURCE)


def values_of(number: int) -> dict[tuple[str, str, str], float]:
    """{(metric, method, product): value} of a table."""
    part = printed()[printed()["table"] == number]
    keys = zip(part["metric"], part["method"], part["product"], strict=True)
    return dict(zip(keys, part["value"].astype(float), strict=True))


def names_in(number: int, column: str) -> list[str]:
    return [str(name) for name in printed().loc[printed()["table"] == number, column].unique()]


def plain(metric: str, value: float) -> str:
    return ABSENT if pd.isna(value) else f"{value:.{2 if metric in PLAIN_UNITS else 1}f}"
