from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from masks_files import bar, save
from scipy import ndimage

from cadiff.errors import UsageError
from cadiff.masks import foreground
from cadiff.masks.folder import FOLDER, drawn_mask
from cadiff.masks.make import ANYWHERE, BY_CONTEXT, IN_PLACE, ON_PART, Placed, Placer, make_scenes, redrawn_scene, touching
from cadiff.masks.random import AREAS, blob
from cadiff.params import Params
from cadiff.pictures import canvas_of
from cadiff.records import SCENE_SCHEMA, SampleRow, SceneRow, from_table, to_table
from cadiff.scene import Scene
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.storage import read_image, write_image
from cadiff.task import Task

SIDE = 32


def changed(params: Params, section: str, **values) -> Params:
    return params.model_copy(update={section: getattr(params, section).model_copy(update=values)})


def made(params: Params, samples: list[SampleRow], kind: str, count: int) -> list[Placed]:
    placer = Placer(Task(params, "bar", samples=samples))
    return [placer.place(kind, (params.seed, "masks", "bar", kind, k)) for k in range(count)]


@pytest.mark.parametrize("placement", ["auto", "anywhere", "on_part", "in_place"])
def test_scenes_are_complete_and_fit_their_schema(params, samples, placement):
    few = [row for row in samples if row.role == "exemplar" and row.sample_id[-1] == "0"] + samples[:2]
    scenes = make_scenes(Task(changed(changed(params, "masks", placement=placement), "generate", per_type=6), "bar", samples=few))
    assert Counter(scene.types for scene in scenes) == {("missing",): 6, ("scratch",): 6, ("spot",): 6}
    assert [scene.scene_id for scene in scenes[6:8]] == ["bar/scratch/00000", "bar/scratch/00001"]
    by_id = {row.sample_id: row for row in samples}
    for scene in scenes:
        assert scene.picture is not None
        assert scene.normal is not None
        assert scene.normal.role == "normal"
        assert scene.mask.any()
        assert scene.mask.shape == canvas_of(scene.picture, SIDE)
        assert scene.anomalies[0].exemplar.anomaly_type == scene.types[0]
        stays = scene.source == IN_PLACE
        assert scene.picture == (scene.anomalies[0].exemplar if stays else scene.normal)
        assert (scene.anomalies[0].movement is None) == stays
    expected = {"auto": {BY_CONTEXT, IN_PLACE}, "anywhere": {ANYWHERE}, "on_part": {ON_PART}, "in_place": {IN_PLACE}}[placement]
    assert {scene.source for scene in scenes} <= expected | {IN_PLACE}
    assert {scene.source for scene in scenes} & expected
    rows = from_table(to_table([scene.row() for scene in scenes], SCENE_SCHEMA), SceneRow)
    again = [Scene.of(row, by_id) for row in rows]
    assert all(np.array_equal(one.mask, other.mask) for one, other in zip(scenes, again, strict=True))
    assert [replace(one, anomalies=()) for one in scenes] == [replace(one, anomalies=()) for one in again]


def test_a_scene_depends_on_its_own_name_alone(params, samples):
    params = changed(params, "generate", per_type=8)
    scenes = {scene.scene_id: scene for scene in make_scenes(Task(params, "bar", samples=samples))}
    placer = Placer(Task(params, "bar", samples=samples))
    for k in (7, 2):  # in another order, without the other types
        alone = placer.place("spot", (params.seed, "masks", "bar", "spot", k))
        assert np.array_equal(alone.mask, scenes[f"bar/spot/{k:05}"].mask)
        assert alone.movement == scenes[f"bar/spot/{k:05}"].anomalies[0].movement
    other = make_scenes(Task(params.model_copy(update={"seed": 1}), "bar", samples=samples))
    assert [s.anomalies[0].movement for s in other] != [s.anomalies[0].movement for s in scenes.values()]


def test_intensity_prompt_and_noise_come_from_streams_named_after_the_scene(params, samples):
    scene = make_scenes(Task(params, "bar", samples=samples))[3]
    rng = numpy_generator(params.seed, "generate", scene.scene_id)
    assert scene.intensities == (rng.uniform(params.intensity.low, params.intensity.high),)
    assert scene.template == int(rng.integers(1 << 30))
    assert scene.seed == derive_seed(params.seed, "noise", scene.scene_id)


def test_a_generated_background_has_no_picture(params, samples):
    scenes = make_scenes(Task(changed(params, "generate", background="generated", per_type=2), "bar", samples=samples))
    assert {(scene.picture, scene.normal) for scene in scenes} == {(None, None)}


