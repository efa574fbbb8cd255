"""Means, spreads and comparisons against figures worked out by hand; the paper's data against the paper."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cadiff.params import Params
from cadiff.reporting import paper, tables


def frame_of(values: dict[tuple[str, str, int], float], metric: str = "pixel_ap") -> pd.DataFrame:
    """Metric rows from {(method, product, seed): value}."""
    rows = [
        {"method": method, "product": product, "seed": seed, "metric": metric, "value": value, "n": 9}
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


def test_mean_and_spread_by_hand() -> None:
    values = {("a", 0): 0.2, ("b", 0): 0.4, ("a", 1): 0.4, ("b", 1): 0.6}
    frame = frame_of({("cadiff", *key): value for key, value in values.items()})
    mean, spread, seeds = tables.mean_and_spread(frame, "cadiff", "pixel_ap")
    # Seed means 0.3 and 0.5: their standard deviation is 0.1 * sqrt(2).
    assert (mean, spread, seeds) == (pytest.approx(0.4), pytest.approx(0.1 * np.sqrt(2)), 2)


def test_seed_that_a_product_lacks_does_not_tilt_the_spread() -> None:
    frame = frame_of({("cadiff", "a", 0): 0.2, ("cadiff", "b", 0): 0.4, ("cadiff", "b", 1): 0.8})
    mean, spread, seeds = tables.mean_and_spread(frame, "cadiff", "pixel_ap")
    assert mean == pytest.approx((0.2 + 0.6) / 2)
    assert np.isnan(spread)
    assert seeds == 1


def test_undefined_metric_is_left_out() -> None:
    frame = frame_of({("cadiff", "a", 0): 0.2, ("cadiff", "b", 0): float("nan")})
    assert tables.mean_and_spread(frame, "cadiff", "pixel_ap")[0] == pytest.approx(0.2)
    assert tables.means(frame) == {"cadiff": {"pixel_ap": pytest.approx(0.2)}}
    assert tables.means(frame[frame["product"] == "b"]) == {}


@pytest.mark.parametrize(
    ("gains", "outcome", "begins"),
    [
        ((0.01, 0.02, 0.03), "better", "Yes"),
        ((-0.01, -0.02, -0.03), "worse", "No"),
        ((0.05, 0.05, -0.01), "undecided", "Undecided"),
        ((0.05, 0.05, 0.0), "undecided", "Undecided"),
        ((0.05,), "undecided", "An indication only: CADiff is ahead"),
        ((-0.05, -0.02), "undecided", "An indication only: CADiff is not ahead"),
    ],
)
def test_verdict_is_honest(gains: tuple[float, ...], outcome: str, begins: str) -> None:
    frame = paired(*gains)
    comparison = tables.compare(frame, "pixel_ap", "cadiff", "exemplars")
    assert comparison is not None
    assert comparison.gain == pytest.approx(np.mean(gains))
    assert comparison.outcome == outcome
    conclusion, figures = tables.verdict(frame)
    assert conclusion.startswith(begins)
    assert f"{tables.points(float(np.mean(gains)))} points" in figures
    assert "60.0\u202f% for the same detector trained on augmented exemplars alone" in figures


def test_a_gain_between_two_detectors_at_chance_is_no_gain() -> None:
    frame = paired(0.1, 0.1, 0.1)
    chance = frame.assign(metric="pixel_auroc", value=0.52)
    assert tables.verdict(pd.concat([frame, chance]))[0].startswith("Neither detector works")
    assert tables.verdict(pd.concat([frame, chance.assign(value=0.9)]))[0].startswith("Yes")


def test_verdict_without_a_peer_makes_no_claim() -> None:
    frame = paired(0.1, 0.1, 0.1)
    assert tables.verdict(frame[frame["method"] == "cadiff"])[0].startswith("Not compared")


@pytest.mark.parametrize(
    ("gain", "text"), [(0.0324, "+3.2"), (-0.0324, "−3.2"), (0.0001, "0.0"), (-0.0001, "0.0")]
)
def test_points(gain: float, text: str) -> None:
    assert tables.points(gain) == text


def test_best_is_marked_once_per_column() -> None:
    table = tables.headline_table(paired(0.1, 0.1), ["cadiff", "exemplars", "perlin"])
    assert [row.cells[0].text for row in table.rows] == ["70.0 ± 0.0", "60.0 ± 0.0", "not run"]
    assert [row.cells[0].kind for row in table.rows] == ["best", "", ""]
    assert "**70.0 ± 0.0**" in tables.markdown(table)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ((1, "is", "CADiff", "zipper"), 2.05),
        ((1, "ic_lpips", "DFMGAN", "bottle"), 0.12),
        ((2, "pixel_ap", "DRA", "leather"), 5.1),
        ((2, "pixel_auroc", "CADiff", "hazelnut"), 99.9),
        ((2, "pixel_ap", "CADiff", "average"), 84.6),
        ((3, "pixel_f1max", "AnoDiff", "VisA average"), 45.8),
        ((3, "image_ap", "CADiff", "MVTec AD average"), 99.8),
        ((4, "pixel_ap", "w/o MFA", "average"), 81.4),
        ((4, "ic_lpips", "w = 1", "average"), 0.28),
        ((5, "image_auroc", "MTL + SAIM", "average"), 98.9),
        ((5, "pixel_auroc", "single token", "average"), 92.8),
    ],
)
def test_paper_cell(cell: tuple[int, str, str, str], value: float) -> None:
    found = paper.printed().set_index(["table", "metric", "method", "product"])["value"]
    assert found[cell] == value


def test_paper_is_whole() -> None:
    counts = paper.printed().groupby("table").size().to_dict()
    assert counts == {1: 2 * 3 * 16, 2: 2 * 11 * 16, 3: 5 * 5 * 2, 4: 4 * 6, 5: 5 * 5}
    assert not paper.printed().duplicated(["table", "metric", "method", "product"]).any()


def test_paper_averages_agree_with_their_columns() -> None:
    part = paper.printed()[paper.printed()["table"] <= 2]
    keys = ["table", "metric", "method"]
    average = part[part["product"] == "average"].set_index(keys)["value"]
    column = part[part["product"] != "average"].groupby(keys)["value"].mean()
    # Some averages are cut off instead of rounded: up to one unit of the last digit printed.
    off = (average - column).abs()
    off = off >= np.where(off.index.get_level_values("table") == 1, 0.01, 0.1)
    # The paper's own slip: it prints 86.4 under a column whose mean is 88.4.
    assert list(off[off].index) == [(2, "pixel_auroc", "DevNet")]


def test_paper_tables_compare_only_what_corresponds() -> None:
    frame = paired(0.1)
    one, two, three, _, _ = paper.paper_tables(frame, Params(products={"bottle": {}}), "demo, 64 px")
    assert {row.cells[0].text for row in one.rows} == {"not run"}
    assert [row.cells[0].text for row in two.rows[:-1]] == ["not run"] * 16
    assert two.rows[-1].cells[0].text == f"{tables.ABSENT} / 70.0"
    assert [row.cells[-1].text for row in three.rows] == ["not run"] * 4 + ["last row", ""]
    assert [row.here for row in three.rows] == [False] * 5 + [True]

    own = frame.replace({"product": {"a": "bottle"}})
    mvtec = Params(products={"bottle": {}}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    cells = {row.heads[0]: row.cells[0].text for row in paper.paper_tables(own, mvtec, "mvtec_ad")[1].rows}
    assert cells["bottle"] == f"{tables.ABSENT} / 60.0"
    assert cells["cable"] == "not run"


@pytest.mark.parametrize(
    ("changes", "intensity", "ablation"),
    [
        ({}, "w in [0.5, 1.5]", "MTL + Reg + SAIM"),
        ({"intensity": {"low": 1, "high": 1}}, "w = 1", "MTL + Reg + SAIM"),
        ({"intensity": {"delayed_focus": False}}, "w/o DFS", "MTL + Reg + SAIM"),
        ({"intensity": {"low": 0.7}}, None, "MTL + Reg + SAIM"),
        ({"control": {"interaction": "none"}}, "w in [0.5, 1.5]", "MTL + Reg"),
        ({"prompt": {"tokens": "single"}, "control": {"interaction": "none"}}, "w in [0.5, 1.5]",
         "single token"),
        ({"prompt": {"localizing": False, "contrastive": False}}, "w in [0.5, 1.5]", "MTL + SAIM"),
        ({"prompt": {"localizing": False}}, "w in [0.5, 1.5]", None),
    ],
)
def test_counterpart_rows_follow_the_parameters(
    changes: dict, intensity: str | None, ablation: str | None
) -> None:
    params = Params(products={"a": {}}, **changes)
    assert paper.intensity_row(params) == intensity
    assert paper.ablation_row(params) == ablation
    printed = paper.printed()
    assert ablation is None or ablation in set(printed.loc[printed["table"] == 5, "method"])
    assert intensity is None or intensity in set(printed.loc[printed["table"] == 4, "method"])
