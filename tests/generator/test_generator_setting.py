"""What a scene is set in and starts from, and how what was drawn is set in, against hand-worked pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from cadiff.generator.setting import (
    Read,
    enlarged,
    exemplar_pixels,
    exposure_gain,
    fading,
    grain,
    has_exemplars,
    match_exposure,
    paste_exemplars,
    picture_of,
    reader,
    remove_defect,
    set_in,
)
from cadiff.generator.windows import Window, whole
from cadiff.masks.shapes import move_mask
from cadiff.params import Params
from cadiff.pictures import Picture, read_picture
from cadiff.records import SampleRow
from cadiff.scene import Anomaly, Movement, Outline, Scene

SIDE = 16
ALL = whole((SIDE, SIDE))


@pytest.fixture
def own() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:5, 3:8] = True
    return mask


def grey(value: float, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    return np.full((*shape, 3), value).astype(np.uint8)


def row_named(name: str, anomalous: bool = True) -> SampleRow:
    kind, mask = ("spot", f"{name}_mask.png") if anomalous else (None, None)
    return SampleRow(name, "hand", "part", kind, "exemplar" if anomalous else "normal", f"{name}.png", mask, SIDE, SIDE, "0")


def scene_of(*anomalies: Anomaly, picture: SampleRow | None = None, normal: SampleRow | None = None, **values: object) -> Scene:
    return Scene("part/spot/0", "part", anomalies, picture, normal, 0, 0, **values)  # type: ignore[arg-type]


def reading(**pictures: tuple[np.ndarray, np.ndarray]) -> Read:
    return lambda row: Picture(*pictures[row.sample_id])


def settled(params: Params, exposure: str = "own") -> Params:
    return params.model_copy(update={"train": params.train.model_copy(update={"exposure": exposure})})


def test_inside_the_mask_is_the_exemplar_outside_the_picture(own: np.ndarray, small_params: Params) -> None:
    exemplar, normal, moved = grey(50), grey(150), Movement(1.0, 0.0, False, (9.5 / SIDE, 11.5 / SIDE))
    exemplar[own] = [10, 20, 30]
    read, nothing = reading(spot=(exemplar, own), good=(normal, np.zeros_like(own))), row_named("good", False)
    mask = move_mask(own, moved, (SIDE, SIDE))
    assert (mask == np.roll(own, (6, 6), (0, 1))).all(), "the centroid at row 9 and column 11, pixel centres"

    def pasted(mask: np.ndarray, movement: Movement | None, exposure: str, window: Window = ALL) -> np.ndarray:
        scene = scene_of(Anomaly("spot", Outline.of(mask), 1.0, "", row_named("spot"), movement), picture=nothing, normal=nothing)
        return paste_exemplars(normal, window, scene, settled(small_params, exposure), read)

    assert (pasted(mask, moved, "own")[mask] == [10, 20, 30]).all()
    assert (pasted(mask, moved, "normals")[mask] == [30, 60, 90]).all(), "under the normal's light, three times as bright"
    assert (pasted(mask, moved, "normals")[~mask] == 150).all()
    assert (pasted(own, None, "own")[own] == [10, 20, 30]).all(), "as it lies"
    part = Window(7, 5, 6, 6)
    for exposure in ("own", "normals"):
        assert (pasted(mask, moved, exposure, part) == part.of(pasted(mask, moved, exposure))).all(), "a window of it is the same pixels"
        assert (pasted(own, None, exposure, part) == part.of(pasted(own, None, exposure))).all()
    assert (normal == 150).all(), "what it is set in is not written to"


def test_the_pixels_of_a_moved_exemplar_are_where_its_mask_has_them(own: np.ndarray, small_params: Params) -> None:
    """Turned and mirrored on a canvas of another shape: black around it, so that a pixel off would be seen."""
    exemplar, canvas = np.where(own[..., None], np.uint8([200, 100, 50]), np.uint8(0)), (20, 28)
    read, nothing = reading(spot=(exemplar, own), good=(grey(9, canvas), np.zeros(canvas, bool))), row_named("good", False)
    for turn, mirror, centre in ((0.0, False, (9.5, 10.5)), (np.pi / 2, False, (8.5, 7.5)), (0.0, True, (6.5, 18.5))):
        movement = Movement(1.0, turn, mirror, (centre[0] / 20, centre[1] / 28))
        mask = move_mask(own, movement, canvas)
        assert mask.sum() == own.sum()
        anomaly = Anomaly("spot", Outline.of(mask), 1.0, "", row_named("spot"), movement)
        scene = scene_of(anomaly, picture=nothing, normal=nothing)
        pixels = exemplar_pixels(anomaly, whole(canvas), scene, small_params, read)
        np.testing.assert_allclose(pixels[mask], np.broadcast_to([200, 100, 50], (15, 3)), atol=1e-2)
        assert Movement.of(movement.numbers()) == movement


def test_the_start_follows_the_intensity(own: np.ndarray, small_params: Params) -> None:
    """150 - 100 w inside the mask, 0 at least and the picture itself for w <= 0; two anomalies have each their own w."""
    other, row = np.roll(own, 8, 0), row_named("spot")
    read = reading(spot=(grey(50), own))
    for w, expected in ((-1.0, 150), (0.0, 150), (0.5, 100), (1.0, 50), (1.4, 10), (2.0, 0)):
        both = (Anomaly("spot", Outline.of(own), w, "", row), Anomaly("hole", Outline.of(other), 0.5, "", row))
        pasted = paste_exemplars(grey(150), ALL, scene_of(*both), small_params, read)
        assert (pasted[own] == expected).all(), w
        assert (pasted[other] == 100).all()
        assert (pasted[~own & ~other] == 150).all()
    assert has_exemplars(scene_of(*both))
    assert not has_exemplars(scene_of(both[0], Anomaly("hole", Outline.of(other), 0.5, "folder")))


def test_what_the_light_takes_beyond_white_is_white(own: np.ndarray, small_params: Params) -> None:
    exemplar, nothing = grey(50), row_named("good", False)
    exemplar[own] = 100
    read = reading(spot=(exemplar, own), good=(grey(150), np.zeros_like(own)))
    scene = scene_of(Anomaly("spot", Outline.of(own), 1.0, "", row_named("spot")), picture=nothing, normal=nothing)
    assert (paste_exemplars(grey(150), ALL, scene, settled(small_params, "normals"), read)[own] == 255).all()


def test_an_anomaly_is_no_part_of_the_light(own: np.ndarray, small_params: Params) -> None:
    """Grey levels: 50 around an anomaly of 25, under a light of 150, is 150 around 75."""
    exemplar, nothing = grey(50), row_named("good", False)
    exemplar[own] = 25
    assert exposure_gain(exemplar, own, grey(150, (30, 40))) == 3
    assert exposure_gain(exemplar, np.ones_like(own), grey(150)) == 1, "nothing around it to go by"
    read = reading(good=(grey(150), np.zeros_like(own)))
    scene = scene_of(Anomaly("spot", Outline.of(own), 1.0, ""), picture=row_named("spot"), normal=nothing)
    lit = match_exposure(exemplar, own, scene, settled(small_params, "normals"), read)
    assert (lit == np.where(own, 75, 150)[..., None]).all()
    assert match_exposure(exemplar, own, scene, settled(small_params), read) is exemplar
    large = np.repeat(np.repeat(exemplar, 40, 0), 40, 1)
    assert exposure_gain(large, np.repeat(np.repeat(own, 40, 0), 40, 1), grey(150, (900, 700))) == 3, "whatever the size"


def test_under_the_mask_is_what_lies_around_it(own: np.ndarray) -> None:
    """Of an even picture nothing is left of the anomaly; a ramp is mirrored at the mask's edge and levels out behind it."""
    spotted = grey(120)
    spotted[own] = [250, 0, 0]
    assert (remove_defect(spotted, own) == 120).all()
    assert (spotted[own] == [250, 0, 0]).all(), "a picture of its own"
    ramp = np.broadcast_to(6 * np.arange(40, dtype=np.uint8)[None, :, None], (40, 40, 3)).copy()
    band = np.zeros((40, 40), bool)
    band[:, 20:] = True
    row = remove_defect(ramp, band)[20, :, 0].astype(int)
    assert (row[:20] == ramp[20, :20, 0]).all(), "outside it is untouched"
    assert row[20:23] == pytest.approx([108, 102, 96], abs=3), "mirrored: 6 times 18, 17, 16"
    assert row[32:].min() > 60, "and not the mirror's 36 and less where nobody knows what was there"
    assert (remove_defect(ramp, np.ones_like(band)) == ramp).all(), "nothing to guess from"
    assert (remove_defect(ramp, ~band & band) == ramp).all()


