"""The one function that draws scenes, on a small random base with real components: what it changes, and what it must not."""

from __future__ import annotations

import copy
import dataclasses
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from parameters import bare
from pydantic import ValidationError
from scipy import ndimage

from cadiff.backbone import Backbone, load_backbone
from cadiff.data.images import to_tensor, to_uint8
from cadiff.errors import CADiffError, UsageError
from cadiff.generator import Generator, draw, draw_scenes, generated_row
from cadiff.generator.reweighting import Reading
from cadiff.generator.seen import FILLED, fulfilled
from cadiff.generator.setting import reader
from cadiff.generator.train import new_generator
from cadiff.generator.windows import pieces
from cadiff.params import Params
from cadiff.records import ATTEMPTS, GENERATED_SCHEMA, SCENE_SCHEMA, SampleRow, SceneRow, from_table, to_table
from cadiff.scene import Anomaly, Movement, Outline, Scene
from cadiff.seeds import derive_seed
from cadiff.storage import decode_image, sha256_bytes, write_image

SIZE = 64
Write = Callable[..., SampleRow]


@pytest.fixture(scope="module")
def generator(tiny_base: Path) -> Generator:
    """Random weights throughout; the control's zero layers too, so that it acts."""
    params = bare(products={"part": {}}, base={"path": str(tiny_base), "size": SIZE, "device": "cpu"})
    made = new_generator(params, "part", ["rust", "chip"], load_backbone(params.base))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (*made.control.parameters(), made.tokens.vectors):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.fixture
def params(windowed_params: Params) -> Params:
    """Pictures as they are."""
    return changed(windowed_params, dataset={"size": "native"}, generate={"steps": 2})


def changed(params: Params, **sections: dict[str, object]) -> Params:
    """These parameters with others in some sections, checked."""
    values = params.model_dump()
    return Params(**{**values, **{name: {**values[name], **own} for name, own in sections.items()}})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(shape: tuple[int, int], seed: int = 0, mask: np.ndarray | None = None, grey: bool = False) -> SampleRow:
        """A picture of smooth patches with grain, with the row that names it; an exemplar where it has a mask."""
        rng = np.random.default_rng(seed)
        smooth = ndimage.gaussian_filter(rng.normal(size=(*shape, 3)), (8, 8, 0))
        pixels = np.clip(120 + 40 * smooth / smooth.std() + rng.normal(0, 5, (*shape, 3)), 0, 255).astype(np.uint8)
        if grey:
            pixels = pixels[..., :1].repeat(3, -1)
        path = tmp_path / f"{shape[0]}x{shape[1]}-{seed}.png"
        write_image(path, pixels)
        kind, role, mask_path = None, "normal", None
        if mask is not None:
            kind, role, mask_path = "rust", "exemplar", str(path.with_suffix(".mask.png"))
            write_image(mask_path, mask.astype(np.uint8) * 255)
        return SampleRow(path.stem, "hand", "part", kind, role, str(path), mask_path, shape[1], shape[0], "0")  # type: ignore[arg-type]

    return written


def pixels_of(row: SampleRow) -> np.ndarray:
    return decode_image(Path(row.image_path).read_bytes(), "RGB")


