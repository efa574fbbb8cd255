"""dvc.yaml against the stages: the same parameter keys, and all code that a stage imports."""

from pathlib import Path

import grimp
import pytest
import yaml
from dvc.repo import Repo

from cadiff.errors import UsageError
from cadiff.params import RESULT_KEYS, SECTIONS, Params, load_params
from cadiff.stages import STAGES, pick

ROOT = Path(__file__).resolve().parents[2]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
# What all stages share: contracts, files and messages.
NAMES = (
    "errors", "names", "seeds", "storage", "records", "params", "progress", "checkpoint", "cluster", "devices", "visible", "_torchvision",
    "opening", "decoding", "marking",
)
FOUNDATION = {"cadiff", *(f"cadiff.{name}" for name in NAMES)}


def stage_of(name: str) -> str:
    return name.split("-")[0]


def values_of(preset: Path) -> dict:
    return yaml.safe_load(preset.read_text())


@pytest.mark.parametrize("name", GRAPH)
def test_dvc_names_the_keys_and_the_code_that_the_stage_declares(name: str) -> None:
    stage, listed = STAGES[stage_of(name)], GRAPH[name]
    keys = [key for key in listed["params"] if not key.startswith("products.")]
    assert sorted(keys) == sorted(stage.keys)
    code = [dep.removeprefix("cadiff/") for dep in listed["deps"] if dep.startswith("cadiff/")]
    assert sorted(code) == sorted(stage.code)
    per_product = "products.${item.product}" in listed["params"]
    assert per_product == (name not in ("draw", "samples", "report")), "these have no overrides of their own"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_all_code_that_it_imports(name: str) -> None:
    """Its first part is its door; what that imports, directly or not, must be a declared part or in one."""
    graph = grimp.build_graph("cadiff")
    declared = {"cadiff." + part.removesuffix(".py").replace("/", ".") for part in STAGES[name].code}
    door = "cadiff." + STAGES[name].code[0].removesuffix(".py").replace("/", ".")
    modules = {door, *graph.find_descendants(door)}
    upstream = {up for module in modules for up in graph.find_upstream_modules(module)}
    rest = {up for up in upstream if not any(f"{up}.".startswith(f"{part}.") for part in declared)}
    assert rest <= FOUNDATION


def test_no_stage_writes_where_someones_images_may_be() -> None:
    """DVC removes what lies at an out before the stage runs, so no parameter may say where an out is."""
    outs = [out for stage in GRAPH.values() for out in [*stage["outs"], *stage.get("metrics", [])]]
    assert len(outs) > len(GRAPH)
    for out in outs:
        assert out.startswith(("data/made/", "reports/"))
        assert "${" not in out.replace("${item.product}", "").replace("${item.method}", "")


def test_params_are_the_demo() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets" / "demo.yaml").read_bytes()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_valid_and_hold_every_key_that_dvc_tracks(preset: Path) -> None:
    load_params(preset)
    for listed in GRAPH.values():
        for key in listed["params"]:
            value = values_of(preset)
            for part in key.split("."):
                if part != "${item":
                    assert part in value, f"{preset.name} lacks {key}"
                    value = value[part]
                else:
                    break


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_leave_no_setting_to_a_default(preset: Path) -> None:
    """A key that is not there has the code's default, which nobody reads in the preset."""
    values, whole = values_of(preset), values_of(ROOT / "params.yaml")
    for section in SECTIONS:
        assert set(values[section]) == set(whole[section]), f"{preset.name}: {section}"


@pytest.mark.parametrize(("background", "strength", "fits"), [("real", 0.5, True), ("generated", 1.0, True), ("generated", 0.5, False)])
def test_an_image_starts_from_its_background_only_where_it_has_one(background: str, strength: float, fits: bool, tmp_path: Path) -> None:
    values = values_of(ROOT / "params.yaml")
    values["generate"] |= {"background": background, "strength": strength, "start": "background", "redraw": False}
    values["window"]["cut"] = "whole" if background == "generated" else "around"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    if fits:
        assert load_params(tmp_path / "params.yaml").generate.strength == strength
        return
    with pytest.raises(UsageError, match=r"generate: strength: expected 1 with background: generated, .* found 0\.5; set strength: 1 or"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("masks", "generate", "problem"),
    [
        ({}, {"background": "generated", "strength": 1.0, "start": "background", "redraw": False}, "background: generated, which keeps no"),
        ({"source": "folder"}, {}, "placement: expected auto with source: folder, whose masks have no exemplar, found in_place"),
    ],
)
def test_a_mask_stays_in_place_only_where_there_is_a_picture_to_stay_in(
    masks: dict, generate: dict, problem: str, tmp_path: Path
) -> None:
    """In all products and in one product's own section."""
    values, path = values_of(ROOT / "params.yaml"), tmp_path / "params.yaml"
    values["generate"] |= generate
    values["window"]["cut"] = "whole"
    for own, common in (({}, {"placement": "in_place", **masks}), ({"masks": {"placement": "in_place", **masks}}, {})):
        changed = {**values, "masks": {**values["masks"], **common}, "products": {"nut": own}}
        path.write_text(yaml.safe_dump(changed))
        with pytest.raises(UsageError, match=problem):
            load_params(path)


