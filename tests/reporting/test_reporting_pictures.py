"""Outlines, choices of pictures, anomaly maps and charts."""

from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from reporting_artefacts import SHAPES, make_params, shape_of
from skimage.draw import polygon2mask
from sklearn.metrics import average_precision_score

from cadiff.records import (
    GENERATED_SCHEMA,
    QUALITY_SCHEMA,
    SAMPLE_SCHEMA,
    AttentionRow,
    GeneratedRow,
    QualityRow,
    ShowcaseRow,
    VectorRow,
    from_table,
    to_table,
)
from cadiff.reporting import figures, model_figures
from cadiff.reporting.artefacts import Artefacts
from cadiff.reporting.gallery import _group_size, data_uri, heat, outline, picture, real_picture, shown_shape, spread_out
from cadiff.reporting.maps import map_rows
from cadiff.reporting.signals import quality_table, second_look_table, signals_of, source_table, spoken
from cadiff.storage import decode_image, read_table, write_table


def corners(path: str) -> np.ndarray:
    return np.array([[float(n) for n in point.split()] for point in re.split("[MLZ]", path) if point])


@pytest.mark.parametrize("place", [(slice(20, 30), slice(10, 40)), (slice(0, 8), slice(50, 64))])
def test_outline_encloses_exactly_the_mask(place: tuple[slice, slice]) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[place] = 255
    xy = corners(outline(mask))
    assert xy.min() >= 0
    assert xy.max() <= 64
    # Pixel centres inside the polygon are the mask again; +0.5 because polygon2mask samples at integers.
    assert (polygon2mask((64, 64), xy[:, ::-1] - 0.5) == (mask > 0)).mean() > 0.995


def test_outline_apart_leaves_the_masks_own_pixels_free() -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[5, 4:9] = 255
    xy = corners(outline(mask, 1))
    assert (xy.min(0).tolist(), xy.max(0).tolist()) == ([3, 4], [10, 7])


def test_outline_of_nothing_is_empty() -> None:
    assert outline(np.zeros((16, 16), np.uint8)) == ""


