"""The paper's data against the paper, and what was measured beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from parameters import bare
from reporting_frames import frame_of, paired

from cadiff.metrics.generated import ic_lpips_name, is_name
from cadiff.reporting import paper, tables
from cadiff.reporting.paper_measured import Run, ablation_row, intensity_row
from cadiff.reporting.paper_printed import printed as as_printed


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
    found = as_printed().set_index(["table", "metric", "method", "product"])["value"]
    assert found[cell] == value


def test_paper_is_whole() -> None:
    counts = as_printed().groupby("table").size().to_dict()
    assert counts == {1: 2 * 3 * 16, 2: 2 * 11 * 16, 3: 5 * 5 * 2, 4: 4 * 6, 5: 5 * 5}
    assert not as_printed().duplicated(["table", "metric", "method", "product"]).any()


def test_paper_averages_agree_with_their_columns() -> None:
    part = as_printed()[as_printed()["table"] <= 2]
    keys = ["table", "metric", "method"]
    average = part[part["product"] == "average"].set_index(keys)["value"]
    column = part[part["product"] != "average"].groupby(keys)["value"].mean()
    # Some averages are cut off instead of rounded: up to one unit of the last digit printed.
    off = (average - column).abs()
    off = off >= np.where(off.index.get_level_values("table") == 1, 0.01, 0.1)
    # The paper's own slip: it prints 86.4 under a column whose mean is 88.4.
    assert list(off[off].index) == [(2, "pixel_auroc", "DevNet")]


def rows_of(table: tables.Table) -> dict[str, list[str]]:
    """{last head: texts of the cells}; of Table 1 the rows of IS."""
    return {row.heads[-1]: [cell.text for cell in row.cells] for row in table.rows if row.heads[0] != "IC-L"}


def test_printed_rows_without_a_peer_show_as_such() -> None:
    one, two, three, _, five = paper.paper_tables(paired(0.1), bare(products={"bottle": {}}), "demo, 64 px")
    assert {row.heads[-1]: row.cells[-2].text for row in one.rows} == {
        "DFMGAN": "not run here", "AnoDiff": "not run here", "CADiff": "printed", "cadiff, here": "strict",
    }  # fmt: skip
    assert rows_of(three)["PRN"][-2] == "not run here"
    assert rows_of(five)["MTL"][-2] == "not run here"
    assert rows_of(two)["average, here"] == ["not run here"] * 10 + ["– / 70.0", "strict", "1"]


def test_no_difference_is_taken_from_another_data_set_even_if_a_product_has_the_same_name() -> None:
    frame = paired(0.1).replace({"product": {"a": "bottle"}})
    found = paper.paper_tables(frame, bare(products={"bottle": {}, "b": {}}), "demo, 64 px")
    for table in found:
        assert not any("difference" in head for row in table.rows for head in row.heads)
        assert "its data set is not the paper’s" in table.caption
    assert "bottle, here" not in rows_of(found[1])
    assert rows_of(found[2])["cadiff, here"][1] == "70.0"


def mvtec_frame(gain: float, products: list[str]) -> pd.DataFrame:
    """By the published evaluation: cadiff at the printed AP of each product plus ``gain`` points in seed 0, one more in seeds 1 and 2."""
    ap = as_printed().query("table == 2 and metric == 'pixel_ap' and method == 'CADiff'").set_index("product")["value"]
    values = {("cadiff", product, seed): (ap[product] + gain + (seed > 0)) / 100 for product in products for seed in (0, 1, 2)}
    return frame_of(values).assign(protocol="legacy", variant="unet")


def test_difference_from_the_papers_own_data_set_by_hand() -> None:
    products = [p for p in as_printed().query("table == 2")["product"].unique() if p != "average"]
    params = bare(products={product: {} for product in products}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    _, two, three, four, five = paper.paper_tables(mvtec_frame(-2, products), params, "mvtec_ad")
    assert rows_of(two)["bottle, here"][10] == "– / 94.2 ± 0.6"  # 95.5 - 2 + 2 / 3
    assert rows_of(two)["bottle, difference"][10] == "– / −1.3"
    # The mean of the printed column is 84.56, printed as 84.6.
    assert rows_of(three)["cadiff, here"][1] == "83.2 ± 0.6"
    assert rows_of(three)["cadiff, difference"][1] == "−1.4"
    assert rows_of(three)["cadiff, here"][-2:] == ["legacy", "3"]
    assert rows_of(four)["cadiff, difference"][0] == rows_of(five)["cadiff, difference"][1] == "−1.4"
    some = params.model_copy(update={"products": {"bottle": {}}})
    _, two, three, _, _ = paper.paper_tables(mvtec_frame(-2, ["bottle"]), some, "mvtec_ad")
    assert "cadiff, difference" not in rows_of(three), "a mean over other products is another mean"
    assert rows_of(two)["bottle, difference"][10] == "– / −1.3"


def test_the_published_evaluation_stands_beside_ours_and_alone_is_compared() -> None:
    products = [p for p in as_printed().query("table == 2")["product"].unique() if p != "average"]
    params = bare(products={product: {} for product in products}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    published, ours = mvtec_frame(-2, products), mvtec_frame(-12, products).assign(protocol="strict")
    found = paper.paper_tables(ours, params, "mvtec_ad", None, published)
    two, three = rows_of(found[1]), rows_of(found[2])
    assert two["bottle, here"][10] == "– / 84.2 ± 0.6"
    assert two["bottle, here, published evaluation"][10] == "– / 94.2 ± 0.6"
    assert two["bottle, difference"][10] == "– / −1.3"
    assert (three["cadiff, here"][-2], three["cadiff, here, published evaluation"][-2]) == ("strict", "legacy")
    assert three["cadiff, difference"][1] == "−1.4"
    assert "no difference" not in found[2].caption
    alone = paper.paper_tables(ours, params, "mvtec_ad")
    assert not any("difference" in head for table in alone for head in rows_of(table))
    assert "by the published evaluation alone (protocol legacy), which was not asked for" in alone[2].caption
    other = paper.paper_tables(ours, params, "mvtec_ad", None, published.assign(variant="efficientnet-lite0"))[2]
    assert "cadiff, difference" not in rows_of(other), "another network is another detector"


def test_every_variant_of_diversity_is_told_and_the_papers_is_in_the_table() -> None:
    params = bare(products={"bottle": {}}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    values = {("vgg", 50, "dropped"): 0.31, ("alex", 200, "dropped"): 0.2, ("alex", 200, "zero"): 0.1}
    frame = pd.concat([
        frame_of({("cadiff", "bottle", 0): value}, ic_lpips_name(f"lpips-{net}", cap, single)).assign(protocol="legacy")
        for (net, cap, single), value in values.items()
    ])  # fmt: skip
    table = paper.paper_tables(frame_of({("cadiff", "bottle", 0): 0.5}), params, "mvtec", None, frame)[0]
    rows = {row.heads[-1]: row.cells[0].text for row in table.rows if row.heads[0] == "IC-L"}
    assert rows["cadiff, here, published evaluation"] == "0.31"
    assert rows["cadiff, difference"] == "+0.02", "printed 0.29"
    assert "ic_lpips(lpips-alex,cap=200,single=zero) 0.100; ic_lpips(lpips-vgg,cap=50,single=dropped) 0.310" in table.caption


def test_generation_metrics_count_as_the_papers_only_with_its_network() -> None:
    products = ["bottle", "cable"]
    params = bare(products={product: {} for product in products}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    values = {("cadiff", product, 0): 1.9 for product in products}
    stand_in = paper.paper_tables(frame_of(values, "is(efficientnet-lite0)"), params, "mvtec")[0]
    assert rows_of(stand_in)["cadiff, here"][0] == "1.90*"
    assert "with another network, or other textures, than the paper’s" in stand_in.caption
    assert "cadiff, difference" not in rows_of(stand_in)
    own_file = paper.paper_tables(frame_of(values, is_name("inception-v3@1a2b3c4d")), params, "mvtec")[0]
    assert rows_of(own_file)["cadiff, here"][0] == "1.90*", "weights that are not the published ones"
    real = paper.paper_tables(frame_of(values, is_name("inception-v3")), params, "mvtec")[0]
    assert rows_of(real)["cadiff, here"][0] == "1.90"
    assert rows_of(real)["cadiff, difference"][0] == "−0.01"  # printed 1.91


def test_diversity_counts_as_the_papers_only_with_its_network() -> None:
    params = bare(products={"bottle": {}}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    for network, star in (("lpips-vgg", ""), ("lpips-vgg@1a2b3c4d", "*"), ("lpips-alex", "*")):
        frame = frame_of({("cadiff", "bottle", 0): 0.15}, ic_lpips_name(network, 50))
        row = next(r for r in paper.paper_tables(frame, params, "mvtec")[0].rows if r.heads == ["IC-L", "cadiff, here"])
        assert row.cells[0].text == f"0.15{star}", network


def test_a_stand_in_for_a_printed_method_is_marked_and_not_subtracted() -> None:
    products = [p for p in as_printed().query("table == 2")["product"].unique() if p != "average"]
    frame = mvtec_frame(0, products)
    frame = pd.concat([frame, frame.assign(method="patchcore"), frame.assign(method="perlin")])
    params = bare(products={p: {} for p in products}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    _, two, three, _, _ = paper.paper_tables(frame, params, "mvtec_ad")
    at = two.columns.index("PatchCore") - 1
    assert rows_of(two)["bottle, here"][at].endswith("*")
    assert rows_of(two)["bottle, difference"][at] == "– / –"
    assert rows_of(three)["perlin, here"][1].endswith("*")
    assert "perlin, difference" not in rows_of(three)


def test_rd4ad_is_the_papers_on_its_published_backbone_only() -> None:
    params = bare(products={"bottle": {}}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    for backbone, star in (("wide_resnet50_2", ""), ("wide_resnet50_2@1a2b3c4d", "*"), ("resnet18", "*")):
        frame = mvtec_frame(0, ["bottle"]).assign(method="rd4ad", variant=f"rd4ad(anomalib-2.7.0,steps=4,{backbone})")
        two = paper.paper_tables(frame, params, "mvtec_ad")[1]
        assert rows_of(two)["bottle, here"][two.columns.index("RD4AD") - 1].endswith("*") == bool(star), backbone


@pytest.mark.parametrize("name", ["visa", "mvtec_loco"])
def test_a_difference_is_taken_from_the_columns_of_the_same_data_set_and_evaluation_only(name: str) -> None:
    """VisA's pictures are no squares, to which the published evaluation stretches them."""
    products = [f"p{k}" for k in range(12)]
    params = bare(products={p: {} for p in products}, dataset={"name": name, "layout": "mvtec"})
    values = {("cadiff", p, seed): 0.5 for p in products for seed in (0, 1, 2)}
    for table in paper.paper_tables(frame_of(values).assign(protocol="legacy", variant="unet"), params, name):
        assert not any("difference" in head for row in table.rows for head in row.heads), f"{table.title}: MVTec AD's averages"