def test_a_large_anomaly_leaves_the_grain_of_its_surroundings() -> None:
    picture, mask = noisy((160, 200), 7.0), np.zeros((160, 200), bool)
    mask[30:130, 40:160] = True
    picture[mask] = [255, 0, 0]
    filled = remove_defect(picture, mask).astype(float)
    assert (filled[~mask] == picture[~mask]).all()
    for inside in (filled[30:130, 40:46], filled[60:100, 80:120]):
        assert inside.mean((0, 1)) == pytest.approx([120] * 3, abs=3)
        assert inside.std((0, 1)) == pytest.approx([7] * 3, rel=0.25)


def test_a_scene_in_its_exemplars_place_is_set_in_that_picture_without_its_anomaly(
    small_params: Params, nut_samples: list[SampleRow]
) -> None:
    """Its surroundings are its own, w = 1 starts from the exemplar, w = 0 has none of it; an edit keeps what is there."""
    normal = next(row for row in nut_samples if row.role == "normal")
    read = reader(small_params)
    for row in (row for row in nut_samples if row.role == "exemplar"):
        image, mask = read_picture(row, 64)
        scene = scene_of(Anomaly(str(row.anomaly_type), Outline.of(mask), 1.0, "", row), picture=row, normal=normal)
        picture = picture_of(scene, small_params, read)
        assert picture is not None
        assert (picture[~mask] == image[~mask]).all()
        assert np.abs(picture[mask].astype(int) - image[mask]).mean() > 2
        assert (paste_exemplars(picture, whole(mask.shape), scene, small_params, read) == image).all()
        assert picture_of(dataclasses.replace(scene, edits=True), small_params, read) is read(row).image
        on_normal = dataclasses.replace(scene, picture=normal)
        assert picture_of(on_normal, small_params, read) is read(normal).image
    assert picture_of(dataclasses.replace(scene, picture=None, normal=None), small_params, read) is None