@pytest.mark.parametrize(("shape", "shown"), [
    ((128, 100), (128, 100)), ((64, 64), (64, 64)), ((256, 256), (256, 256)), ((512, 512), (256, 256)), ((256, 300), (256, 300)),
    ((400, 1000), (205, 512)), ((2560, 1280), (512, 256)), ((200, 1600), (64, 512)),
])  # fmt: skip
def test_small_images_are_inlined_exactly_and_large_ones_with_their_aspect(shape: tuple[int, int], shown: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([255 * y // shape[0], 255 * x // shape[1], 0 * y + 90], axis=-1).astype(np.uint8)
    head, data = data_uri(pixels).split(",")
    decoded = decode_image(base64.b64decode(data), "RGB")
    assert decoded.shape == (*shown, 3)
    assert shown_shape(*shape) == shown
    if max(shape) <= 128:
        assert head == "data:image/png;base64"
        np.testing.assert_array_equal(decoded, pixels)
    else:
        assert head == "data:image/jpeg;base64"
        v, u = np.mgrid[: shown[0], : shown[1]]
        expected = np.stack([255 * v / shown[0], 255 * u / shown[1], 0 * v + 90], axis=-1)
        assert np.abs(decoded - expected).mean() < 4, "the same ramps, at the size that is shown"


def test_a_seam_at_the_canvas_is_there_in_what_the_page_shows() -> None:
    """A line of one pixel, 12 grey levels brighter, at 256 px: what a thumbnail of half the side and 64 colours would hide."""
    pixels = np.full((256, 256, 3), 120, np.uint8)
    pixels[:, 100] += 12
    decoded = decode_image(base64.b64decode(data_uri(pixels).split(",")[1]), "RGB").astype(int)
    assert (decoded[:, 100] - decoded[:, 90]).mean() > 6


def test_a_large_mask_is_outlined_at_the_size_that_is_shown() -> None:
    mask = np.zeros((1024, 2048), np.uint8)
    mask[400:600, 200:1200] = 255
    drawn = picture(np.zeros((1024, 2048, 3), np.uint8), mask, {}, alt="", caption="", source="x", product="p", kind="k")
    assert (drawn.width, drawn.height) == (512, 256)
    xy = corners(drawn.outline)
    assert xy.min(0).tolist() == pytest.approx([50 - 8, 100 - 8], abs=1), "scaled to a quarter, and 512 / 64 px outside of the mask"
    assert xy.max(0).tolist() == pytest.approx([300 + 8, 150 + 8], abs=1)
    assert drawn.area == pytest.approx(200 * 1000 / (1024 * 2048))
    assert drawn.row["canvas"] == "2048 x 1024 px"


def test_groups_shrink_to_the_budget_but_not_below_four(artefacts_root: Path) -> None:
    small = make_params(dataset={"size": 64}, base={"size": 64})
    assert _group_size(Artefacts(make_params(), artefacts_root)) == 24
    assert _group_size(Artefacts(small, artefacts_root)) >= 4
    many = make_params(dataset={"size": 1024}, external={"images": [f"m{k}" for k in range(40)]},
                       methods=["cadiff", *(f"m{k}" for k in range(40))])  # fmt: skip
    assert _group_size(Artefacts(many, artefacts_root)) == 4


def test_real_pictures_keep_their_aspect(artefacts_root: Path) -> None:
    artefacts = Artefacts(make_params(), artefacts_root)
    shapes = set()
    for row in artefacts.exemplars("metal_plate") + artefacts.exemplars("fabric"):
        shown = real_picture(artefacts, row)
        assert shown is not None
        assert (shown.height, shown.width) == shape_of(row.sample_id)
        shapes.add((shown.height, shown.width))
    assert shapes == set(SHAPES)


def test_choice_spans_the_intensities(artefacts_root: Path) -> None:
    path = artefacts_root / "data/made/generated/cadiff/fabric/hole.parquet"
    rows = from_table(read_table(path, GENERATED_SCHEMA), GeneratedRow)
    chosen = [row.intensity for row in spread_out(rows, 5)]
    every = sorted(row.intensity for row in rows)
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1], len(chosen)) == (every[0], every[-1], 5)
    without = [dataclasses.replace(row, intensity=None) for row in rows]
    assert [row.sample_id for row in spread_out(without[::-1], 99)] == [row.sample_id for row in rows]


def test_maps_are_ranked_and_show_every_method(artefacts_root: Path) -> None:
    rows = map_rows(Artefacts(make_params(), artefacts_root), "metal_plate")
    assert [row.title for row in rows] == ["best", "median", "worst", "most suspected good image"]
    assert rows[-1].picture.row["sample_id"] == "metal_plate/good/test_good-00", "a calibration picture that scores as high is none"
    methods = ["cadiff", "exemplars", "both", "perlin"]
    assert [[shown.method for shown in row.maps] for row in rows] == [methods] * 4
    aps = [row.maps[0].ap for row in rows[:3]]
    assert aps == sorted(aps, reverse=True)
    assert rows[3].maps[0].ap is None
    assert rows[3].picture.anomaly_type == "good"


def test_the_mask_is_brought_to_the_shape_of_the_map(artefacts_root: Path) -> None:
    """By hand for the best one: every second pixel of the map was kept, so a mask's share of 2 x 2 px decides."""
    artefacts = Artefacts(make_params(), artefacts_root)
    best = map_rows(artefacts, "metal_plate")[0]
    sample = next(row for row in artefacts.samples("metal_plate") if row.sample_id == best.picture.row["sample_id"])
    scored = next(row for row in artefacts.scored("cadiff", "metal_plate") if row.sample_id == sample.sample_id)
    pixels = decode_image(scored.anomaly_map["bytes"], "L")
    mask = decode_image((artefacts_root / str(sample.mask_path)).read_bytes(), "L") > 0
    height, width = mask.shape
    assert pixels.shape == (height // 2, width // 2)
    quarter = mask.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) >= 0.25
    assert best.maps[0].ap == pytest.approx(average_precision_score(quarter.ravel(), pixels.ravel()))


def test_heat_runs_from_dark_to_bright() -> None:
    colours = heat(np.array([[0, 128, 255]], np.uint8)).astype(int).sum(axis=-1)[0]
    assert colours[0] < colours[1] < colours[2]


def test_svg_takes_the_pages_colours_and_names_no_host() -> None:
    texts = []
    for _ in range(2):
        figure = Figure()
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=figures.SERIES[0])
        axes.set_title("a < b & $x$", color=figures.INK)
        texts.append(str(figures.svg(figure, "one", 'said "so"')))
    text = texts[0]
    assert texts[0] == texts[1]
    assert "http" not in text
    assert "var(--s0)" in text
    assert "currentColor" in text
    assert "a &lt; b &amp; $x$" in text
    assert 'aria-label="said &#34;so&#34;"' in text
    identifiers = re.findall(r' id="([^"]*)"', text)
    assert all(name.startswith("one-") for name in identifiers)
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', text)) <= set(identifiers)


