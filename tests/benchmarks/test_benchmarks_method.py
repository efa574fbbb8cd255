"""benchmarks/{ablations,method}.py on a tiny base: every variant and part runs, trainings are shared, tables are right."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from parameters import BARE, bare, file_text, values_of

from cadiff.errors import UsageError
from cadiff.masks.folder import FOLDER
from cadiff.params import Params, load_params
from cadiff.records import METRIC_SCHEMA
from cadiff.reporting.paper_measured import ablation_row, intensity_row
from cadiff.reporting.paper_printed import printed
from cadiff.storage import read_table, write_image

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "presets" / "ablations.yaml"


@pytest.fixture
def ablations(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("ablations")


@pytest.fixture
def cells(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("cells")


@pytest.fixture
def method(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("method")


@pytest.fixture
def params_file(tiny_base: Path, drawn_root: Path, tmp_path: Path) -> Path:
    """The preset's own variants, everything else as small as it goes."""
    values = {
        **BARE,
        "dataset": {**BARE["dataset"], "root": str(drawn_root), "size": 96},
        "products": {"nut": {}},
        "variants": values_of("ablations")["variants"],
        "base": {**BARE["base"], "path": str(tiny_base), "size": 64, "device": "cpu"},
        "train": {**BARE["train"], "steps": 1, "batch": 2},
        "intensity": {"low": 0.5, "threshold": 0.0},
        "generate": {**BARE["generate"], "per_type": 2, "steps": 1, "batch": 4},
        "detector": {**BARE["detector"], "width": 4, "epochs": 1, "samples_per_epoch": 8},
    }
    del values["methods"]
    values["ship"] = {"methods": ["both"]}
    (tmp_path / "params.yaml").write_text(file_text(values))
    return tmp_path / "params.yaml"


def test_the_presets_variants_are_the_rows_of_tables_4_and_5() -> None:
    params = load_params(PRESET)
    changed = {name: set(overrides) for name, overrides in params.variants.items()}
    rows = {row for name in params.variants for row in (name, intensity_row(params.for_variant(name))) if row}
    wanted = set(printed()[printed()["table"].isin([4, 5])]["method"])
    assert wanted <= rows
    for name, sections in changed.items():
        row = intensity_row if sections == {"intensity"} else ablation_row
        assert row(params.for_variant(name)) == name, "a variant is named as the row whose settings it has"


