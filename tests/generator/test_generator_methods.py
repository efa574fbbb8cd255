"""Generators beside CADiff on the same base: what each trains, loads and draws, and that nothing but its name tells them apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cadiff.errors import CADiffError, UsageError
from cadiff.generator import GENERATORS, adapt_base, draw_scenes, generate_shards, load_generator, settings_of, train_generator
from cadiff.generator.model import Paster
from cadiff.generator.setting import picture_of, reader
from cadiff.masks import make_scenes
from cadiff.masks.make import SCENES, UNKNOWN
from cadiff.masks.shapes import move_picture
from cadiff.params import Params
from cadiff.pictures import read_picture
from cadiff.prompt import LearnedTokens, PlainWords
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.storage import decode_image, read_json, read_table, sha256_folder, write_json
from cadiff.task import Task

METHODS = sorted(GENERATORS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("methods")


@pytest.fixture
def trained(made: Path, windowed_params: Params, nut_samples: list[SampleRow]) -> Path:
    """``adapted`` and one folder a generator, once for all tests of this file."""
    if not (made / "adapted").exists():
        adapt_base(Task(windowed_params, "nut", samples=nut_samples), made / "adapted", made / "work-a")
    for method in METHODS:
        if not (made / method).exists():
            train_generator(Task(windowed_params, "nut", method, nut_samples), made / "adapted", made / method, made / f"work-{method}")
    return made


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_loads_and_draws_the_scenes_of_its_kind(
    trained: Path, windowed_params: Params, nut_samples: list[SampleRow], tmp_path: Path, method: str
) -> None:
    task = Task(windowed_params, "nut", method, nut_samples)
    scenes = make_scenes(task)
    out, by_id = tmp_path / "out", {scene.scene_id: scene for scene in scenes}
    generate_shards(task, trained / "adapted", trained / method, scenes, out, tmp_path / "work")
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
        assert different[scene.mask].mean() > (0.5 if method != "pasted" else 0.2), "what is pasted may be like what it covers"
        if scene.picture.role == "normal":  # else its anomaly was taken out first
            assert not different[~neighbours(scene.mask)].any()
        assert row["exemplar_ids"] == [a.exemplar.sample_id if a.exemplar else None for a in scene.anomalies]
        assert row["focus_step"] is None or method == "cadiff", "no word of theirs is re-weighted"
        assert (row["prompt"] is None) == (method == "pasted")
        assert ("<" in (row["prompt"] or "")) == (method == "cadiff"), "and none is learnt"
    assert any(row["focus_step"] is not None for row in rows) == (method == "cadiff")
    named = all(any(kind in (row["prompt"] or "") for row in rows) for kind in kinds)
    assert named == (method in ("cadiff", "controlnet")), "perturbed asks for a good part, pasted for nothing"


def test_what_is_pasted_is_cadiffs_own_scenes_with_the_exemplars_pixels(
    trained: Path, windowed_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Masks, w, normals and exemplars are to the row those of CADiff under the same seed; a mask at w = 1 holds what its exemplar has
    there, at another w that many times as far from what was there. There is no base, no noise and no prompt, and no normal is redrawn."""
    params = windowed_params.model_copy(update={"generate": windowed_params.generate.model_copy(update={"redraw": True, "blend": 0.0})})
    whose = {}
    for method in ("cadiff", "pasted"):
        task = Task(params, "nut", method, nut_samples)
        scenes = make_scenes(task)
        whose[method] = [scene.row() for scene in scenes if scene.named]
        out = tmp_path / method
        generate_shards(task, trained / "adapted", trained / method, scenes, out, tmp_path / f"w-{method}")
    assert whose["cadiff"] == whose["pasted"]
    assert all(scene.named for scene in scenes), "nothing is drawn, so no place of a normal is drawn anew"
    read, settings = reader(params), settings_of("pasted", params)
    by_id = {scene.scene_id: scene for scene in scenes}
    told = ("sample_id", "anomaly_types", "mask", "mask_source", "intensity", "normal_id", "exemplar_ids")
    for kind in ("chip", "rust", "scratch"):
        own, theirs = (read_table(tmp_path / method / f"{kind}.parquet", GENERATED_SCHEMA).to_pylist() for method in ("pasted", "cadiff"))
        for row, other in zip(own, theirs, strict=True):
            assert [row[name] for name in told] == [other[name] for name in told]
            assert [row[name] for name in ("prompt", "steps", "guidance_scale", "focus_step", "base_digest")] == [None] * 5
            scene = by_id[row["sample_id"]]
            (anomaly,), picture = scene.anomalies, decode_image(row["image"]["bytes"], "RGB")
            before = picture_of(scene, params, read).astype(float)
            image, mask = read(anomaly.exemplar)
            moved = anomaly.movement and move_picture(image, mask, anomaly.movement, scene.mask.shape)
            pixels = image.astype(float) if moved is None else moved
            expected = (before + anomaly.intensity * (pixels - before)).clip(0, 255)
            assert np.abs(picture - expected)[scene.mask].max() <= 0.51
            assert (picture == before)[~scene.mask].all()
    good = read_table(tmp_path / "pasted" / "good.parquet", GENERATED_SCHEMA).to_pylist()
    normals = {row.sample_id: row for row in nut_samples if row.role == "normal"}
    assert {row["sample_id"] for row in good} == set(normals)
    for row in good:
        assert (decode_image(row["image"]["bytes"], "RGB") == read(normals[row["sample_id"]]).image).all()
    assert settings == params
    assert read_json(trained / "pasted" / "generator.json") == {"product": "nut", "steps": 0}