def test_anomaly_maps_of_a_detector_do_not_fill_a_generators_row() -> None:
    params = bare(products={"a": {}}, external={"maps": ["prn"]})
    tables_ = paper.paper_tables(frame_of({("prn", "a", 0): 0.5}), params, "demo")
    assert rows_of(tables_[2])["PRN"][-2] == "not run here"


def ablations_of(dataset: str, products: list[str], variants: dict[str, float]) -> pd.DataFrame:
    """Rows of the ablations' table: each variant's pixel AP, a point more in seed 1 than in seed 0."""
    values = {("cadiff", product, seed): seed / 100 for product in products for seed in (0, 1)}
    frames = [frame_of(values).assign(dataset=dataset, variant=name) for name in variants]
    return pd.concat([frame.assign(value=frame["value"] + variants[frame["variant"][0]]) for frame in frames])


def test_measured_variants_stand_in_tables_4_and_5_with_their_own_seeds_and_data() -> None:
    variants = {"MTL + Reg + SAIM": 0.7, "MTL": 0.5, "w = 1": 0.6, "own: idea": 0.9}
    params = bare(products={"bottle": {}, "cable": {}}, dataset={"name": "mvtec_ad", "layout": "mvtec"})
    frame = frame_of({("cadiff", product, 0): 0.8 for product in params.products})
    *_, four, five = paper.paper_tables(frame, params, "mvtec_ad", ablations_of("demo", ["nut", "fabric"], variants))
    at = four.columns.index("AP-P") - 1
    assert rows_of(five)["MTL + Reg + SAIM, ablation"][five.columns.index("AP-P") - 1] == "70.5 ± 0.7"
    assert [head for head in rows_of(four) if "ablation" in head] == ["w = 1, ablation"], "Table 5's row says nothing of w"
    assert rows_of(four)["cadiff, here"][at] == "80.0"
    assert rows_of(four)["w = 1, ablation"][at] == "60.5 ± 0.7"
    assert rows_of(four)["w = 1, ablation"][-2:] == ["strict", "2"]
    assert rows_of(four)["w = 1"][-2] == "printed"
    assert rows_of(four)["w/o MFA"][-2] == "not run here"
    assert rows_of(five)["MTL, ablation"][five.columns.index("AP-P") - 1] == "50.5 ± 0.7"
    assert "w = 1, ablation" not in rows_of(five)
    assert not any("idea" in head for head in (*rows_of(four), *rows_of(five)))
    assert "(demo, 2 products), measured apart from this run" in four.caption
    assert not any("difference" in head for table in (four, five) for head in rows_of(table)), "neither is the paper's mean"
    none = paper.paper_tables(frame, params, "mvtec_ad")[4]
    assert "ablation" not in none.caption
    assert rows_of(none)["MTL"][-2] == "not run here"