def box(shape: tuple[int, int], top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def scene_on(row: SampleRow | None, *anomalies: tuple[str, np.ndarray, float], name: str = "0", **values: object) -> Scene:
    own = tuple(Anomaly(kind, Outline.of(mask), w, "hand") for kind, mask, w in anomalies)
    return Scene(f"part/rust/{name}", "part", own, row, row, int(name), 3, **values)  # type: ignore[arg-type]


def varied(write: Write) -> list[Scene]:
    """In everything: shapes, types, number of masks and windows, one at an edge, of one pixel, far apart, larger than any window."""
    small, wide, tall, large = (128, 128), (96, 300), (210, 100), (150, 240)
    speck = box(small, 90, 17, 91, 18)
    return [
        scene_on(write(small, 0), ("rust", box(small, 40, 40, 60, 60), 1.0), name="0"),
        scene_on(write(wide, 1), ("rust", box(wide, 0, 290, 10, 300), 1.0), ("chip", box(wide, 80, 4, 90, 14), 1.5), name="1"),
        scene_on(write(small, 2), ("chip", speck, 0.7), name="2"),
        scene_on(write(tall, 3), ("rust", box(tall, 5, 45, 205, 52), 1.0), name="3"),
        scene_on(write(large, 4), ("chip", box(large, 20, 40, 120, 170), 1.2), ("rust", box(large, 60, 60, 80, 90), 0.8), name="4"),
        scene_on(write(wide, 5), ("rust", box(wide, 20, 20, 40, 60), 1.0), name="5", named=False),
    ]  # fmt: skip


@pytest.mark.parametrize("blend", [0.0, 2.0])
def test_outside_of_mask_and_blend_every_byte_is_the_pictures(generator: Generator, params: Params, write: Write, blend: float) -> None:
    """And inside of it something was drawn; the picture, never a window of it, comes back."""
    scenes = varied(write)
    for scene, drawn in zip(scenes, draw_scenes(generator, changed(params, generate={"blend": blend}), scenes), strict=True):
        assert scene.picture is not None
        real = pixels_of(scene.picture)
        assert drawn.image.shape == real.shape
        assert drawn.image.dtype == np.uint8
        near = ndimage.distance_transform_edt(~scene.mask) <= blend
        different = (drawn.image != real).any(-1)
        assert not different[~near].any(), scene.scene_id
        for anomaly in scene.anomalies:
            assert different[anomaly.mask].mean() > 0.5, (scene.scene_id, anomaly.anomaly_type)
        assert different[near & ~scene.mask].any() == (blend > 0), "a margin of 0 is not none, and not all"


def test_a_large_mask_is_gone_over_at_the_bases_own_scale(generator: Generator, params: Params, write: Write) -> None:
    """Drawn once in a window of 150 px, then in overlapping ones of 64 px; one drawn at less than twice the base's scale is not."""
    large, small = (150, 240), (128, 128)
    scenes = [scene_on(write(large, 4), ("rust", box(large, 30, 60, 110, 160), 1.0)),
              scene_on(write(small), ("rust", box(small, 30, 30, 94, 94), 1.0))]  # fmt: skip
    assert [pieces(scene.mask, params.window, SIZE)[0].window.scale(SIZE) for scene in scenes] == [150 / 64, 2.0]
    coarse, fine = draw_scenes(generator, params, scenes)
    assert coarse.windows == 1 + 2 * 2, "80 x 100 px in windows of 64 px, two along each axis"
    assert fine.windows == 1


def test_a_scene_has_the_same_bytes_whatever_it_is_drawn_with(generator: Generator, params: Params, write: Write) -> None:
    scenes = varied(write)
    together = draw_scenes(generator, params, scenes)
    turned = draw_scenes(generator, params, scenes[::-1])[::-1]
    for k, scene in enumerate(scenes):
        (alone,) = draw_scenes(generator, params, [scene])
        for other in (together[k], turned[k]):
            assert (alone.image == other.image).all(), scene.scene_id
            assert (alone.prompt, alone.since, alone.attempts, alone.windows) == (other.prompt, other.since, other.attempts, other.windows)
    assert len({drawn.image.tobytes() for drawn in together}) == len(scenes)
    (other,) = draw_scenes(generator, params, [dataclasses.replace(scenes[0], seed=99)])
    assert (other.image != together[0].image).any()


def test_masks_far_from_each_other_have_a_window_each_with_its_own_type(generator: Generator, params: Params, write: Write) -> None:
    """The prompt is the first window's; what is drawn in the second depends neither on the first's w nor on its mask."""
    shape = (96, 400)
    far = box(shape, 60, 370, 80, 390)
    row, near = write(shape), box(shape, 10, 10, 30, 30)
    one = scene_on(row, ("rust", near, 1.0), ("chip", far, 1.0))
    both, other = draw_scenes(generator, params, [one, one.at({"rust": 0.0, "chip": 1.0})], again=False)
    assert both.windows == 2
    assert both.prompt == generator.prompt(["rust"], 3).text
    assert (both.image[far] == other.image[far]).all()
    assert (both.image[near] != other.image[near]).any()


def test_a_grey_picture_comes_back_grey(generator: Generator, params: Params, write: Write) -> None:
    """With a base that knows the product has no colour, as its adaptation records; else the drawing would be coloured."""
    shape, large = (100, 160), (150, 240)
    scenes = [scene_on(write(shape, 7, grey=True), ("rust", box(shape, 20, 30, 60, 90), 1.0)),
              scene_on(write(large, 8, grey=True), ("chip", box(large, 20, 40, 120, 140), 1.0), name="1")]  # fmt: skip
    grey = dataclasses.replace(generator, backbone=dataclasses.replace(generator.backbone, grey=True))
    for drawn in draw_scenes(grey, params, scenes):
        assert (drawn.image == drawn.image[..., :1]).all()
    assert any((drawn.image != drawn.image[..., :1]).any() for drawn in draw_scenes(generator, params, scenes))


def test_the_whole_picture_is_a_window_and_a_margin_cuts_it_too(generator: Generator, params: Params, write: Write) -> None:
    """Not square: brought to the base's square and back. Without a margin all of it is what was drawn."""
    shape = (96, 150)
    scene = scene_on(write(shape), ("rust", box(shape, 20, 20, 60, 70), 1.0))
    real, cut = pixels_of(scene.picture), changed(params, window={"cut": "whole"})  # type: ignore[arg-type]
    (kept,) = draw_scenes(generator, cut, [scene])
    assert kept.image.shape == real.shape
    assert not (kept.image != real).any(-1)[ndimage.distance_transform_edt(~scene.mask) > 2].any()
    (everything,) = draw_scenes(generator, changed(cut, generate={"blend": None}), [scene])
    assert everything.image.shape == real.shape
    assert (everything.image != real).any(-1)[~scene.mask].mean() > 0.9


def test_without_a_picture_all_of_it_is_drawn(generator: Generator, params: Params) -> None:
    settings = changed(params, window={"cut": "whole"}, generate={"background": "generated"}, dataset={"size": 80})
    (drawn,) = draw_scenes(generator, settings, [scene_on(None, ("rust", box((80, 130), 10, 10, 30, 40), 1.0))])
    assert drawn.image.shape == (80, 130, 3)
    assert drawn.image.std() > 1
    assert generated_row(generator, settings, drawn).normal_id is None


def test_what_is_not_seen_is_drawn_again_three_times_at_most_and_counted(generator: Generator, params: Params, write: Write) -> None:
    """A base whose decoder gives the same whatever the latents draws nothing that one could see. Rows keep the last noise, and a count
    beyond the drawings that there were: one that was seen at last has another."""
    vae = copy.deepcopy(generator.backbone.vae)
    torch.nn.init.zeros_(vae.decoder.conv_out.weight)
    blank = dataclasses.replace(generator, backbone=dataclasses.replace(generator.backbone, vae=vae))
    shape = (128, 128)
    row, mask = write(shape), box(shape, 40, 40, 60, 60)
    strong, weak = scene_on(row, ("rust", mask, 1.0)), scene_on(row, ("rust", mask, 0.4), name="1")
    asked_nothing = scene_on(row, ("rust", mask, 1.0), name="2", named=False)
    edit = scene_on(row, ("rust", mask, 1.0), name="3", edits=True)
    drawn = draw_scenes(blank, params, [strong, weak, asked_nothing, edit])
    assert [one.attempts for one in drawn] == [ATTEMPTS + 1, 1, 1, 1], "w < 0.5, normals and edits are not asked to be seen"
    assert all((one.image == pixels_of(row)).all() for one in drawn)
    rows = [generated_row(blank, params, one) for one in drawn]
    assert [row.attempts for row in rows] == [ATTEMPTS + 1, 1, 1, 1]
    assert rows[0].seed == derive_seed(derive_seed(strong.seed, "again"), "again")
    assert rows[1].seed == weak.seed
    assert draw_scenes(blank, params, [strong], again=False)[0].attempts == 1, "where scenes are to share their noise"
    assert draw_scenes(generator, params, [strong])[0].attempts == 1, "seen at once"


@pytest.mark.parametrize(("shares", "attempts", "kept"), [([0.2, 0.5, 1.0], 3, 2), ([0.2, 0.6, 0.4], 4, 1), ([0.3, 0.3, 0.3], 4, 2)])
def test_the_first_drawing_that_has_all_or_else_the_best_is_kept(
    generator: Generator, params: Params, write: Write, monkeypatch: pytest.MonkeyPatch, shares: list[float], attempts: int, kept: int
) -> None:
    """The second look is told what to find; pictures, noise and counts are those of the drawing that is kept."""
    looks: list[tuple[int, np.ndarray]] = []

    def look(scene: Scene, original: object, image: np.ndarray, *rest: object) -> float:
        looks.append((scene.seed, image.copy()))
        return shares[len(looks) - 1]

    monkeypatch.setattr(draw, "fulfilled", look)
    shape = (128, 128)
    scene = scene_on(write(shape), ("rust", box(shape, 40, 40, 60, 60), 1.0))
    (drawn,) = draw_scenes(generator, params, [scene])
    assert (drawn.attempts, len(looks)) == (attempts, ATTEMPTS)
    assert drawn.scene.seed == looks[kept][0]
    assert (drawn.image == looks[kept][1]).all()
    assert len({seed for seed, _ in looks}) == ATTEMPTS


def test_what_fills_less_of_its_mask_than_its_exemplar_does_lacks_something(params: Params, write: Write) -> None:
    """An exemplar that fills all of its mask, a drawing that fills a given share of its own, on an even picture: by hand. One that starts
    from its exemplar is not asked, nor one without; an exemplar that fills half asks for half."""
    shape = (128, 128)
    row, mask = write(shape), box(shape, 40, 20, 48, 100)
    grey = np.full((*shape, 3), 120, np.uint8)
    read = reader(params)

    def exemplar(share: float) -> SampleRow:
        found = write(shape, seed=round(100 * share), mask=mask)
        image = grey.copy()
        image[40:48, 20 : 20 + round(80 * share)] = 20
        write_image(found.image_path, image)
        return found

    def drawn(share: float, w: float, of: SampleRow | None, from_noise: bool = True) -> float:
        scene = scene_on(row, ("rust", mask, w))
        scene = dataclasses.replace(scene, anomalies=(dataclasses.replace(scene.anomalies[0], exemplar=of),))
        image = grey.copy()
        image[40:48, 20 : 20 + round(80 * share)] = 20
        return fulfilled(scene, grey, image, params, read, from_noise)

    full, half = exemplar(1.0), exemplar(0.5)
    assert drawn(1.0, 1.0, full) == drawn(0.95, 1.0, full) == 1
    assert 0.5 / FILLED <= drawn(0.5, 1.0, full) <= 0.65 / FILLED, "an edge is felt a few pixels beyond it"
    assert drawn(0.5, 0.5, full) == 1, "w times as faint"
    assert drawn(0.5, 1.0, half) == 1
    assert drawn(0.5, 1.0, None) == drawn(0.5, 1.0, full, from_noise=False) == 1
    assert drawn(0.0, 1.0, None) == 0


class Fixed(Backbone):
    """Draws a dark square on a light backdrop, at the upper left, whatever it is asked for."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        drawn = torch.full((len(latents), 3, SIZE, SIZE), 0.6)
        drawn[:, :, 8:36, 8:36] = -0.6
        return drawn


def test_a_mask_beside_the_product_that_was_drawn_is_drawn_again_and_counted(
    generator: Generator, params: Params, write: Write
) -> None:
    """Nothing of the normal that a mask was placed on is kept with ``background: generated``. Where a part is missing an exemplar's mask
    lies off its own product too, and may."""
    settings = changed(params, window={"cut": "whole"}, generate={"background": "generated"}, dataset={"size": SIZE})
    fixed = dataclasses.replace(generator, backbone=Fixed(**vars(generator.backbone)))
    shape = (SIZE, SIZE)
    on, half, off = (box(shape, top, 12, top + 12, 24) for top in (14, 29, 48))
    scenes = [scene_on(None, ("rust", mask, 1.0), name=str(k)) for k, mask in enumerate((on, half, off))]
    drawn = draw_scenes(fixed, settings, scenes)
    assert [one.attempts for one in drawn] == [1, 1, ATTEMPTS + 1], "up to masks.max_cut, a half, may lie beside it"
    assert drawn[2].scene.seed == derive_seed(derive_seed(scenes[2].seed, "again"), "again")
    assert draw_scenes(fixed, settings, [scenes[2]], again=False)[0].attempts == 1
    strict = changed(settings, masks={"max_cut": 0.0})
    assert [one.attempts for one in draw_scenes(fixed, strict, scenes[:2])] == [1, ATTEMPTS + 1]
    exemplar = write(shape, mask=off)
    write_image(exemplar.image_path, to_uint8(fixed.backbone.decode(torch.zeros(1, 4, 8, 8)))[0])
    missing = dataclasses.replace(scenes[2], anomalies=(dataclasses.replace(scenes[2].anomalies[0], exemplar=exemplar),))
    assert draw_scenes(fixed, settings, [missing])[0].attempts == 1


def test_drawing_starts_from_the_exemplar_of_its_mask_where_asked(
    generator: Generator, params: Params, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first latents that the networks see are those of the window with the exemplar in the mask, fading out beside it, noised by the
    scene's own noise."""
    shape = (128, 128)
    mask = box(shape, 50, 40, 70, 80)
    exemplar, row = write(shape, 11, mask), write(shape, 12)
    bare = scene_on(row, ("rust", mask, 1.0), name="5")
    whole = dataclasses.replace(bare, anomalies=(dataclasses.replace(bare.anomalies[0], exemplar=exemplar),))
    own, seen = generator.control.denoise, []

    def watched(unet: torch.nn.Module, noisy: torch.Tensor, t: torch.Tensor, text: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        seen.append((noisy[0], int(t)))
        return own(unet, noisy, t, text, control)

    monkeypatch.setattr(generator.control, "denoise", watched)

    def start(scene: Scene, **settings: object) -> torch.Tensor:
        seen.clear()
        draw_scenes(generator, changed(params, generate={"steps": 10, "start": "background", "strength": 0.2, **settings}), [scene])
        noisy, t = seen[0]
        noise, alpha = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(5)), generator.backbone.schedule.alphas_cumprod[t]
        return noisy if torch.equal(noisy, noise) else (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()

    def latents(picture: np.ndarray) -> torch.Tensor:
        window = pieces(mask, params.window, SIZE)[0].window
        return generator.backbone.encode(to_tensor(window.picture(picture, SIZE)[None]))[0]

    rows, columns = np.indices(shape)
    away = np.hypot(np.maximum(50 - rows, rows - 69).clip(0), np.maximum(40 - columns, columns - 79).clip(0))
    share = np.where(away <= 2, 1 - away / 3, 0.0)[..., None]  # generate.blend: 2

    def planted(w: float) -> np.ndarray:
        mixed = pixels_of(row) + w * share * (pixels_of(exemplar).astype(float) - pixels_of(row))
        return mixed.clip(0, 255).round().astype(np.uint8)

    for w in (0.0, 0.5, 1.0):
        torch.testing.assert_close(start(whole.at(w), start="exemplar"), latents(planted(w)), atol=1e-4, rtol=1e-3)
    assert (latents(planted(1.0)) - latents(planted(0.0))).abs().max() > 0.01, "or it proves nothing"
    torch.testing.assert_close(start(whole), latents(pixels_of(row)), atol=1e-4, rtol=1e-3)
    asked_nothing = dataclasses.replace(whole, named=False)
    torch.testing.assert_close(start(asked_nothing, start="exemplar"), latents(pixels_of(row)), atol=1e-4, rtol=1e-3)
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5))
    assert torch.equal(start(bare, start="exemplar"), noise), "a mask from a folder has no exemplar"
    assert torch.equal(start(whole, start="noise"), noise)


