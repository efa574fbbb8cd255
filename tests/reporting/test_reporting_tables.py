"""Means, spreads and tables against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from reporting_frames import frame_of, over_types, paired

from cadiff.reporting import comparing, tables
from cadiff.reporting.verdict import place_among, verdict


def test_mean_and_spread_by_hand() -> None:
    values = {("a", 0): 0.2, ("b", 0): 0.4, ("a", 1): 0.4, ("b", 1): 0.6}
    frame = frame_of({("cadiff", *key): value for key, value in values.items()})
    mean, spread, seeds = comparing.mean_and_spread(frame, "cadiff", "pixel_ap")
    # Seed means 0.3 and 0.5: their standard deviation is 0.1 * sqrt(2).
    assert (mean, spread, seeds) == (pytest.approx(0.4), pytest.approx(0.1 * np.sqrt(2)), 2)


def test_seed_that_a_product_lacks_does_not_tilt_the_spread() -> None:
    frame = frame_of({("cadiff", "a", 0): 0.2, ("cadiff", "b", 0): 0.4, ("cadiff", "b", 1): 0.8})
    mean, spread, seeds = comparing.mean_and_spread(frame, "cadiff", "pixel_ap")
    assert mean == pytest.approx((0.2 + 0.6) / 2)
    assert np.isnan(spread)
    assert seeds == 1


def test_undefined_metric_is_left_out() -> None:
    frame = frame_of({("cadiff", "a", 0): 0.2, ("cadiff", "b", 0): float("nan")})
    assert comparing.mean_and_spread(frame, "cadiff", "pixel_ap")[0] == pytest.approx(0.2)
    assert comparing.means(frame) == {"cadiff": {"pixel_ap": pytest.approx(0.2)}}
    assert comparing.means(frame[frame["product"] == "b"]) == {}


def test_the_mean_over_types_stands_beside_the_pooled_figure() -> None:
    frame = over_types(paired(0.1, 0.1, 0.1), 0.3)
    table = tables.headline_table(frame, ["cadiff", "exemplars"])
    assert table.columns[2:4] == ["Pixel AP", "Pixel AP, mean over types"]
    assert [[cell.text for cell in row.cells[1:3]] for row in table.rows] == [
        ["70.0 ± 0.0", "40.0 ± 0.0"], ["60.0 ± 0.0", "30.0 ± 0.0"],
    ]  # fmt: skip
    assert verdict(frame)[1].endswith("The mean over anomaly types is 40.0\u202f% and 30.0\u202f%: +10.0 points.")
    assert comparing.means(frame)["cadiff"] == {"pixel_ap": pytest.approx(0.7), "pixel_ap_types": pytest.approx(0.4)}
    added = over_types(paired(0.02, 0.02, 0.02), 0.0)
    added = added[added["method"] == "cadiff"].assign(method="both")
    both = pd.concat([over_types(paired(-0.01, -0.02, -0.03), 0.0), added.assign(value=added["value"] + 0.0)])
    said = verdict(both)[1]
    assert "The mean over anomaly types is 62.0\u202f% and 60.0\u202f%: +2.0 points." in said
    typed = pd.concat([frame, paired(0.2).assign(metric="pixel_ap/hole")])
    assert [row.heads for row in tables.type_table(typed, ["a"], ["cadiff"]).rows] == [["a", "hole"], ["a", "mean over types"]]


def test_tables_of_before_show_a_dash_for_the_mean_over_types() -> None:
    frame = paired(0.1, 0.1, 0.1)
    for table in (tables.headline_table(frame, ["cadiff", "exemplars"]), tables.gain_table(frame, ["cadiff", "exemplars"]),
                  tables.product_table(frame, ["a"], ["cadiff", "exemplars"])):  # fmt: skip
        at = table.columns.index("Pixel AP, mean over types") - len(table.rows[0].heads)
        assert {row.cells[at].text for row in table.rows} == {comparing.ABSENT}
    assert "mean over" not in " ".join(verdict(frame))
    assert [row.heads[1] for row in tables.type_table(frame, ["a"], ["cadiff"]).rows] == []


def test_what_prints_alike_is_best_alike() -> None:
    frame = frame_of({("cadiff", "a", 0): 0.99701, ("exemplars", "a", 0): 0.99699, ("both", "a", 0): 0.996}, "pixel_ap/hole")
    cells = tables.type_table(frame, ["a"], ["cadiff", "exemplars", "both"]).rows[0].cells
    assert [(cell.text, cell.kind) for cell in cells] == [("99.7", "best"), ("99.7", "best"), ("99.6", "")]


def test_the_threshold_table_by_hand() -> None:
    rates = {"false_alarm_rate": ((0.0, 0.1), 10), "miss_rate": ((0.5, 0.7), 20), "miss_rate/hole": ((0.2, 0.2), 5)}
    parts = [frame_of({("cadiff", "a", seed): value for seed, value in enumerate(values)}, metric).assign(n=n)
             for metric, (values, n) in rates.items()]  # fmt: skip
    frame = pd.concat([*parts, paired(0.1)])
    table = tables.threshold_table(frame, "a", ["exemplars", "cadiff"], {"cadiff"})
    assert table.columns[1:] == ["False alarms (of\u00a010)", "Misses (of\u00a020)", "hole (of\u00a05)", "Seeds"]
    assert [cell.text for cell in table.rows[0].cells] == ["5.0 ± 7.1", "60.0 ± 14.1", "20.0 ± 0.0", "2"]
    assert [(row.heads[0].split(" ")[0], row.here) for row in table.rows] == [("cadiff", True)], "exemplars was not calibrated"
    assert tables.threshold_table(frame, "b", ["cadiff"]).rows == []
    promised = frame_of({("cadiff", "a", 0): 0.01}, "threshold_promised")
    assert tables.other_table(pd.concat([frame, promised]), ["a"], ["cadiff"]).rows == [], "each figure stands in one place"


@pytest.mark.parametrize(
    ("gain", "text"), [(0.0324, "+3.2"), (-0.0324, "−3.2"), (0.0001, "0.0"), (-0.0001, "0.0")]
)
def test_points(gain: float, text: str) -> None:
    assert comparing.points(gain) == text


def test_best_is_marked_once_per_column() -> None:
    table = tables.headline_table(paired(0.1, 0.1), ["cadiff", "exemplars", "perlin"])
    ap = table.columns.index("Pixel AP") - 1
    assert [row.cells[ap].text for row in table.rows] == ["70.0 ± 0.0", "60.0 ± 0.0", "not run"]
    assert [row.cells[ap].kind for row in table.rows] == ["best", "", "absent"]
    assert "**70.0 ± 0.0**" in tables.markdown(table)


def test_headline_is_in_the_order_of_pixel_ap_and_a_mixture_has_no_place() -> None:
    values = {(method, "a", 0): value for method, value in (("cadiff", 0.5), ("perlin", 0.2), ("both", 0.9), ("exemplars", 0.7))}
    frame = frame_of(values)
    table = tables.headline_table(frame, ["cadiff", "exemplars", "both", "perlin"])
    assert [(row.heads[0].split(" ")[0], row.cells[0].text) for row in table.rows] == [
        ("both", "–"), ("exemplars", "1"), ("cadiff", "2"), ("perlin", "3"),
    ]  # fmt: skip
    said = place_among(frame, ["cadiff", "exemplars", "both", "perlin"])
    assert "number 2 of 3 sources" in said
    assert "−20.0 points from the first (augmented exemplars alone)" in said
    assert place_among(frame[frame["method"] == "cadiff"], ["cadiff"]) == ""


def test_an_undefined_figure_is_a_dash_that_does_not_sort() -> None:
    frame = frame_of({("cutpaste", "a", 0): float("nan"), ("cadiff", "a", 0): 0.25}, "ic_lpips(some-network)")
    table = tables.other_table(frame, ["a"], ["cadiff", "cutpaste", "perlin"])
    assert table.columns == ["Product", "Metric", "cadiff", "cutpaste"]
    cells = dict(zip(table.columns[2:], table.rows[0].cells, strict=True))
    assert (cells["cutpaste"].text, cells["cutpaste"].order) == (comparing.ABSENT, None)
    assert (cells["cadiff"].text, cells["cadiff"].order) == ("0.250", 0.25)


def test_methods_are_ranked_over_the_products_that_all_of_them_have() -> None:
    """As after a stop: ours is there for the easy product alone, the peer for both."""
    frame = frame_of({("cadiff", "easy", 0): 0.9, ("exemplars", "easy", 0): 0.95, ("exemplars", "hard", 0): 0.5})
    table = tables.headline_table(frame, ["cadiff", "exemplars", "perlin"])
    assert [row.heads[0].partition(" ")[0] for row in table.rows] == ["exemplars", "cadiff", "perlin"]
    assert "the 1 of 2 products that every row has" in table.caption
    assert table.rows[-1].cells[1].text == "not run"
    assert "number 2 of 2" in place_among(frame, ["cadiff", "exemplars"])
    assert "Mean over products" in tables.headline_table(frame, ["exemplars"]).caption
