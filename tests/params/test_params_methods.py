"""The table of methods against the registries of what they do, the graph, and what a file may name."""

from pathlib import Path
from typing import get_args

import pytest
import yaml
from parameters import bare

from cadiff.detection.peers import PEERS
from cadiff.errors import UsageError
from cadiff.generator import GENERATORS
from cadiff.masks.make import SCENES
from cadiff.params import KINDS, METHODS, kinds_of, of_kind, parts_of
from cadiff.params.groups import MethodGroups
from cadiff.params.methods import GROUPS
from cadiff.stages import STAGES, resolve
from cadiff.synthesis.make import SYNTHESIZERS, TYPELESS_METHODS

GRAPH = yaml.safe_load((Path(__file__).resolve().parents[2] / "dvc.yaml").read_text())["stages"]
LISTS = {f"${{methods.{group}}}": kind for group, kind in GROUPS.items()} | {
    "${external.images}": "images", "${external.maps}": "maps"
}  # fmt: skip


@pytest.mark.parametrize(("kind", "registry"), [("generator", GENERATORS), ("synthesizer", SYNTHESIZERS), ("detector", PEERS)])
def test_every_method_of_the_table_does_something_and_no_other_does(kind: str, registry: object) -> None:
    assert set(registry) == set(of_kind(kind))


def test_scenes_of_a_kind_of_their_own_are_those_of_generators_that_there_are() -> None:
    assert set(SCENES) < set(of_kind("generator"))


def test_what_draws_without_exemplars_is_said_to_have_no_types() -> None:
    assert {name for name in of_kind("synthesizer") if not METHODS[name].typed} == set(TYPELESS_METHODS)


@pytest.mark.parametrize("group", GROUPS)
def test_a_file_names_the_methods_of_the_table(group: str) -> None:
    (name,) = get_args(MethodGroups.model_fields[group].annotation)
    assert get_args(name) == of_kind(GROUPS[group])


def test_the_graph_has_the_stages_of_each_kind() -> None:
    """A stage that is of several kinds has an entry of dvc.yaml for each, named after it and a word more."""
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for name, stage in GRAPH.items():
        listed = stage.get("matrix", {}).get("method")
        if listed == "${ship.methods}":  # of those that a detector is trained for, by the parameters' own check
            for kind in kinds_of("detect"):
                found[kind].add(name)
        elif listed:
            found[LISTS[listed]].add(name.partition("-")[0])
    assert found == {kind: set(stages) for kind, stages in KINDS.items()}
    assert set(STAGES) >= {stage for stages in KINDS.values() for stage in stages}


def test_a_union_waits_for_the_images_of_its_parts() -> None:
    deps = GRAPH["detect-union"]["deps"]
    for name in of_kind("union"):
        assert [dep for dep in deps if dep.startswith("data/made/generated/")] == [
            f"data/made/generated/{part}/${{item.product}}" for part in parts_of(name)
        ]
        assert all("quality" in KINDS[METHODS[part].kind] for part in parts_of(name)), "parts have images of their own"


def test_a_stage_takes_the_methods_of_its_kinds_alone() -> None:
    params = bare(products={"nut": {}}, methods=list(METHODS))
    for stage in (name for name in STAGES if kinds_of(name)):
        for name, method in METHODS.items():
            if stage in KINDS[method.kind]:
                assert resolve(stage, params, "nut", name).method == name
                continue
            with pytest.raises(UsageError, match=f"{stage}: needs --method"):
                resolve(stage, params, "nut", name)