def test_readings_are_of_the_first_windows_and_belong_to_their_scenes(generator: Generator, params: Params, write: Write) -> None:
    scenes, readings = varied(write)[:2], list[Reading]()
    draw_scenes(generator, params, scenes, readings.append)
    assert {image for reading in readings for image in reading.images} == {0, 1}
    assert {reading.step for reading in readings} == {0, 1}
    assert len(readings) == 2, "two steps of one batch, whatever windows come after"


def test_rows_tell_where_everything_came_from(generator: Generator, params: Params, write: Write) -> None:
    shape = (128, 128)
    mask = box(shape, 50, 40, 70, 80)
    exemplar, normal = write(shape, 21, mask), write(shape, 22)
    anomaly = Anomaly("rust", Outline.of(mask), 1.0, "exemplars", exemplar, None)
    plain = Scene("part/rust/7", "part", (anomaly,), normal, normal, 5, 0)
    in_place = dataclasses.replace(plain, picture=exemplar, scene_id="part/rust/8")
    redrawn = dataclasses.replace(plain, named=False, scene_id="part/good/1-redrawn")
    chip = Anomaly("chip", Outline.of(box(shape, 0, 0, 9, 9)), 0.6, "folder")
    two = dataclasses.replace(plain, anomalies=(anomaly, chip), scene_id="part/rust/9")
    rows = [generated_row(generator, params, one) for one in draw_scenes(generator, params, [plain, in_place, redrawn, two])]
    assert [row.normal_id for row in rows] == [normal.sample_id, None, normal.sample_id, normal.sample_id]
    assert [row.exemplar_ids for row in rows] == [[exemplar.sample_id], [exemplar.sample_id], [], [exemplar.sample_id, None]]
    assert [row.anomaly_types for row in rows] == [["rust"], ["rust"], [], ["rust", "chip"]]
    assert [row.intensity for row in rows] == [1.0, 1.0, None, None]
    assert [row.mask_source for row in rows] == ["exemplars", "exemplars", "redrawn", "exemplars + folder"]
    for row, scene in zip(rows, (plain, in_place, redrawn, two), strict=True):
        found = decode_image(row.mask["bytes"], "L")
        assert (found == scene.mask * 255).all()
        assert row.image_sha256 == sha256_bytes(row.image["bytes"])
    assert to_table(rows, GENERATED_SCHEMA).num_rows == 4