# ---- setting in


def noisy(shape: tuple[int, int], deviation: float, base: np.ndarray | float = 120.0, grey_only: bool = False) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, deviation, (*shape, 1 if grey_only else 3))
    return np.clip(base + noise, 0, 255).round().astype(np.uint8).repeat(3 if grey_only else 1, -1)


def seen_small(picture: np.ndarray, size: int) -> np.ndarray:
    """What a perfect base of ``size`` px would make of a window: its pixels' means."""
    factor = picture.shape[0] // size
    return picture.reshape(size, factor, size, factor, 3).mean((1, 3))


def middle(shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[shape[0] // 4 : -shape[0] // 4, shape[1] // 4 : -shape[1] // 4] = True
    return mask


def test_where_nothing_was_drawn_every_byte_is_the_pictures_inside_of_the_mask_too() -> None:
    rng, around = np.random.default_rng(1), np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    for size in (32, 48, 96):
        known = seen_small(around, size) + rng.normal(0, 20, (size, size, 3))  # whatever the autoencoder makes of it
        for blend in (0.0, 2.0, 7.5):
            assert (set_in(around, known.copy(), known, middle((96, 96)), blend, rng) == around).all()


def test_what_a_drawing_started_from_is_kept_whole_where_nothing_was_drawn() -> None:
    """A start that fades into the picture, as a blurred defect does, is not faded a second time; beyond it nothing is."""
    rng = np.random.default_rng(0)
    around, start = rng.integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    part, known = middle((96, 96)), rng.uniform(0, 255, (48, 48, 3))
    near = ndimage.distance_transform_edt(~part) <= 2
    mixed = set_in(around, known.copy(), known, part, 2.0, rng, start)
    assert (mixed[near] == start[near]).all()
    assert (mixed[~near] == around[~near]).all()


@pytest.mark.parametrize("blend", [0.0, 1.0, 2.0, 5.0])
def test_beyond_the_blend_every_byte_is_the_pictures(blend: float) -> None:
    around, part = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), np.zeros((64, 64), bool)
    part[20:30, 0:25] = part[50, 50] = True
    drawn = np.random.default_rng(1).uniform(0, 255, (32, 32, 3))
    mixed = set_in(around, drawn, seen_small(around, 32), part, blend, np.random.default_rng(2))
    rows, columns = np.nonzero(part)
    r, c = np.indices(part.shape)
    far = (np.hypot(r[..., None] - rows, c[..., None] - columns).min(-1)) > blend
    assert (mixed[far] == around[far]).all()
    assert (mixed[part] != around[part]).any(-1).mean() > 0.9
    assert (mixed[~far & ~part] != around[~far & ~part]).any() == (blend >= 1), "0 px is not no blending: it is the mask's edge"


def test_fading_is_linear_in_the_distance() -> None:
    part = np.zeros((9, 9), bool)
    part[4, 4] = True
    assert fading(part, 2.0)[4].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0, 0])
    assert fading(part, 1.0)[4].tolist() == pytest.approx([0, 0, 0, 0.5, 1, 0.5, 0, 0, 0])
    assert (fading(part, 0.0) == part).all()
    assert not fading(~part & part, 2.0).any(), "nothing to draw: nothing changes"