def test_normals_drawn_anew_ask_for_nothing_and_lie_on_that_very_normal(params, samples):
    tasks = [Task(changed(params, "generate", redraw=redraw, per_type=2), "bar", samples=samples) for redraw in (False, True)]
    plain, with_redrawn = map(make_scenes, tasks)
    assert [scene.scene_id for scene in with_redrawn[: len(plain)]] == [scene.scene_id for scene in plain]
    redrawn = with_redrawn[len(plain) :]
    normals = [row for row in samples if row.role == "normal"]
    assert [scene.normal for scene in redrawn] == normals
    for scene in redrawn:
        assert scene.scene_id == f"{scene.normal.sample_id}-redrawn"
        assert (scene.named, scene.intensities) == (False, (1.0,))
        assert scene.picture in (scene.normal, scene.anomalies[0].exemplar)


def test_a_normal_that_is_shorter_than_the_exemplars_picture_gets_a_mask(params, tmp_path):
    """Of a crack at both ends of a long picture both parts lay beyond the borders of a square one."""
    image, mask = np.full((3 * SIDE, SIDE, 3), 90, np.uint8), np.zeros((3 * SIDE, SIDE), bool)
    mask[3:12, 14:18] = mask[-12:-3, 14:18] = True
    exemplar = save(tmp_path / "crack" / "0.png", image, mask, "crack")
    normal = save(tmp_path / "good" / "0.png", bar(0))
    scene = redrawn_scene(params, Placer(Task(params, "bar", samples=[exemplar, normal])), normal)
    assert scene.picture == normal
    assert scene.mask[: SIDE // 3].any(), "nothing of the upper part"
    assert scene.mask[-SIDE // 3 :].any(), "nothing of the lower part"


def test_masks_anywhere_keep_to_the_product_of_their_normal(params, samples):
    for placed in made(changed(params, "masks", placement="anywhere"), samples, "scratch", 40):
        product = foreground(read_image(placed.picture.image_path))
        assert (placed.mask & ~product).sum() <= 2  # the outline is found small: here at three times the px


def outermost(mask: np.ndarray, product: np.ndarray) -> float:
    """The share of a mask in the product's outermost layer of pixels."""
    layer = product & ~ndimage.binary_erosion(product)
    return layer[mask].mean()


def test_masks_anywhere_lie_by_the_products_edge_as_their_exemplars_do(params, samples, tmp_path):
    """Chips in a bar's upper rim and marks in its middle: placed at random, masks of both would be cut at the edge or not as it comes."""
    normals = [row for row in samples if row.role == "normal"]
    top, left = np.argwhere(bar(50)[..., 0] > 100).min(axis=0)
    for kind, downs, expected in (("chip", (0, 0, 0), 1 / 3), ("mark", (4, 7, 10), 0)):
        exemplars = []
        for index, down in enumerate(downs):
            mask, at = np.zeros((SIDE, SIDE), bool), left + 6 + 4 * index
            mask[top + down : top + down + 3, at : at + 4] = True
            exemplars.append(save(tmp_path / kind / f"{index}.png", bar(50), mask, kind))
        placed = made(changed(params, "masks", placement="anywhere"), [*normals, *exemplars], kind, 40)
        assert Counter(p.source for p in placed)[ANYWHERE] > 30
        shares = [outermost(p.mask, read_image(p.picture.image_path)[..., 0] > 100) for p in placed if p.source == ANYWHERE]
        assert np.mean(shares) == pytest.approx(expected, abs=0.12)


def test_masks_on_the_part_lie_where_their_exemplar_has_them(params, samples):
    """Of six bars in six places; anywhere, the same masks lie where the exemplar's picture has its bar."""

    few = [row for row in samples if row.sample_id in ("bar/spot/0", "bar/spot/2") or row.role == "normal"]

    def off_place(placement: str) -> list[float]:
        away = []
        for placed in made(changed(params, "masks", placement=placement), few, "spot", 30):
            own, there = (np.argwhere(read_image(row.image_path)[..., 0] > 100).min(axis=0) for row in (placed.exemplar, placed.picture))
            before = np.argwhere(read_image(placed.exemplar.mask_path, "L") > 0).mean(axis=0) - own
            away.append(float(np.abs(np.argwhere(placed.mask).mean(axis=0) - there - before).max()))
        return away

    on_part, anywhere = (np.median(off_place(placement)) for placement in ("on_part", "anywhere"))
    assert on_part < 1.5  # the spread that a type has at the least is one px of these
    assert anywhere > on_part + 0.7


def test_a_normal_of_another_part_gets_no_mask_on_the_part(params, samples, tmp_path):
    noise = np.random.default_rng(0).normal(128, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
    other = [replace(row, image_path=save(tmp_path / "other.png", noise).image_path) if row.role == "normal" else row for row in samples]
    other = [row for row in other if row.sample_id in ("bar/good/0", "bar/spot/0")]
    chosen = changed(params, "masks", placement="on_part")
    assert {p.source for p in made(chosen, other, "spot", 2)} == {IN_PLACE}
    seen = Placer(Task(chosen, "bar", samples=other)).place("spot", (0, "m"), other[0], moved=True)
    assert (seen.picture, seen.source, seen.mask.any()) == (other[0], ON_PART, True)


def test_what_a_border_cut_gains_nothing_on_the_part(params, samples, tmp_path):
    """What was beyond the border is not known, so it does not come into the picture with the part."""
    rows = []
    for index, (top, left) in enumerate([(2, 2), (8, 8), (9, 7)]):
        picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
        picture[top : top + 16, left : left + 20] = 180
        mask = np.zeros((SIDE, SIDE), bool)
        mask[:4, :4] = True
        rows.append(save(tmp_path / f"{index}.png", picture, None if index else mask, None if index else "corner"))
    placed = made(changed(params, "masks", placement="on_part"), rows, "corner", 8)
    assert ON_PART in {p.source for p in placed}
    assert max(p.mask.sum() for p in placed) <= 28  # 16 px, at most 1.22 times as long


def test_a_type_beside_the_product_is_not_moved_onto_it(params, samples):
    centres = [np.argwhere(p.mask).mean(axis=0) for p in made(changed(params, "masks", placement="anywhere"), samples, "missing", 30)]
    assert np.abs(np.median(centres, axis=0) - 2).max() < 1.5


@pytest.mark.parametrize("placement", ["auto", "anywhere"])
def test_masks_are_like_their_exemplars_but_no_copies(params, samples, placement):
    own = [read_image(row.mask_path, "L") > 0 for row in samples if row.anomaly_type == "scratch"]
    masks = [p.mask for p in made(changed(params, "masks", placement=placement), samples, "scratch", 40)]
    areas, own_areas = ([mask.sum() for mask in some] for some in (masks, own))
    assert np.mean(areas) == pytest.approx(np.mean(own_areas), rel=0.45)
    level = [np.ptp(np.argwhere(mask)[:, 1]) > 2 * np.ptp(np.argwhere(mask)[:, 0]) for mask in masks]
    assert np.mean(level) > 0.85  # all exemplars are level
    assert len({mask.tobytes() for mask in masks}) > 30


def test_what_cannot_be_placed_stays_and_says_so(params, samples, capsys):
    chosen = changed(changed(params, "masks", placement="anywhere", max_cut=0.0), "generate", per_type=4)
    large = np.zeros((SIDE, SIDE), bool)
    large[4:28, 2:30] = True  # larger than the bar, which cuts it
    picture = next(row for row in samples if row.anomaly_type == "spot")
    folder = Path(picture.image_path).parent
    rows = [save(folder / "large.png", bar(50), large, "large"), *(row for row in samples if row.role == "normal")]
    scenes = make_scenes(Task(chosen, "bar", samples=rows))
    assert {scene.source for scene in scenes} == {IN_PLACE}
    assert all(np.array_equal(scene.mask, large) for scene in scenes)
    said = capsys.readouterr().err
    assert "masks bar large: 4 of 4 found no place and stay in their exemplar's picture; see recipe.masks.max_cut" in said


def test_a_mask_beside_another_does_not_touch_it(params, samples):
    placer = Placer(Task(changed(params, "masks", placement="anywhere"), "bar", samples=samples))
    normal = samples[0]
    first = placer.place("scratch", (0, "one"), normal, moved=True)
    counts = {}
    for name, beside in (("free", None), ("beside", first.mask)):
        counts[name] = [touching(placer.place("spot", (0, k), normal, beside, moved=True).mask, first.mask) > 0 for k in range(30)]
    assert sum(counts["beside"]) <= 1 < sum(counts["free"])
    alone, again = (placer.place("spot", (0, 3), normal, beside, moved=True) for beside in (None, np.zeros((SIDE, SIDE), bool)))
    assert np.array_equal(alone.mask, again.mask)


def test_masks_from_a_folder_cycle_in_a_seeded_order(params, samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("missing", "scratch", "spot"):
        for index in range(3):
            mask = np.zeros((64, 80), np.uint8)  # as no picture is
            mask[20 * index : 20 * index + 8, 8:16] = 255
            write_image(FOLDER / "bar" / kind / f"{index}.png", mask)
    chosen = changed(params, "masks", source="folder")
    scenes = [scene for scene in make_scenes(Task(chosen, "bar", samples=samples)) if scene.types == ("spot",)]
    tops = [int(np.argwhere(scene.mask)[0, 0]) for scene in scenes]
    assert sorted(tops[:3]) == [0, 10, 20]
    assert tops[:6] == tops[:3] * 2
    assert {(scene.source, scene.anomalies[0].exemplar, scene.anomalies[0].movement) for scene in scenes} == {("folder", None, None)}
    normals = sorted((row for row in samples if row.role == "normal"), key=lambda row: row.sample_id)
    for scene in scenes:
        rng = numpy_generator(params.seed, "generate", scene.scene_id)
        rng.uniform(), rng.integers(1 << 30)
        assert scene.picture == normals[int(rng.integers(len(normals)))]
        assert scene.mask.shape == canvas_of(scene.picture, SIDE)


def test_a_mask_from_a_folder_is_judged_as_it_was_drawn(tmp_path):
    """All but a line of 1 px is marked, which a canvas of a sixteenth of the side does not show: no reason to call it all marked."""
    mask = np.full((64, 64), 255, np.uint8)
    mask[31] = 0
    write_image(tmp_path / "line.png", mask)
    assert drawn_mask(tmp_path / "line.png", (64, 64)).sum() == 63 * 64
    assert drawn_mask(tmp_path / "line.png", (4, 4)).all()
    for name, value in (("empty", 0), ("full", 255)):
        write_image(tmp_path / f"{name}.png", np.full((64, 64), value, np.uint8))
        with pytest.raises(UsageError, match=rf"{name}.png: (empty mask|every pixel is marked)"):
            drawn_mask(tmp_path / f"{name}.png", (4, 4))


def test_one_that_no_picture_can_hold_is_not_tried(params, samples, tmp_path):
    """An exemplar of a picture ten times as wide, at their own sizes: it stays there, in well under a second; 128 tries took seven."""
    mask = np.zeros((2000, 2000), bool)
    mask[300:1700, 300:1700] = True
    rows = [save(tmp_path / "large.png", np.full((2000, 2000, 3), 120, np.uint8), mask, "large"), *samples[:6]]
    native = changed(changed(params, "dataset", size="native"), "masks", placement="anywhere")
    placer = Placer(Task(native, "bar", samples=rows))
    placer.place("large", (0, 0))  # reads the pictures
    start = time.perf_counter()
    placed = placer.place("large", (0, 1))
    assert time.perf_counter() - start < 1
    assert placed.source == IN_PLACE
    assert np.array_equal(placed.mask, mask)


def test_random_masks_lie_on_the_product_and_need_no_exemplar(params, samples):
    scenes = make_scenes(Task(changed(params, "generate", redraw=True, per_type=60), "bar", "perturbed", samples))
    assert {(scene.types, scene.source, scene.intensities) for scene in scenes} == {(("anomaly",), "random", (1.0,))}
    assert len(scenes) == 60
    shares = []
    for scene in scenes:
        product = ndimage.binary_dilation(read_image(scene.picture.image_path)[..., 0] > 100)
        assert scene.anomalies[0].exemplar is None
        assert not (scene.mask & ~product).any()
        shares.append(scene.mask.mean())
    assert max(shares) < 1.3 * AREAS[1]
    assert np.quantile(shares, 0.1) < 0.005
    assert np.quantile(shares, 0.9) > 0.03
    assert len({scene.mask.tobytes() for scene in scenes}) > 50


def test_a_random_mask_is_one_smooth_piece():
    """Of a noisy outline there is more than of a disc, and less than of dust."""
    product = np.zeros((60, 80), bool)
    product[10:50, 10:70] = True
    for k in range(20):
        mask = blob(product, (240, 320), np.random.default_rng(k))
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
        assert not (mask & ~np.kron(product, np.ones((4, 4), bool))).any()
        outline = mask.sum() - ndimage.binary_erosion(mask).sum()
        assert outline < 3 * 2 * np.sqrt(np.pi * mask.sum())


def test_what_is_missing_is_named(params, samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="bar: expected at least one anomaly"):
        make_scenes(Task(params, "bar", samples=[row for row in samples if row.role == "normal"]))
    with pytest.raises(UsageError, match="bar: expected train normals"):
        make_scenes(Task(params, "bar", samples=[row for row in samples if row.role != "normal"]))
    with pytest.raises(UsageError, match="bar: expected exemplars of rust"):
        Placer(Task(params, "bar", samples=samples)).place("rust", (0, 1))
    empty = changed(params, "masks", source="folder")
    with pytest.raises(UsageError, match=r"bar/missing: expected at least one mask"):
        make_scenes(Task(empty, "bar", samples=samples))
    for kind in ("missing", "scratch", "spot"):
        write_image(FOLDER / "bar" / kind / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"a\.png: empty mask"):
        make_scenes(Task(empty, "bar", samples=samples))
