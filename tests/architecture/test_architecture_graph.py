"""dvc.yaml against the stages: the settings that each reads, and all code that it imports."""

import shutil
from pathlib import Path

import grimp
import pytest
import yaml
from dvc.repo import Repo
from parameters import bare, file_text, over, values_of

from cadiff.errors import UsageError
from cadiff.params import READS, RESULT_KEYS, SETTINGS, load_params, pick, settings_path
from cadiff.stages import CODE, STAGES

ROOT = Path(__file__).resolve().parents[2]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
# What all stages share: contracts, files and messages.
NAMES = (
    "errors", "names", "seeds", "storage", "records", "params", "progress", "checkpoint", "cluster", "devices", "visible", "_torchvision",
    "opening", "decoding", "marking",
)
FOUNDATION = {"cadiff", *(f"cadiff.{name}" for name in NAMES)}
PARTS = tuple(f"cadiff.{name}." for name in NAMES)


def stage_of(name: str) -> str:
    return name.split("-")[0]


def written(folder: Path, **changes: object) -> Path:
    """The demo's parameters with these changes, as a file."""
    path = folder / "params.yaml"
    path.write_text(file_text(over(values_of("demo"), changes)))
    return path


@pytest.mark.parametrize("name", GRAPH)
def test_dvc_names_the_settings_and_the_code_that_the_stage_declares(name: str) -> None:
    stage, deps = stage_of(name), GRAPH[name]["deps"]
    assert "params" not in GRAPH[name], "DVC would read params.yaml itself, which lacks presets and defaults"
    product = "" if stage == "report" else "${item.product}"
    assert [dep for dep in deps if dep.startswith(f"{SETTINGS}/")] == ([] if stage == "settings" else [str(settings_path(stage, product))])
    code = [dep.removeprefix("cadiff/") for dep in deps if dep.startswith("cadiff/")]
    assert sorted(code) == sorted(CODE[stage])


def test_what_a_stage_reads_is_said_once_for_each() -> None:
    assert READS.keys() == STAGES.keys() - {"settings"}
    assert {stage_of(name) for name in GRAPH} == set(STAGES) == set(CODE)
    params = load_params(ROOT / "presets" / "demo.yaml")
    for stage, keys in READS.items():
        assert len(set(keys)) == len(keys), stage
        for key in keys:
            pick(params, key)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_all_code_that_it_imports(name: str) -> None:
    """Its first part is its door; what that imports, directly or not, must be a declared part or in one."""
    graph = grimp.build_graph("cadiff")
    declared = {"cadiff." + part.removesuffix(".py").replace("/", ".") for part in CODE[name]}
    door = "cadiff." + CODE[name][0].removesuffix(".py").replace("/", ".")
    modules = {door, *graph.find_descendants(door)}
    upstream = {up for module in modules for up in graph.find_upstream_modules(module)}
    rest = {up for up in upstream if not any(f"{up}.".startswith(f"{part}.") for part in declared)}
    assert {up for up in rest if not up.startswith(PARTS)} <= FOUNDATION


def test_no_stage_writes_where_someones_images_may_be() -> None:
    """DVC removes what lies at an out before the stage runs, so no parameter may say where an out is."""
    outs = [out for stage in GRAPH.values() for out in [*stage["outs"], *stage.get("metrics", [])]]
    assert len(outs) > len(GRAPH)
    for out in outs:
        assert out.startswith(("data/made/", "reports/"))
        assert "${" not in out.replace("${item.product}", "").replace("${item.method}", "")


def test_params_are_the_demo() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets" / "demo.yaml").read_bytes()