def test_what_was_drawn_is_there_and_takes_the_pictures_grain_but_not_its_edge() -> None:
    """A flat field over an edge from 60 to 180: in it no column stands out, and its noise is as loud as that around it."""
    step, deviation = np.where(np.arange(128) < 64, 60.0, 180.0)[None, :, None], 6.0
    around = noisy((128, 128), deviation, ndimage.gaussian_filter1d(np.broadcast_to(step, (128, 128, 3)), 0.7, axis=1))
    blurred = ndimage.gaussian_filter(around.astype(float), (1.5, 1.5, 0))  # an autoencoder softens what it gives back
    known, part = seen_small(blurred, 64), middle((128, 128))
    lost = (around - enlarged(known, (128, 128)))[40:88].mean((0, 2))
    assert np.abs(lost[60:68]).max() > 15, "the edge is in what was lost, or the test proves nothing"
    drawn = known.copy()
    drawn[16:48, 16:48] = 100.0
    mixed = set_in(around, drawn, known, part, 0.0, np.random.default_rng(0)).astype(float)
    inside = mixed[40:88, 40:88]
    assert np.abs(inside.mean((0, 2)) - 100).max() < 4
    assert np.abs(inside.mean((1, 2)) - 100).max() < 4
    surroundings = around[:, 8:24].astype(float)
    assert inside.std((0, 1)).mean() == pytest.approx(surroundings.std((0, 1)).mean(), rel=0.2)
    assert np.abs(np.corrcoef((inside - 100)[..., 0].ravel(), (around[40:88, 40:88] - blurred[40:88, 40:88])[..., 0].ravel())[0, 1]) < 0.1


def test_a_large_anomaly_is_as_grained_as_its_surroundings_however_much_the_window_was_shrunk() -> None:
    around = noisy((256, 256), 6.0)
    known, part = seen_small(around, 32), middle((256, 256))
    drawn = known.copy()
    drawn[8:24, 8:24] = [40.0, 90.0, 140.0]
    mixed = set_in(around, drawn, known, part, 2.0, np.random.default_rng(0)).astype(float)
    inside, outside = mixed[80:176, 80:176], mixed[:50]
    assert inside.mean((0, 1)).tolist() == pytest.approx([40, 90, 140], abs=2)
    assert inside.std((0, 1)) == pytest.approx(outside.std((0, 1)), rel=0.2)


def test_at_the_bases_own_scale_what_was_drawn_is_kept() -> None:
    """Nothing was lost but what the autoencoder takes: with a perfect one inside of the mask is what was drawn, to the byte."""
    around, drawn = noisy((64, 64), 10.0), np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(float)
    part = middle((64, 64))
    mixed = set_in(around, drawn, around.astype(float), part, 0.0, np.random.default_rng(0))
    assert (mixed[part] == drawn[part]).all()


def test_grain_has_the_residuals_robust_deviation_in_each_channel_and_none_of_its_edges() -> None:
    rng = np.random.default_rng(0)
    lost = rng.normal(0, [2.0, 4.0, 8.0], (200, 300, 3))
    lost[:, 140:146] += 90.0
    lost[60:64] -= 60.0
    made = grain(lost, np.random.default_rng(1))
    assert made.shape == lost.shape
    assert made.std((0, 1)) == pytest.approx([2, 4, 8], rel=0.1)
    assert (np.abs(made).max((0, 1)) < 6 * np.array([2, 4, 8])).all()
    for axis in (0, 1):
        profile = made.mean(axis) / [2, 4, 8]
        assert np.abs(profile).max() < 1, "a line that stands out"
    assert not (grain(lost, np.random.default_rng(2)) == made).any(), "other noise, other grain"


def test_grain_has_the_residuals_spectrum() -> None:
    """Noise of one width stays noise of that width: neighbours are as alike as they were."""
    soft = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(300, 300, 3)), (2, 2, 0))
    made = grain(soft, np.random.default_rng(1))

    def alike(values: np.ndarray) -> float:
        return float(np.corrcoef(values[:, :-3, 0].ravel(), values[:, 3:, 0].ravel())[0, 1])

    assert alike(made) == pytest.approx(alike(soft), abs=0.05)
    assert alike(soft) > 0.4


def test_where_nothing_was_lost_there_is_no_grain() -> None:
    assert not grain(np.zeros((40, 60, 3)), np.random.default_rng(0)).any()
    flat = grey(99, (64, 64))
    drawn = np.full((32, 32, 3), 20.0)
    mixed = set_in(flat, drawn, np.full((32, 32, 3), 99.0), middle((64, 64)), 0.0, np.random.default_rng(0))
    assert (mixed == np.where(middle((64, 64)), 20, 99)[..., None]).all()


def test_a_grey_window_stays_grey() -> None:
    around = noisy((96, 96), 8.0, grey_only=True)
    drawn = np.random.default_rng(1).uniform(0, 255, (48, 48, 1)).repeat(3, -1)
    mixed = set_in(around, drawn, seen_small(around, 48), middle((96, 96)), 3.0, np.random.default_rng(2))
    assert (mixed == mixed[..., :1]).all()
    assert (mixed != around).any()