def test_a_scene_comes_back_from_its_row(write: Write) -> None:
    shape = (40, 60)
    exemplar, normal = write(shape, 31, box(shape, 2, 3, 9, 20)), write(shape, 32)
    movement = Movement(1.25, -0.5, True, (0.25, 0.75))
    anomalies = (Anomaly("rust", Outline.of(box(shape, 5, 6, 9, 10)), -0.5, "exemplars, by context", exemplar, movement),
                 Anomaly("chip", Outline.of(box(shape, 30, 6, 33, 59)), 1.5, "folder"))  # fmt: skip
    scenes = [Scene("part/rust/1", "part", anomalies, exemplar, normal, 2**60, 7),
              Scene("part/rust/2", "part", anomalies[1:], None, None, 3, 0, named=False)]  # fmt: skip
    by_id = {row.sample_id: row for row in (exemplar, normal)}
    table = to_table([scene.row() for scene in scenes], SCENE_SCHEMA)
    for scene, row in zip(scenes, from_table(table, SceneRow), strict=True):
        found = Scene.of(row, by_id)
        for field in dataclasses.fields(Scene):
            if field.name != "anomalies":
                assert getattr(found, field.name) == getattr(scene, field.name), field.name
        for one, other in zip(found.anomalies, scene.anomalies, strict=True):
            assert (one.mask == other.mask).all()
            assert dataclasses.replace(one, outline=other.outline) == other
    with pytest.raises(CADiffError, match=f"{normal.sample_id} is not among the product's normals and exemplars. Rerun the scenes stage"):
        Scene.of(scenes[0].row(), {exemplar.sample_id: exemplar})