def test_curves_have_one_label_per_method_and_none_when_empty() -> None:
    values = [1 / (i + 1) for i in range(500)]
    table = pa.table({"step": list(range(500)), "name": ["loss"] * 500, "value": values})
    text = str(figures.curves({"cadiff": [table, table], "perlin": [table]}, "c", "fabric"))
    assert text.count(">cadiff<") == 1
    assert "var(--s1)" in text
    assert figures.curves({"": [table.slice(0, 0)]}, "c", "fabric") is None


def test_thinned_curve_keeps_its_mean() -> None:
    count = 4 * figures.POINTS
    values = np.random.default_rng(0).uniform(size=count)
    table = pa.table({"step": list(range(count)), "name": ["loss"] * count, "value": values})
    steps, thinned = figures._thinned(table, "loss")
    assert len(steps) == figures.POINTS
    assert steps[0] == 1.5
    assert thinned.mean() == pytest.approx(values.mean())


def step(w: float, inside: float | None, outside: float | None = 0.001) -> ShowcaseRow:
    empty = {"bytes": b"", "path": ""}
    return ShowcaseRow("ladder", "rust", f"w = {w:g}", "nut", ["rust"], [w], empty, empty, None, 0, 3, inside, outside)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([0, 0.02, 0.05], "rises with every step of w, up to 5.0\u202f%"),
        ([0, 0.05, 0.02], "does not rise with every step of w"),
        ([0, 0.001, 0.002], "w does not act: the change inside the mask stays below 1\u202f% of the full range (0.20\u202f%)"),
    ],
)
def test_ladder_is_judged_by_what_it_shows(changes: list[float], said: str) -> None:
    steps = [step(w, change) for w, change in zip((0, 1, 2), changes, strict=True)]
    assert said in model_figures.ladder_finding([step(-1, 0.9), *steps]), "what lies below w = 0 is no part of the rise"


def test_attention_finding_names_the_step() -> None:
    rows = [AttentionRow("nut", "rust", "both", k, 1, [1.0], 0.5, k >= 3) for k in range(5)]
    assert model_figures.attention_finding(step(2, 0.1), rows).startswith("Re-weighting began at step 3 of 5. Change from w = 1: 10.0")
    never = [dataclasses.replace(row, acting=False) for row in rows]
    assert model_figures.attention_finding(step(2, 0.1), never).startswith("Re-weighting never began")


def test_tokens_that_stand_apart_are_told_from_those_that_do_not() -> None:
    rng = np.random.default_rng(0)

    def rows(spread: float) -> list[VectorRow]:
        centres = np.eye(8)
        return [VectorRow("nut", f"c{c}", f"p{k}", (centres[c] + rng.normal(0, spread, 8)).tolist()) for c in range(3) for k in range(6)]

    chart, said = model_figures.token_map(rows(0.02))
    assert chart is not None
    assert "3 tokens in 18 prompts" in said
    apart, mixed = (float(re.search(r"distance (-?[\d.]+)", text)[1]) for text in (said, model_figures.token_map(rows(3.0))[1]))  # type: ignore[index]
    assert apart > 0.9
    assert mixed < 0.3
    assert model_figures.token_map([]) == (None, "")


def test_signals_speak_below_their_limits_only() -> None:
    row = QualityRow("a", "nut", "cadiff", "rust", "generated", 0.49, "x", 0.51, None)
    assert signals_of(row) == ("likely copy",)
    assert signals_of(dataclasses.replace(row, exemplar_distance=0.5, mask_agreement=0.4, normal_distance=0.9)) == (
        "off its mask", "not visible",
    )  # fmt: skip
    assert signals_of(None) == ()


def test_quality_table_counts_every_image(artefacts_root: Path) -> None:
    table = quality_table(Artefacts(make_params(), artefacts_root), ["cadiff", "exemplars", "perlin"])
    rows = {row.heads[0]: [cell.text for cell in row.cells] for row in table.rows}
    assert list(rows) == ["real exemplars", "cadiff", "exemplars", "perlin"]
    assert rows["cadiff"][0] == "120"
    assert rows["cadiff"][2] == "24 (20\u202f%)"  # 6 of every 30
    assert rows["cadiff"][6] == "20 (17\u202f%)"  # 5 of every 30
    assert rows["perlin"][3] == "–", "no normal is known"
    assert "(normal_id; images without one do not count)" in table.caption