def test_a_difference_is_taken_from_ablations_on_all_of_the_papers_products() -> None:
    products = [p for p in as_printed().query("table == 2")["product"].unique() if p != "average"]
    frame = frame_of({("cadiff", "a", 0): 0.8})
    ablations = ablations_of("mvtec", products, {"w/o MFA": 0.8}).assign(protocol="legacy")
    table = paper.paper_tables(frame, bare(products={"a": {}}), "demo", ablations)[3]
    assert rows_of(table)["w/o MFA, ablation, difference"][table.columns.index("AP-P") - 1] == "−0.9"  # 80.5 - 81.4
    here, ablation = table.caption.split(" An “ablation” is of ")
    assert here.endswith("“Here” is this run (demo); its data set is not the paper’s here, so no difference of its figures is taken.")
    assert "difference" not in ablation
    some = paper.paper_tables(frame, bare(products={"a": {}}), "demo", ablations_of("mvtec", products[:2], {"w/o MFA": 0.8}))[3]
    assert "w/o MFA, ablation, difference" not in rows_of(some)
    assert "; not all of the paper’s products were run, so no difference of its averages is taken. Each of its seeds" in some.caption


def test_order_of_methods_is_compared_in_words() -> None:
    values = {("cadiff", "a", 0): 0.5, ("perlin", "a", 0): 0.6}
    run = Run(frame_of(values), bare(products={"a": {}}), "demo")
    assert paper.order(run) == "Another order by pixel AP: printed cadiff > perlin; here perlin > cadiff."
    assert paper.order(Run(paired(0.1), run.params, "demo")).startswith("Fewer than two methods")


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
        ({"prompt": {"tokens": "plain"}}, "w in [0.5, 1.5]", None),
        ({"prompt": {"localizing": False, "contrastive": False}}, "w in [0.5, 1.5]", "MTL + SAIM"),
        ({"prompt": {"localizing": False}}, "w in [0.5, 1.5]", None),
    ],
)
def test_counterpart_rows_follow_the_parameters(
    changes: dict, intensity: str | None, ablation: str | None
) -> None:
    params = bare(products={"a": {}}, **changes)
    assert intensity_row(params) == intensity
    assert ablation_row(params) == ablation
    printed = as_printed()
    assert ablation is None or ablation in set(printed.loc[printed["table"] == 5, "method"])
    assert intensity is None or intensity in set(printed.loc[printed["table"] == 4, "method"])