@pytest.mark.parametrize(
    ("background", "start", "fits"), [("real", "background", True), ("generated", "noise", True), ("generated", "background", False)]
)
def test_an_image_starts_from_its_background_only_where_it_has_one(background: str, start: str, fits: bool, tmp_path: Path) -> None:
    generate = {"background": background, "strength": 0.5, "start": start, "redraw": False}
    path = written(tmp_path, generate=generate, window={"cut": "whole" if background == "generated" else "around"})
    if fits:
        assert load_params(path).generate.taken == (1.0 if start == "noise" else 0.5)
        return
    with pytest.raises(UsageError, match=r"generate: start: expected noise with background: generated, .* found background; set"):
        load_params(path)


@pytest.mark.parametrize(
    ("masks", "generate", "problem"),
    [
        ({}, {"background": "generated", "start": "noise", "redraw": False}, "background: generated, which keeps no"),
        ({"source": "folder"}, {}, "placement: expected auto with source: folder, whose masks have no exemplar, found in_place"),
    ],
)
def test_a_mask_stays_in_place_only_where_there_is_a_picture_to_stay_in(
    masks: dict, generate: dict, problem: str, tmp_path: Path
) -> None:
    """In all products and in one product's own section."""
    for own, common in (({}, {"placement": "in_place", **masks}), ({"masks": {"placement": "in_place", **masks}}, {})):
        path = written(tmp_path, generate=generate, window={"cut": "whole"}, masks=common, products={"nut": own})
        with pytest.raises(UsageError, match=problem):
            load_params(path)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_dvc_resolves_every_preset(preset: Path, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copy(preset, tmp_path / "params.yaml")
    params = load_params(tmp_path / "params.yaml")
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
    assert not any("cluster" in key for keys in READS.values() for key in keys)
    with pytest.raises(ValueError, match=r"expected null, local:N .* found 'local:0'"):
        bare(products={"nut": {}}, cluster="local:0")


def test_masks_of_a_folder_are_laid_on_no_part(tmp_path: Path) -> None:
    path = written(tmp_path, masks={"placement": "on_part", "source": "folder"})
    with pytest.raises(UsageError, match=r"masks: placement: expected auto with source: folder, .* found on_part"):
        load_params(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dataset": {"size": 32}}, r"dataset.size: expected at least base.size \(64\), which is what the base draws, found 32"),
        ({"dataset": {"size": 8}}, r"dataset.size: expected native or at least 16 px, found 8"),
        ({"generate": {"blend": None}}, r"recipe.generate.blend: expected a number of px with recipe.window.cut: around"),
        ({"window": {"train_context": [3.0, 1.5]}}, r"recipe.window: train_context: expected two numbers of at least 1, the smaller first"),
        ({"window": {"context": 0.5}}, r"recipe.window.context: Input should be greater than or equal to 1"),
        ({"products": {"nut": {"base": {"size": 512}}}}, r"products.nut: dataset.size: expected at least base.size \(512\)"),
        ({"products": {"nut": {"dataset": {"size": 512}}}}, r"products.nut.dataset: not a section"),
    ],
)
def test_sizes_that_leave_no_room_are_one_clear_line(changes: dict, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=problem):
        load_params(written(tmp_path, **changes))


def test_stages_that_place_masks_watch_the_folder_that_someone_may_have_drawn_them_in() -> None:
    watching = {name for name, stage in GRAPH.items() if "data/masks" in stage["deps"]}
    assert watching == {"scenes", "showcase"}


def test_whatever_a_generator_makes_carries_its_name() -> None:
    """So that a second one needs no change of the graph; adaptation is the product's, whichever draws on it."""
    own = [stage for stage in GRAPH.values() if stage.get("matrix", {}).get("method") == "${methods.generators}"]
    assert len(own) == 6
    assert all("${item.method}" in out for stage in own for out in stage["outs"])
    assert "method" not in GRAPH["adapt"]["matrix"]


@pytest.mark.parametrize("methods", [None, 3, ["cadiff"]])
def test_methods_are_lists_by_their_groups(methods: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"methods: expected the lists generators, synthesizers, .*, found "):
        load_params(written(tmp_path, methods=methods))