def test_intensity_variants_share_one_training_and_rows_carry_variant_and_seed(
    ablations: ModuleType, params_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, out = tmp_path / "cells", tmp_path / "ablations.parquet"
    chosen = ("MTL + Reg + SAIM", "w = 0.5", "MTL")
    call = ["ablations.py", "--params", str(params_file), "--seeds", "0", "--variants", *chosen, "--out", str(out), "--work", str(work)]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as ended:
        ablations.main()
    assert ended.value.code == 0
    assert len(list((work / "train").iterdir())) == 2, "the full method and w = 0.5 share one; MTL has its own"
    assert len(list((work / "generate").iterdir())) == 3
    rows = read_table(out, METRIC_SCHEMA).to_pandas()
    assert set(rows["variant"]) == {*chosen, "w in [0.5, 1.5]"}
    full, both = (rows[rows["variant"] == name].drop(columns="variant") for name in ("MTL + Reg + SAIM", "w in [0.5, 1.5]"))
    assert full.reset_index(drop=True).equals(both.reset_index(drop=True)), "the full method is a row of both tables"
    assert {"pixel_ap", "pixel_auroc", "image_auroc"} <= set(rows["metric"])
    shards = {path: path.stat().st_mtime_ns for path in work.rglob("*.parquet")}
    said = capsys.readouterr().out
    assert "| w in [0.5, 1.5] |" in said
    assert "| MTL + Reg + SAIM |" in said
    assert "pixel_ap: " in said
    with pytest.raises(SystemExit):
        ablations.main()
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.parquet")} == shards, "nothing is made twice"


def test_other_masks_are_generated_into_anew_whatever_their_ids(
    cells: ModuleType, params_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = load_params(params_file)
    params = params.model_copy(update={"masks": params.masks.model_copy(update={"source": "folder"})})
    # neither trained nor drawn: the names are what is asked about
    monkeypatch.setattr(cells.Cell, "adapted", tmp_path / "adapted-1")
    monkeypatch.setattr(cells.Cell, "trained", tmp_path / "trained-1")
    monkeypatch.setattr(cells, "generate_shards", lambda *arguments: None)

    def made(corner: int) -> tuple[list[str], Path]:
        mask = np.zeros((64, 64), np.uint8)
        mask[corner : corner + 8, :8] = 255
        for kind in ("chip", "rust", "scratch"):
            write_image(FOLDER / "nut" / kind / "0.png", mask)
        cell = cells.cell_for(params, "nut", 0, tmp_path / "cells")
        return [scene.scene_id for scene in cell.scenes], cell.generated

    (ids, first), (same_ids, other), (_, again) = made(0), made(30), made(0)
    assert ids == same_ids
    assert first != other, "images of the first masks would pass for images of the second"
    assert first == again


def test_a_column_is_named_after_the_network_that_measured_it(ablations: ModuleType) -> None:
    frame = pd.DataFrame({"metric": ["pixel_ap", "is(inception-v3)", "is(inception-v3)/rust", "ic_lpips(lpips-vgg,cap=200)"]})
    named = [ablations.measured_name(frame, metric) for metric in ("pixel_ap", "is", "ic_lpips")]
    assert named == ["pixel_ap", "is(inception-v3)", "ic_lpips(lpips-vgg,cap=200)"]


def test_a_stopped_drawing_is_not_taken_for_the_data_set(cells: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = bare(products={"nut": {}}, dataset={"root": str(tmp_path)}, draw={"normals": 2, "test_good": 0, "anomalies_per_type": 3})
    whole = cells.draw_product

    def stopped(draw: object, product: str, seed: int, out: Path) -> None:
        write_image(out / "train" / "good" / "999.png", np.zeros((8, 8, 3), np.uint8))
        raise KeyboardInterrupt

    monkeypatch.setattr(cells, "draw_product", stopped)
    with pytest.raises(KeyboardInterrupt):
        cells.draw_if_demo(params, ["nut"])
    assert not (tmp_path / "nut").exists()
    monkeypatch.setattr(cells, "draw_product", whole)
    cells.draw_if_demo(params, ["nut"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nut"]
    assert sorted(path.name for path in (tmp_path / "nut" / "train" / "good").iterdir()) == ["000.png", "001.png"]


def test_a_variant_is_the_row_whose_settings_it_has_and_no_other(ablations: ModuleType) -> None:
    params = load_params(PRESET)

    def rows(number: int, **variants: dict) -> dict[str, str]:
        own = Params(**{**params.model_dump(), "variants": variants})
        return ablations.rows_of(own, list(variants), number)

    for number in (4, 5):
        table = printed()[printed()["table"] == number]
        assert set(ablations.rows_of(params, list(params.variants), number)) == set(table["method"])
    short, weak, other = {"train": {"steps": 9}}, {"prompt": {"gamma": 0.5}}, {"intensity": {"threshold": 0.5}}
    assert rows(4, short=short, weak=weak, other=other) == rows(5, short=short, weak=weak, other=other) == {}
    assert rows(4, same={"intensity": {"low": 0.5}}) == {"w in [0.5, 1.5]": "same"}, "a value that is named and not another changes nothing"
    both = {"intensity": {"low": 1.0, "high": 1.0}, "control": {"interaction": "none"}}
    assert rows(4, both=both) == rows(5, both=both) == {}, "it differs in what the other table is about"
    with pytest.raises(UsageError, match=r"'full' and 'printed' both are the row 'MTL \+ Reg \+ SAIM' of Table 5"):
        rows(5, full={}, printed={"control": {"interaction": "literal"}})


def test_the_written_table_names_rows_by_their_settings(ablations: ModuleType) -> None:
    preset = load_params(PRESET)

    def names(base: dict, **variants: dict) -> dict[str, list[str]]:
        params = Params(**{**preset.model_dump(), **base, "variants": variants})
        return ablations.written_names(params, list(variants))

    assert names({}, everything={}, one={"intensity": {"low": 1.0, "high": 1.0}}, MTL={"train": {"steps": 9}}) == {
        "everything": ["w in [0.5, 1.5]", "MTL + Reg + SAIM"], "one": ["w = 1"], "MTL": ["own: MTL"],
    }  # fmt: skip
    found = ablations.written_names(preset, list(preset.variants))
    assert sorted(row for rows in found.values() for row in rows) == sorted(printed().query("table >= 4")["method"].unique())
    # What a variant does not change is the parameters' own, which need not be the paper's full method.
    assert names({"intensity": {"low": 1.0, "high": 1.0}}, everything={}) == {"everything": ["w = 1", "MTL + Reg + SAIM"]}
    bare = {"prompt": {"localizing": False, "contrastive": False}}
    assert names(bare, everything={}, one={"intensity": {"low": 1.0, "high": 1.0}}) == {
        "everything": ["w in [0.5, 1.5]", "MTL + SAIM"], "one": ["w = 1"],
    }  # fmt: skip
    assert names({"intensity": {"low": 0.7}}, everything={}) == {"everything": ["MTL + Reg + SAIM"]}, "no row of Table 4"


def test_a_filter_is_refused(ablations: ModuleType, params_file: Path, tmp_path: Path) -> None:
    values = load_params(params_file).model_dump()
    filtered = {"filter": {"min_normal_distance": 1}, "detector": {"protocol": "filtered"}}
    params = Params(**{**values, "variants": {"MTL": {}, "odd": filtered}})
    with pytest.raises(UsageError, match="filter: odd, nut: the ablations train on every image"):
        ablations.measure(params, ["nut"], [0], ["MTL", "odd"], tmp_path)


def test_pairs_in_the_papers_order(ablations: ModuleType) -> None:
    assert ablations.agreement({"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 30, "c": 20}) == (2, 3)
    assert ablations.agreement({"a": 1, "b": 1}, {"a": 10, "b": 30}) == (0, 1), "no order of our own agrees with none"
    assert ablations.agreement({"a": 1, "b": 2}, {"a": 5, "b": 5}) == (0, 0)


def test_tables_give_the_mean_over_products_and_the_spread_over_seeds(ablations: ModuleType) -> None:
    values = {(0, "a"): 0.2, (0, "b"): 0.4, (1, "a"): 0.5, (1, "b"): 0.7}
    frame = pd.DataFrame(
        [{"variant": "MTL", "metric": "pixel_ap", "seed": seed, "product": p, "value": v} for (seed, p), v in values.items()]
    )
    mean, spread = ablations._mean(frame, "MTL", "pixel_ap")
    assert (mean, spread) == (pytest.approx(0.45), pytest.approx(np.std([0.3, 0.6], ddof=1)))


def test_what_is_measured_outside_of_masks_is_free_to_move(
    method: ModuleType, cells: ModuleType, params_file: Path, tmp_path: Path
) -> None:
    """Whatever the parameters say: no request has a background, and all start from noise."""
    values = load_params(params_file).model_dump()
    params = Params(**{**values, "generate": {**values["generate"], "start": "background", "strength": 0.5}})
    assert params.generate.background == "real"
    cell = cells.cell_for(params, "nut", 0, tmp_path / "cells")
    requests, masks = method.requests_of(cell, 1)
    assert all(request.background is None and request.start is None for request in requests)
    assert [request.types for request in requests] == [("chip",), ("rust",), ("scratch",)]
    assert masks.shape == (3, 64, 64)
    assert masks.any((1, 2)).all()
    settings = params.generate.model_copy(update={"steps": 4, **method.NO_START})
    weak = settings.model_copy(update={"start": "background", "strength": 0.5})
    cell = dataclasses.replace(cell, params=cell.params.model_copy(update={"generate": weak}))
    whole = method.to_uint8(method.sample(cell.generator, requests, settings, cell.params.intensity).drawn)
    assert np.array_equal(method.drawn(cell, requests), whole), "a share of the steps would leave noise"


def test_what_was_measured_is_not_measured_again_and_parts_are_told_as_they_end(
    method: ModuleType, params_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(method, "SETTINGS", {part: {"one": {}, "other": {"intensity": {"low": 0.6}}} for part in ("control", "tokens")})
    asked: list[tuple[int, str]] = []

    def counted(cell: object, setting: str, count: int) -> dict[str, float]:
        if stops and (cell.params.seed, setting) == (1, "other"):
            raise KeyboardInterrupt
        asked.append((cell.params.seed, setting))
        return {"z": count + len(asked), "a": float("nan")}

    out, parts = tmp_path / "out.parquet", dict.fromkeys(("control", "tokens"), counted)
    monkeypatch.setattr(method, "PARTS", parts)

    def call(count: str = "2") -> None:
        own = ["--params", str(params_file), "--seeds", "0", "1", "--count", count, "--work", str(tmp_path / "cells")]
        method.run_parts("", parts, method.measure, str(out), own)

    stops = True
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        call()
    assert asked == [(0, "one"), (0, "other"), (1, "one")]
    left = read_table(out, METRIC_SCHEMA).to_pandas()
    assert list(left["metric"]) == ["z", "a"] * 3, "in the order in which they were measured"
    stops = False
    with pytest.raises(SystemExit) as ended:
        call()
    assert ended.value.code == 0
    assert asked[3:] == [(1, "other"), *itertools.product((0, 1), ("one", "other"))], "only what was not measured"
    whole = read_table(out, METRIC_SCHEMA).to_pandas()
    assert whole[:6].equals(left)
    said = capsys.readouterr().out
    assert said.index("| control | z | a |") < said.index("seed 0 nut tokens: one"), "a part's table does not wait for the next part"
    with pytest.raises(SystemExit):
        call("3")
    assert len(asked) == 16, "another number of images is another figure"


def test_a_part_that_has_no_figures_is_no_error(method: ModuleType, params_file: Path, tmp_path: Path) -> None:
    """As healing, which only the demo's products have."""
    with pytest.raises(SystemExit) as ended:
        method.run_parts("", ["healing"], lambda *_: iter([[]]), str(tmp_path / "out.parquet"), ["--params", str(params_file)])
    assert ended.value.code == 0


@pytest.mark.slow
def test_every_part_of_the_method_is_measured(
    method: ModuleType, params_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method, "SETTINGS", {part: dict(list(s.items())[:2]) for part, s in method.SETTINGS.items()})
    params, work = load_params(params_file), tmp_path / "cells"
    rows = [row for part in method.PARTS for own in method.measure(params, part, ["nut"], [0], 1, work) for row in own]
    found = {row.variant for row in rows}
    assert found == {f"{part}: {setting}" for part, settings in method.SETTINGS.items() for setting in settings}
    by_name = {(row.variant, row.metric): row.value for row in rows}
    assert 0 <= by_name["control: SAIM", "inside_share"] <= 1
    assert by_name["intensity: full", "contrast@1.5"] > 0
    assert 0 <= by_name["tokens: both regularisers", "attention_auroc"] <= 1
    assert by_name["healing: healing, w = -1", "left"] > 0
    assert by_name["healing: healing, w = -1", "after"] != by_name["healing: w = -1 without healing", "after"]
    frame = pd.DataFrame([vars(row) for row in rows])
    assert len(method.table(frame, "tokens")) == 2 + 2


def test_a_twin_differs_where_the_defect_is_and_nowhere_else(method: ModuleType) -> None:
    bad, good, mask = method.twins("nut", "rust", 0, 64)
    difference = np.abs(bad.astype(int) - good).max(-1)
    assert mask.any()
    assert np.median(difference[mask]) > 10
    assert np.mean(difference[~mask] > 10) < 0.01


def test_variants_are_checked_as_products_are() -> None:
    with pytest.raises(ValueError, match=r"variants\.odd\.paint: not a section"):
        bare(products={"a": {}}, variants={"odd": {"paint": {}}})
    with pytest.raises(ValueError, match=r"variants\.odd\.train: steps: Input should be greater"):
        bare(products={"a": {}}, variants={"odd": {"train": {"steps": 0}}})
    params = bare(products={"a": {"train": {"steps": 7, "batch": 3}}}, variants={"short": {"train": {"steps": 2}}})
    own = params.for_variant("short").for_product("a").train
    assert (own.steps, own.batch) == (2, 3), "the variant goes over the product's own value, and leaves the rest"
    with pytest.raises(UsageError, match=r"variants\.long: not in the parameters; variants are short"):
        params.for_variant("long")


WEAK = {"generate": {"start": "background", "strength": 0.8}}
# Without a picture there is nothing to set a window into.
WHOLE = {"generate": {"background": "generated", "redraw": False}, "window": {"cut": "whole"}}
FILTERED = {"filter": {"min_normal_distance": 1}, "detector": {"protocol": "filtered"}}


@pytest.mark.parametrize(
    ("own", "variant", "message"),
    [
        (WEAK, WHOLE, r"products\.a\.generate: start: expected noise with background: generated"),
        (FILTERED, {"detector": {"protocol": "legacy"}}, r"products\.a: recipe\.filter\.min_normal_distance: the legacy protocol leaves"),
    ],
)
def test_a_variant_that_does_not_go_with_a_product_is_named_when_parameters_are_read(
    own: dict, variant: dict, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(file_text({"generate": {"start": "noise"}, "products": {"b": {}, "a": own}, "variants": {"odd": variant}}))
    with pytest.raises(UsageError, match=rf"params\.yaml: variants\.odd over {message}"):
        load_params(path)


def test_a_variant_need_not_go_with_another() -> None:
    params = bare(products={"a": {}}, variants={"whole": WHOLE, "weak": WEAK})
    found = [params.for_variant(name).for_product("a").generate for name in params.variants]
    assert [(own.background, own.taken) for own in found] == [("generated", 1), ("real", 0.8)]


def test_other_variants_that_do_not_fit_are_one_clear_line() -> None:
    params = bare(products={"a": WEAK}, cluster="local:2")
    with pytest.raises(UsageError, match=r"^variants\.odd over products\.a\.generate: start: expected noise with background: generated"):
        params.with_variants({"odd": WHOLE})
    fitting = params.with_variants({"even": {"generate": {"steps": 3}}})
    assert (list(fitting.variants), fitting.cluster) == (["even"], "local:2")


def test_the_schedule_of_sd15_lets_latents_leave_the_unit_range(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """As the pipeline reads it: DDPM's class from the base's folder, DDIM's from that."""
    script("sd15").schedule().save_pretrained(tmp_path)
    ddim = DDIMScheduler.from_config(DDPMScheduler.from_pretrained(tmp_path).config)
    ddim.set_timesteps(2)
    latents, noise = torch.full((1, 4, 2, 2), 3.0), torch.zeros(1, 4, 2, 2)
    t = ddim.timesteps[-1]
    there = ddim.step(noise, t, latents, return_dict=False)[0]
    scale = ddim.alphas_cumprod[0].sqrt() if not ddim.config.set_alpha_to_one else 1
    assert torch.allclose(there, latents / ddim.alphas_cumprod[t].sqrt() * scale)
    assert ddim.config.prediction_type == "epsilon"
