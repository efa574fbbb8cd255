"""The paper's Tables 1-5 as data (paper.csv, values as printed), beside what was measured."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from cadiff.params import Params
from cadiff.reporting.tables import ABSENT, Cell, Row, Table, mean_and_spread

SOURCE = Path(__file__).with_name("paper.csv")
NAMES = {
    "pixel_auroc": "AUROC-P",
    "pixel_ap": "AP-P",
    "pixel_f1max": "F1-P",
    "image_auroc": "AUROC-I",
    "image_ap": "AP-I",
    "ic_lpips": "IC-LPIPS",
    "is": "IS",
}
PLAIN_UNITS = ("is", "ic_lpips")  # not shares, printed with two digits
MVTEC = "mvtec"
NOT_RUN = Cell("not run", kind="absent")


@cache
def printed() -> pd.DataFrame:
    """Columns table, metric, method, product, value: shares in %, IS and IC-LPIPS, as the paper prints them.

    Two corrections of names, none of values: Table 3's "DREAM" is DRAEM, and "Ours" is CADiff. Some printed
    averages are truncated rather than rounded, and DevNet's pixel AUROC average (86.4) is not the mean of its
    column (88.4).
    """
    return pd.read_csv(SOURCE)


def paper_tables(frame: pd.DataFrame, params: Params, scale: str) -> list[Table]:
    """Tables 1-5 with a column or row of what was measured here.

    Args:
        frame: the measured rows (METRIC_SCHEMA), shares in [0, 1].
        params: say which printed rows this run is the counterpart of; a product counts as the paper's only if
            ``dataset.name`` names MVTec AD.
        scale: how this run differs, in words ("demo, 64 px, 3 products").
    """
    own = frame[frame["method"] == "cadiff"]
    here = f"here: cadiff ({scale})"
    return [
        _by_product(1, "Inception Score and IC-LPIPS of generated images, MVTec AD", own, params, here),
        _by_product(2, "Pixel-level detection, MVTec AD, in %", own, params, here),
        _by_method(3, "A U-Net trained on generated images, MVTec AD / VisA, in %", own, "CADiff", here),
        _by_method(4, "Intensity w, masked focus attention (MFA), delayed focus scheduler (DFS), MVTec", own,
                   intensity_row(params), here),
        _by_method(5, "Multi-token learning (MTL), its regularisation (Reg) and SAIM, MVTec AD", own,
                   ablation_row(params), here),
    ]  # fmt: skip


def intensity_row(params: Params) -> str | None:
    """The row of Table 4 that has this run's intensity settings; None if the paper has no such row."""
    values = params.intensity
    rows = {
        (0.5, 0.5, True, True): "w = 0.5",
        (1.0, 1.0, True, True): "w = 1",
        (1.5, 1.5, True, True): "w = 1.5",
        (0.5, 1.5, True, True): "w in [0.5, 1.5]",
        (0.5, 1.5, False, True): "w/o MFA",
        (0.5, 1.5, True, False): "w/o DFS",
    }
    return rows.get((values.low, values.high, values.masked_focus, values.delayed_focus))


def ablation_row(params: Params) -> str | None:
    """The row of Table 5 that has this run's prompt and control settings; None if there is no such row."""
    prompt, saim = params.prompt, params.control.interaction != "none"
    if prompt.tokens == "single":
        return None if saim else "single token"
    if prompt.localizing != prompt.contrastive:
        return None
    return " + ".join(["MTL"] + ["Reg"] * prompt.localizing + ["SAIM"] * saim)


def _by_product(number: int, title: str, own: pd.DataFrame, params: Params, here: str) -> Table:
    """Rows are the paper's products; the first column is the same product measured here, if it was."""
    part = printed()[printed()["table"] == number]
    metrics, methods = list(part["metric"].unique()), list(part["method"].unique())
    values = part.set_index(["metric", "method", "product"])["value"].to_dict()
    same = MVTEC in params.dataset.name.lower()
    rows = []
    for product in part["product"].unique():
        cells = [
            Cell(" / ".join(_plain(m, values[m, method, product]) for m in metrics)) for method in methods
        ]
        mine = measured(own[own["product"] == product], metrics) if same else NOT_RUN
        rows.append(Row([product], [mine, *cells]))
    rows.append(Row([f"mean {here}"], [measured(own, metrics), *[Cell(ABSENT)] * len(methods)], here=True))
    units = " / ".join(NAMES[metric] for metric in metrics)
    caption = f"Table {number} · {title}: {units}. As printed, but for the first column."
    return Table(caption, ["Category", "cadiff here", *methods], rows)


def _by_method(number: int, title: str, own: pd.DataFrame, peer: str | None, here: str) -> Table:
    """Rows are the paper's methods or variants; the last is CADiff as run here, ``peer`` its counterpart."""
    part = printed()[printed()["table"] == number]
    metrics, products = list(part["metric"].unique()), list(part["product"].unique())
    values = part.set_index(["metric", "method", "product"])["value"].to_dict()
    ran = not own.empty
    rows = []
    for method in part["method"].unique():
        cells = [Cell(" / ".join(_plain(m, values[m, method, p]) for p in products)) for m in metrics]
        rows.append(
            Row([f"{method} (paper)"], [*cells, Cell("last row") if ran and method == peer else NOT_RUN])
        )
    note = Cell("" if peer else "in no printed row's settings")
    rows.append(Row([here], [*(measured(own, [metric]) for metric in metrics), note], here=True))
    return Table(f"Table {number} · {title}.", ["Method", *(NAMES[m] for m in metrics), "Run here"], rows)


def measured(own: pd.DataFrame, metrics: list[str]) -> Cell:
    """This run's figures in the paper's units, "not run" where nothing was measured under that very name.

    IS and IC-LPIPS measured with another network carry its name (``ic_lpips(efficientnet-lite0)``), no peers.
    """
    found = {metric: mean_and_spread(own, "cadiff", metric)[0] for metric in metrics}
    if all(pd.isna(value) for value in found.values()):
        return NOT_RUN
    shown = [_plain(m, v if m in PLAIN_UNITS else 100 * v) for m, v in found.items()]
    return Cell(" / ".join(shown))


def _plain(metric: str, value: float) -> str:
    return ABSENT if pd.isna(value) else f"{value:.{2 if metric in PLAIN_UNITS else 1}f}"
