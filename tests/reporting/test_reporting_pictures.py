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
from reporting_artefacts import make_params
from skimage.draw import polygon2mask

from cadiff.records import (
    GENERATED_SCHEMA,
    QUALITY_SCHEMA,
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
from cadiff.reporting.gallery import data_uri, heat, outline, spread_out
from cadiff.reporting.maps import map_rows
from cadiff.reporting.signals import quality_table, signals_of, spoken
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


def test_small_images_are_inlined_exactly_and_large_ones_as_thumbnails() -> None:
    rng = np.random.default_rng(0)
    for side, shown in ((64, 64), (512, 128)):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        png = base64.b64decode(data_uri(pixels).removeprefix("data:image/png;base64,"))
        decoded = decode_image(png, "RGB")
        assert decoded.shape == (shown, shown, 3)
        if side == shown:
            np.testing.assert_array_equal(decoded, pixels)


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
    methods = ["cadiff", "exemplars", "both", "perlin"]
    assert [[shown.method for shown in row.maps] for row in rows] == [methods] * 4
    aps = [row.maps[0].ap for row in rows[:3]]
    assert aps == sorted(aps, reverse=True)
    assert rows[3].maps[0].ap is None
    assert rows[3].picture.anomaly_type == "good"


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
    assert rows["perlin"][3] == "–", "no background is known"


def test_a_share_off_the_masks_is_told_where_the_background_is_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "data/made/reported/quality/cadiff/fabric.parquet"
    row = QualityRow("a", "fabric", "cadiff", "hole", "generated", 1.0, "x", 0.9, 2.0)
    rows = [row, row, row, dataclasses.replace(row, mask_agreement=0.4)]
    write_table(path, to_table(rows, QUALITY_SCHEMA))
    artefacts = Artefacts(make_params(products={"fabric": {}}), tmp_path)
    table = quality_table(artefacts, ["cadiff"])
    assert table.rows[0].cells[4].text == "1 (25\u202f%)"
    assert "1 changed more beside their mask than inside it" in spoken(artefacts)
    why = "is the autoencoder’s error"
    assert why in table.caption
    assert why not in quality_table(artefacts, []).caption, "it says something of cadiff's images"
    whole = make_params(products={"fabric": {"generate": {"background": "generated"}}})
    assert why not in quality_table(Artefacts(whole, tmp_path), ["cadiff"]).caption