def test_a_share_off_the_masks_is_told_where_the_background_is_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "data/made/reported/quality/cadiff/fabric.parquet"
    row = QualityRow("a", "fabric", "cadiff", "hole", "generated", 1.0, "x", 0.9, 2.0)
    rows = [row, row, row, dataclasses.replace(row, mask_agreement=0.4)]
    write_table(path, to_table(rows, QUALITY_SCHEMA))
    latents = {"generate": {"blend": None}, "window": {"cut": "whole"}}
    artefacts = Artefacts(make_params(products={"fabric": latents}), tmp_path)
    table = quality_table(artefacts, ["cadiff"])
    assert table.rows[0].cells[4].text == "1 (25\u202f%)"
    assert "1 changed more beside their mask than inside it" in spoken(artefacts)
    why = "is the autoencoder’s error"
    assert why in table.caption
    assert why not in quality_table(artefacts, []).caption, "it says something of cadiff's images"
    whole = {"generate": {"background": "generated"}, "window": {"cut": "whole"}}
    for own in (whole, {}):  # nothing is kept; what is kept is kept to the byte
        assert why not in quality_table(Artefacts(make_params(products={"fabric": own}), tmp_path), ["cadiff"]).caption


def test_where_the_masks_lie_is_counted_by_type(artefacts_root: Path) -> None:
    table = source_table(Artefacts(make_params(), artefacts_root))
    assert table.columns[3:] == ["exemplars, anywhere", "exemplars, by context"]
    assert [(row.heads, [cell.text for cell in row.cells]) for row in table.rows] == [
        (["cadiff", product, kind], ["10", "20"])
        for product, kind in (("fabric", "hole"), ("fabric", "stain"), ("metal_plate", "bent"), ("metal_plate", "scratch"))
    ]
    assert source_table(Artefacts(make_params(methods=["exemplars", "perlin"]), artefacts_root)).rows == []


def test_images_that_lack_what_was_asked_for_are_counted_by_type(artefacts_root: Path, tmp_path: Path) -> None:
    """Of a generated background they lie off the product; where nothing was looked for there is no row."""
    whole = {"generate": {"background": "generated"}, "window": {"cut": "whole"}}
    params = make_params(products={"fabric": whole, "metal_plate": {}}, methods=["cadiff", "exemplars"])
    name = "data/made/generated/cadiff/{}.parquet"
    for shard, attempts in (("fabric/hole", [4, 1, 4, 3]), ("fabric/stain", [1]), ("metal_plate/bent", [4]), ("metal_plate/scratch", [])):
        table = read_table(artefacts_root / name.format(shard), GENERATED_SCHEMA)
        found = pa.array((attempts * table.num_rows)[: table.num_rows] or [None] * table.num_rows, pa.int32())
        place = table.schema.get_field_index("attempts")
        write_table(tmp_path / name.format(shard), table.set_column(place, GENERATED_SCHEMA.field("attempts"), found))
    for product in params.products:
        path = Path(f"data/made/samples/{product}.parquet")
        write_table(tmp_path / path, read_table(artefacts_root / path, SAMPLE_SCHEMA))
    table = second_look_table(Artefacts(params, tmp_path))
    assert table.columns[3:] == ["Off the product", "Not seen, or mask not filled"]
    assert [(row.heads[1:], [cell.text for cell in row.cells]) for row in table.rows] == [
        (["fabric", "hole"], ["15 of 30", "–"]), (["fabric", "stain"], ["0 of 30", "–"]), (["metal_plate", "bent"], ["–", "30 of 30"]),
    ]  # fmt: skip
    assert second_look_table(Artefacts(params, artefacts_root)).rows == [], "older images do not say"


def test_attention_of_a_window_is_not_outlined_by_the_pictures_mask(artefacts_root: Path) -> None:
    artefacts = Artefacts(make_params(), artefacts_root)
    shown, rows = artefacts.showcase("fabric"), artefacts.attention("fabric")
    for whole in (True, False):
        cells = [cell for strips in model_figures.attention_strips(shown, rows, whole).values() for strip in strips for cell in strip.cells]
        assert all(bool(cell.outline) == whole for cell in cells)
        assert {(cell.width, cell.height) == (8, 8) for cell in cells} == {not whole}
