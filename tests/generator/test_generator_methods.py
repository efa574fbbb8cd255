"""Generators beside CADiff on the same base: what each trains, loads and draws, and that nothing but its name tells them apart."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from cadiff import params as parameters
from cadiff.errors import CADiffError
from cadiff.generator import GENERATORS, adapt_base, draw_scenes, generate_shards, load_generator, settings_of, train_generator
from cadiff.masks import make_scenes
from cadiff.masks.make import UNKNOWN
from cadiff.params import Params
from cadiff.pictures import read_picture
from cadiff.prompt import LearnedTokens, PlainWords
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.storage import decode_image, read_json, read_table, sha256_folder, write_json

METHODS = sorted(GENERATORS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("methods")


@pytest.fixture
def trained(made: Path, windowed_params: Params, nut_samples: list[SampleRow]) -> Path:
    """``adapted`` and one folder a generator, once for all tests of this file."""
    if not (made / "adapted").exists():
        adapt_base(windowed_params, "nut", nut_samples, made / "adapted", made / "work-a")
    for method in METHODS:
        if not (made / method).exists():
            train_generator(method, windowed_params, "nut", nut_samples, made / "adapted", made / method, made / f"work-{method}")
    return made


def test_every_generator_that_the_parameters_name_is_there() -> None:
    assert sorted(get_args(parameters.Generator)) == METHODS
    assert all(Params(products={"nut": {}}, methods=[name]).kind_of(name) == "generator" for name in METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_loads_and_draws_the_scenes_of_its_kind(
    trained: Path, windowed_params: Params, nut_samples: list[SampleRow], tmp_path: Path, method: str
) -> None:
    scenes = make_scenes(windowed_params, "nut", nut_samples, method)
    out, by_id = tmp_path / "out", {scene.scene_id: scene for scene in scenes}
    generate_shards(
        windowed_params, method, "nut", nut_samples, trained / "adapted", trained / method, scenes, out, tmp_path / "work"
    )  # fmt: skip
    kinds = {UNKNOWN} if method == "perturbed" else {"chip", "rust", "scratch"}
    assert {path.stem for path in out.iterdir()} == {*kinds, "good"}
    rows = [row for kind in kinds for row in read_table(out / f"{kind}.parquet", GENERATED_SCHEMA).to_pylist()]
    assert {row["sample_id"] for row in rows} == set(by_id)
    assert len(rows) == 3 * len(kinds)
    known = {row.sample_id for row in nut_samples if row.role in ("normal", "exemplar")}
    for row in rows:
        scene = by_id[row["sample_id"]]
        picture = decode_image(row["image"]["bytes"], "RGB")
        assert picture.shape == (128, 128, 3)
        assert scene.picture.sample_id in known
        assert scene.picture.role == "normal" or method != "perturbed"
        different = (picture != read_picture(scene.picture, 128).image).any(-1)
        assert different[scene.mask].mean() > 0.5
        if scene.picture.role == "normal":  # else its anomaly was taken out first
            assert not different[~neighbours(scene.mask)].any()
        assert row["exemplar_ids"] == [a.exemplar.sample_id if a.exemplar else None for a in scene.anomalies]
        assert row["focus_step"] is None or method == "cadiff", "no word of theirs is re-weighted"
        assert ("<" in row["prompt"]) == (method == "cadiff"), "and none is learnt"
    assert any(row["focus_step"] is not None for row in rows) == (method == "cadiff")
    assert all(any(kind in row["prompt"] for row in rows) for kind in kinds) == (method != "perturbed"), "which asks for a good part"


def neighbours(mask: np.ndarray) -> np.ndarray:
    """The mask and two pixels around it."""
    padded = np.pad(mask, 2)
    return np.any([np.roll(padded, (r, c), (0, 1)) for r in range(-2, 3) for c in range(-2, 3)], axis=0)[2:-2, 2:-2]


def test_what_each_has_learnt(trained: Path, windowed_params: Params) -> None:
    """CADiff its tokens, control and SAIM; ControlNet the control alone; perturbed nothing, and it says so."""
    loaded = {name: load_generator(name, windowed_params, "nut", trained / "adapted", trained / name) for name in METHODS}
    assert isinstance(loaded["cadiff"].tokens, LearnedTokens)
    for name in ("controlnet", "perturbed"):
        assert isinstance(loaded[name].tokens, PlainWords)
        assert not list(loaded[name].tokens.parameters())
        assert not list((trained / name).glob("tokens/*")), "nothing learnt, nothing written"
    assert loaded["perturbed"].control is loaded["perturbed"].controlnet is None
    assert loaded["controlnet"].controlnet is not None
    assert list((trained / "cadiff" / "saim").glob("*.safetensors"))
    assert not list((trained / "controlnet" / "saim").glob("*.safetensors")), "its settings alone"
    assert [path.name for path in (trained / "perturbed").iterdir()] == ["generator.json"]
    assert read_json(trained / "perturbed" / "generator.json")["steps"] == 0
    assert read_json(trained / "controlnet" / "generator.json")["params"]["prompt"]["tokens"] == "plain"
    assert len({generator.digest for generator in loaded.values()}) == len(METHODS)
    assert loaded["controlnet"].prompt(["rust", "chip"], 0).positions == {}
    assert loaded["perturbed"].prompt(["rust"], 1).text == loaded["perturbed"].prompt([], 1).text


def test_settings_that_a_generator_does_not_have_are_set_to_what_that_means(windowed_params: Params) -> None:
    changed = {name: settings_of(name, windowed_params) for name in METHODS}
    assert changed["cadiff"] == windowed_params
    assert changed["controlnet"].generate == windowed_params.generate
    assert changed["controlnet"].control.interaction == "none"
    assert changed["perturbed"].generate.strength == windowed_params.perturbed.strength
    assert (changed["perturbed"].generate.start, changed["perturbed"].generate.guidance_scale) == ("background", 1.0)
    assert changed["perturbed"].train == windowed_params.train


def test_the_strength_decides_how_far_a_perturbed_normal_is_from_what_it_was(
    trained: Path, windowed_params: Params, nut_samples: list[SampleRow]
) -> None:
    away = []
    for strength in (0.1, 1.0):
        params = windowed_params.model_copy(
            update={
                "perturbed": windowed_params.perturbed.model_copy(update={"strength": strength}),
                "generate": windowed_params.generate.model_copy(update={"steps": 10}),
            }
        )
        scenes = make_scenes(params, "nut", nut_samples, "perturbed")
        generator = load_generator("perturbed", params, "nut", trained / "adapted", trained / "perturbed")
        drawn = draw_scenes(generator, settings_of("perturbed", params), scenes, again=False)
        changes = [np.abs(one.image.astype(int) - read_picture(one.scene.picture, 128).image)[one.scene.mask].mean() for one in drawn]
        away.append(np.mean(changes))
    assert 0 < away[0] < away[1]


@pytest.mark.parametrize("method", METHODS)
def test_training_again_gives_the_same_bytes(
    trained: Path, windowed_params: Params, nut_samples: list[SampleRow], tmp_path: Path, method: str
) -> None:
    train_generator(method, windowed_params, "nut", nut_samples, trained / "adapted", tmp_path / "again", tmp_path / "work")
    assert sha256_folder(tmp_path / "again") == sha256_folder(trained / method)


@pytest.mark.parametrize("method", METHODS)
def test_one_that_was_trained_on_another_base_is_refused(
    trained: Path, windowed_params: Params, tmp_path: Path, method: str
) -> None:
    record = read_json(trained / method / "generator.json")
    write_json(tmp_path / "generator.json", {**record, "base": "another"})
    with pytest.raises(CADiffError, match=r"generator.json: expected base .*, found another. Rerun the train stage"):
        load_generator(method, windowed_params, "nut", trained / "adapted", tmp_path)