def test_what_is_pasted_fades_out_as_what_is_drawn_does(
    trained: Path, windowed_params: Params, nut_samples: list[SampleRow]
) -> None:
    """Within ``generate.blend`` px of the mask and nowhere else, the less the farther; in the mask as without."""
    scenes = make_scenes(Task(windowed_params, "nut", "pasted", nut_samples))
    generator = load_generator(Task(windowed_params, "nut", "pasted"), trained / "nowhere", trained / "pasted")
    found = {}
    for blend in (0.0, 3.0, None):
        params = windowed_params.model_copy(update={"generate": windowed_params.generate.model_copy(update={"blend": blend})})
        found[blend] = draw_scenes(generator, params, scenes)
        assert all((one.image == draw_scenes(generator, params, [one.scene])[0].image).all() for one in found[blend])
    means = []
    for hard, soft, default in zip(found[0.0], found[3.0], found[None], strict=True):
        assert (hard.image == default.image).all(), "where all of a window would be kept it ends at the mask's edge"
        mask = hard.scene.mask
        assert (hard.image == soft.image)[mask].all()
        away, change = ndimage.distance_transform_edt(~mask), np.abs(soft.image.astype(int) - hard.image).mean(-1)
        assert not change[away > 3].any()
        means.append([change[(away > low) & (away <= low + 1)].mean() for low in (0, 1, 2)])
    near, between, far = np.mean(means, axis=0)
    assert near > between > far > 0


def test_where_there_is_nothing_to_paste_it_says_so(windowed_params: Params) -> None:
    for section, changes, expected in (
        ("generate", {"background": "generated"}, r"generate.background: expected real with the generator pasted.* found generated"),
        ("masks", {"source": "folder"}, r"masks.source: expected exemplars with the generator pasted.* found folder"),
    ):
        other = windowed_params.model_copy(update={section: getattr(windowed_params, section).model_copy(update=changes)})
        with pytest.raises(UsageError, match=expected):
            settings_of("pasted", other)


def test_scenes_of_their_own_are_of_generators_that_there_are() -> None:
    assert set(SCENES) < set(METHODS)


def neighbours(mask: np.ndarray) -> np.ndarray:
    """The mask and two pixels around it."""
    padded = np.pad(mask, 2)
    return np.any([np.roll(padded, (r, c), (0, 1)) for r in range(-2, 3) for c in range(-2, 3)], axis=0)[2:-2, 2:-2]


def test_what_each_has_learnt(trained: Path, windowed_params: Params) -> None:
    """CADiff its tokens, control and SAIM; ControlNet the control alone; perturbed nothing, and it says so."""
    loaded = {name: load_generator(Task(windowed_params, "nut", name), trained / "adapted", trained / name) for name in METHODS}
    assert isinstance(loaded["cadiff"].tokens, LearnedTokens)
    assert isinstance(loaded["pasted"], Paster), "no base and no words"
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
        scenes = make_scenes(Task(params, "nut", "perturbed", nut_samples))
        generator = load_generator(Task(params, "nut", "perturbed"), trained / "adapted", trained / "perturbed")
        drawn = draw_scenes(generator, settings_of("perturbed", params), scenes, again=False)
        changes = [np.abs(one.image.astype(int) - read_picture(one.scene.picture, 128).image)[one.scene.mask].mean() for one in drawn]
        away.append(np.mean(changes))
    assert 0 < away[0] < away[1]


@pytest.mark.parametrize("method", METHODS)
def test_training_again_gives_the_same_bytes(
    trained: Path, windowed_params: Params, nut_samples: list[SampleRow], tmp_path: Path, method: str
) -> None:
    train_generator(Task(windowed_params, "nut", method, nut_samples), trained / "adapted", tmp_path / "again", tmp_path / "work")
    assert sha256_folder(tmp_path / "again") == sha256_folder(trained / method)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"pasted"}))
def test_one_that_was_trained_on_another_base_is_refused(
    trained: Path, windowed_params: Params, tmp_path: Path, method: str
) -> None:
    record = read_json(trained / method / "generator.json")
    write_json(tmp_path / "generator.json", {**record, "base": "another"})
    with pytest.raises(CADiffError, match=r"generator.json: expected base .*, found another. Rerun the train stage"):
        load_generator(Task(windowed_params, "nut", method), trained / "adapted", tmp_path)