def test_an_exemplar_is_no_start_for_what_starts_from_noise(tmp_path: Path) -> None:
    values = values_of(ROOT / "params.yaml")
    values["generate"] |= {"start": "exemplar", "strength": 1.0}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError, match="generate: start: exemplar needs a strength below 1, found 1"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_dvc_resolves_every_preset(preset: Path, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    (tmp_path / "params.yaml").write_text(preset.read_text())
    params = load_params(preset)
    with Repo(str(tmp_path)) as repo:
        names = {stage.name for stage in repo.index.graph}
        graph = repo.index.graph
        report = next(stage for stage in graph if stage.name == "report")
        needed = {stage.name for stage in graph.successors(report)}
    detectors = {name for name in needed if name.startswith(("detect", "peer", "maps"))}
    wanted = {f"{product}-{method}" for product in params.products for method in params.methods}
    assert {name.partition("@")[2] for name in detectors} == wanted, "a detector for each product and method"
    shipped = {f"ship@{product}-{method}" for product in params.products for method in params.ship.methods}
    assert {name for name in needed if name.startswith("ship")} == shipped, "the report waits for what it shows, if there is any"
    assert ("draw@" + next(iter(params.products)) in names) == bool(params.draw.products)


def test_pick_reads_dotted_keys() -> None:
    assert pick(load_params(ROOT / "presets" / "demo.yaml"), "base.size") == 64


def test_where_parts_are_computed_makes_no_result_out_of_date() -> None:
    params = load_params(ROOT / "presets" / "demo.yaml")
    elsewhere = params.model_copy(update={"cluster": "local:2"})
    assert elsewhere.for_product("nut").cluster == "local:2"
    assert elsewhere.digest_of(*RESULT_KEYS) == params.digest_of(*RESULT_KEYS)
    assert "cluster" not in elsewhere.model_dump_json()
    assert not any("cluster" in key for listed in GRAPH.values() for key in listed["params"])
    with pytest.raises(ValueError, match=r"expected null, local:N .* found 'local:0'"):
        Params(products={"nut": {}}, cluster="local:0")


def test_masks_of_a_folder_are_laid_on_no_part(tmp_path: Path) -> None:
    values = values_of(ROOT / "params.yaml")
    values["masks"] |= {"placement": "on_part", "source": "folder"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError, match=r"masks: placement: expected auto with source: folder, .* found on_part"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dataset": {"size": 32}}, r"dataset.size: expected at least base.size \(64\), which is what the base draws, found 32"),
        ({"dataset": {"size": 8}}, r"dataset.size: expected native or at least 16 px, found 8"),
        ({"generate": {"blend": None}}, r"generate.blend: expected a number of px with window.cut: around"),
        ({"window": {"train_context": [3.0, 1.5]}}, r"window: train_context: expected two numbers of at least 1, the smaller first"),
        ({"window": {"context": 0.5}}, r"window.context: Input should be greater than or equal to 1"),
        ({"products": {"nut": {"base": {"size": 512}}}}, r"products.nut: dataset.size: expected at least base.size \(512\)"),
        ({"products": {"nut": {"dataset": {"size": 512}}}}, r"products.nut.dataset: not a section"),
    ],
)
def test_sizes_that_leave_no_room_are_one_clear_line(changes: dict, problem: str, tmp_path: Path) -> None:
    values = values_of(ROOT / "params.yaml")
    for section, own in changes.items():
        values[section] = own if section == "products" else values[section] | own
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError, match=problem):
        load_params(tmp_path / "params.yaml")


def test_stages_that_place_masks_watch_the_folder_that_someone_may_have_drawn_them_in() -> None:
    watching = {name for name, stage in GRAPH.items() if "${masks.folder}" in stage["deps"]}
    assert watching == {"scenes", "showcase"}


def test_whatever_a_generator_makes_carries_its_name() -> None:
    """So that a second one needs no change of the graph; adaptation is the product's, whichever draws on it."""
    own = [stage for stage in GRAPH.values() if stage.get("matrix", {}).get("method") == "${methods.generators}"]
    assert len(own) == 6
    assert all("${item.method}" in out for stage in own for out in stage["outs"])
    assert "method" not in GRAPH["adapt"]["matrix"]


@pytest.mark.parametrize("methods", [None, 3, ["cadiff"]])
def test_methods_are_lists_by_their_groups(methods: object, tmp_path: Path) -> None:
    values = values_of(ROOT / "params.yaml") | {"methods": methods}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError, match=r"methods: expected the lists generators, synthesizers, .*, found "):
        load_params(tmp_path / "params.yaml")