def test_a_scene_speaks_of_all_its_masks() -> None:
    shape = (20, 20)
    one, other = box(shape, 0, 0, 5, 5), box(shape, 3, 3, 8, 8)
    scene = scene_on(None, ("rust", one, 1.0), ("rust", other, 0.5), ("chip", box(shape, 9, 9, 10, 10), 2.0))
    assert scene.mask.sum() == 25 + 25 - 4 + 1
    assert (scene.types, scene.intensities, scene.source) == (("rust", "rust", "chip"), (1.0, 0.5, 2.0), "hand")
    assert scene.at(0.25).intensities == (0.25,) * 3
    assert scene.at({"rust": -1.0, "chip": 1.5}).intensities == (-1.0, -1.0, 1.5)


def test_an_outline_is_its_mask() -> None:
    """Wherever it lies, in every window of its canvas, whether it was cut from the whole or from a part of it; also an empty one."""
    rng, shape = np.random.default_rng(0), (13, 17)
    for share in (0.0, 0.004, 0.02, 0.5, 1.0):
        mask = rng.random(shape) < share
        part = Outline.of(mask[3:11, 2:15], (3, 2), shape)
        for outline, expected in ((Outline.of(mask), mask), (part, mask & box(shape, 3, 2, 11, 15))):
            assert np.array_equal(outline.whole, expected)
            assert outline.area == outline.crop.sum() == expected.sum()
            assert not outline.crop.size or (outline.crop[0].any() and outline.crop[-1].any() and outline.crop[:, [0, -1]].any(0).all())
            for top, left, bottom, right in ((0, 0, 13, 17), (0, 0, 1, 1), (5, 6, 9, 9), (12, 16, 13, 17), (4, 0, 4, 3)):
                assert np.array_equal(outline.within(top, left, bottom - top, right - left), expected[top:bottom, left:right])


def test_scenes_hold_what_their_masks_cover_and_not_their_canvases(write: Write) -> None:
    """A hundred masks of 200 px at a canvas of 4096 px: 1.7 GB if each were held whole."""
    canvas = (4096, 4096)
    row = dataclasses.replace(write((8, 8)), width=4096, height=4096)
    mask = np.zeros(canvas, bool)
    mask[1000:1200, 3000:3200] = True
    told = scene_on(row, ("rust", mask, 1.0)).row()
    tracemalloc.start()
    scenes = [Scene.of(told, {row.sample_id: row}) for _ in range(100)]
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100 * 2 * 200 * 200
    assert most < 6 * mask.nbytes, "one is decoded at a time"
    assert scenes[0].mask.sum() == 200 * 200


def test_a_picture_smaller_than_what_the_base_draws_is_one_clear_line(generator: Generator, params: Params, write: Write) -> None:
    shape = (60, 300)
    scene = scene_on(write(shape), ("rust", box(shape, 10, 10, 20, 20), 1.0))
    expected = r"60x300-0.png: 300 x 60 px, smaller than what the base draws \(base.size: 64\); set dataset.size: 64"
    with pytest.raises(UsageError, match=expected):
        draw_scenes(generator, params, [scene])
    enlarged = changed(params, dataset={"size": 64})
    larger = scene_on(scene.picture, ("rust", box((64, 320), 10, 10, 20, 20), 1.0))
    assert draw_scenes(generator, enlarged, [larger])[0].image.shape == (64, 320, 3), "as the line says"


def test_settings_that_leave_no_room_are_one_clear_line(params: Params) -> None:
    with pytest.raises(ValidationError, match=r"dataset.size: expected at least base.size \(64\), which is what the base draws, found 63"):
        changed(params, dataset={"size": 63})
    with pytest.raises(ValidationError, match=r"generate.blend: expected a number of px with recipe.window.cut: around"):
        changed(params, generate={"blend": None})
    with pytest.raises(ValidationError, match=r"window.cut: expected whole with recipe.generate.background: generated"):
        changed(params, generate={"background": "generated"})
    assert changed(params, generate={"blend": 0}).generate.blend == 0
