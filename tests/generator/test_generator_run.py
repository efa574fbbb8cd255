"""Adaptation, training, resuming and sampling on a small random base with real components."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupting import interrupted

from cadiff.backbone import load_backbone
from cadiff.checkpoint import Pace
from cadiff.data.images import to_tensor, to_uint8
from cadiff.errors import CADiffError
from cadiff.generator import adapt_base, generate_shards, load_adapted, load_generator, train_generator
from cadiff.generator.adapt import velocity_or_noise
from cadiff.generator.examples import Shown, draw_view
from cadiff.generator.joint import joint_loss
from cadiff.generator.sample import Request, sample
from cadiff.generator.train import learning_rates, new_generator
from cadiff.masks import make_scenes
from cadiff.params import Params
from cadiff.pictures import resize_picture
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.scene import Scene
from cadiff.seeds import torch_generator
from cadiff.storage import decode_image, read_image, read_json, read_metadata, read_table, sha256_folder, write_image, write_json
from cadiff.task import Task


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def trained(folders: Path, small_params: Params, nut_samples: list[SampleRow]) -> Path:
    if not (folders / "generator" / "generator.json").exists():
        adapt_base(Task(small_params, "nut", samples=nut_samples), folders / "adapted", folders / "work-a")
        train_generator(Task(small_params, "nut", "cadiff", nut_samples), folders / "adapted", folders / "generator", folders / "work-t")
    return folders


def shards(params: Params, samples: list[SampleRow], trained: Path, scenes: list[Scene], root: Path) -> Path:
    out, made = root / "out", (trained / "adapted", trained / "generator")
    generate_shards(Task(params, "nut", "cadiff", samples), *made, scenes, out, root / "work")
    return out


def changed(params: Params, **sections: dict[str, object]) -> Params:
    return params.model_copy(update={name: getattr(params, name).model_copy(update=values) for name, values in sections.items()})


def test_both_learning_rates_decay_together_or_not_at_all(small_params: Params) -> None:
    def rates(decay: str, step: int) -> tuple[float, float]:
        params = small_params.model_copy(
            update={
                "train": small_params.train.model_copy(update={"steps": 100, "decay": decay}),
                "prompt": small_params.prompt.model_copy(update={"learning_rate": 4.0}),
                "control": small_params.control.model_copy(update={"learning_rate": 1.0}),
            }
        )
        return learning_rates(params, step, 100)

    assert [rates("none", step) for step in (0, 50, 99)] == [(4.0, 1.0)] * 3
    assert rates("cosine", 0) == pytest.approx((0.2, 0.05))  # the first of 20 steps of warm-up
    assert rates("cosine", 20) == pytest.approx((4.0, 1.0))
    assert rates("cosine", 60) == pytest.approx((2.04, 0.51))  # half of the way: the mean of 1 and 0.02
    assert rates("cosine", 99) == pytest.approx((0.08, 0.02), rel=0.1)


def test_two_trainings_give_the_same_bytes(trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    train_generator(Task(small_params, "nut", "cadiff", nut_samples), trained / "adapted", tmp_path / "again", tmp_path / "work")
    assert sha256_folder(tmp_path / "again") == sha256_folder(trained / "generator")


def test_a_stopped_training_goes_on_to_the_same_bytes(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    with interrupted(3):
        train_generator(Task(small_params, "nut", "cadiff", nut_samples), trained / "adapted", tmp_path / "out", tmp_path / "work")
    train_generator(Task(small_params, "nut", "cadiff", nut_samples), trained / "adapted", tmp_path / "out", tmp_path / "work")
    assert sha256_folder(tmp_path / "out") == sha256_folder(trained / "generator")


@pytest.mark.parametrize("interaction", ["residual", "literal", "none"])
def test_gradients_reach_what_learns_and_nothing_frozen(
    small_params: Params, nut_samples: list[SampleRow], trained: Path, interaction: str
) -> None:
    backbone = load_adapted(small_params, trained / "adapted")
    shown = Shown.of(nut_samples, small_params)
    wide = small_params.model_copy(
        update={
            "train": small_params.train.model_copy(update={"batch": 16}),  # every type in it
            "control": small_params.control.model_copy(update={"interaction": interaction}),
        }
    )
    generator = new_generator(wide, "nut", ["chip", "rust", "scratch"], backbone)
    optimiser = torch.optim.SGD([*generator.tokens.parameters(), *generator.control.parameters()], lr=0.1)
    for step in range(5):  # each zero that it starts from lets gradients through one step later; as printed there are four in a row
        rng = torch_generator(0, "test", step)
        loss, parts = joint_loss(generator, draw_view(shown, generator.tokens, backbone, wide, rng), wide, rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert set(parts) == {"denoising", "localizing", "contrastive"}
    assert all(p.grad is None for m in (backbone.unet, backbone.vae, backbone.text_encoder) for p in m.parameters())
    assert generator.tokens.vectors.grad is not None
    assert (generator.tokens.vectors.grad.abs().sum(1) > 0).all()
    silent = [name for name, p in generator.control.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert silent == []


def test_shards_carry_provenance_and_come_back_identical(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    arguments = (small_params, nut_samples, trained, make_scenes(Task(small_params, "nut", samples=nut_samples)))
    shards(*arguments, tmp_path)
    first = sha256_folder(tmp_path / "out")
    table = read_table(tmp_path / "out" / "rust.parquet", GENERATED_SCHEMA)
    assert table.num_rows == 3
    rows = table.to_pylist()
    assert all(0.5 <= row["intensity"] <= 1.5 for row in rows)
    assert len({row["image_sha256"] for row in rows}) == 3
    assert rows[0]["anomaly_types"] == ["rust"]
    exemplars = {row.sample_id for row in nut_samples if row.anomaly_type == "rust" and row.role == "exemplar"}
    normals = {row.sample_id for row in nut_samples if row.role == "normal"}
    for row, scene in zip(rows, (scene for scene in arguments[3] if scene.types == ("rust",)), strict=True):
        assert (row["sample_id"], row["intensity"], row["attempts"]) == (scene.scene_id, scene.intensities[0], 1)
        assert {*row["exemplar_ids"]} <= exemplars
        assert row["normal_id"] in normals or scene.picture.role == "exemplar"
    assert decode_image(rows[0]["image"]["bytes"], "RGB").shape == (64, 64, 3)
    (tmp_path / "out" / "rust.parquet").unlink()
    next((tmp_path / "work").glob("chip-*.parquet")).unlink()
    shards(*arguments, tmp_path)
    assert sha256_folder(tmp_path / "out") == first


def test_outside_the_mask_the_normal_is_kept(trained: Path, small_params: Params) -> None:
    generator = load_generator(Task(small_params, "nut", "cadiff"), trained / "adapted", trained / "generator")
    background = generator.backbone.encode(torch.rand(1, 3, 64, 64) * 2 - 1)[0]
    prompt = generator.tokens.prompt(generator.backbone, ["rust"], 0)
    nowhere = Request(prompt, ("rust",), torch.zeros(1, 64, 64, dtype=torch.bool), (1.0,), 1, background)
    image = sample(generator, [nowhere], small_params.generate, small_params.intensity).drawn
    assert torch.allclose(image, generator.backbone.decode(background[None]), atol=1e-4)


def test_intensity_changes_the_image_and_one_is_neutral(trained: Path, small_params: Params) -> None:
    generator = load_generator(Task(small_params, "nut", "cadiff"), trained / "adapted", trained / "generator")
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :32, :32] = True
    prompt = generator.tokens.prompt(generator.backbone, ["rust"], 0)
    off = small_params.intensity.model_copy(update={"threshold": 9.0})  # never reached: no re-weighting at all

    def drawn(w: float, intensity: object) -> torch.Tensor:
        return sample(generator, [Request(prompt, ("rust",), mask, (w,), 1)], small_params.generate, intensity).drawn  # type: ignore[arg-type]

    assert torch.equal(drawn(1.0, small_params.intensity), drawn(2.0, off))
    assert not torch.equal(drawn(1.0, small_params.intensity), drawn(2.0, small_params.intensity))


def test_less_strength_stays_nearer_to_what_it_starts_from(trained: Path, small_params: Params) -> None:
    generator = load_generator(Task(small_params, "nut", "cadiff"), trained / "adapted", trained / "generator")
    background = generator.backbone.encode(torch.rand(1, 3, 64, 64) * 2 - 1)[0]
    prompt = generator.tokens.prompt(generator.backbone, ["rust"], 0)
    everywhere = Request(prompt, ("rust",), torch.ones(1, 64, 64, dtype=torch.bool), (1.0,), 1, background, start=background)
    known, away = generator.backbone.decode(background[None]), []
    for strength in (0.34, 1.0):
        params = small_params.generate.model_copy(update={"start": "background", "strength": strength})
        image = sample(generator, [everywhere], params, small_params.intensity).drawn
        away.append((image - known).abs().mean().item())
    assert 0 < away[0] < away[1]


def test_normals_are_redrawn_in_a_place_where_asked(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Each normal, or an exemplar's picture in its stead, with a place drawn anew, and no other: no type, nothing changed around it."""
    params = changed(small_params, generate={"redraw": True, "blend": 0.0, "per_type": 1})
    scenes = make_scenes(Task(params, "nut", samples=nut_samples))
    out = shards(params, nut_samples, trained, scenes, tmp_path)
    rows = {row["sample_id"]: row for row in read_table(out / "good.parquet", GENERATED_SCHEMA).to_pylist()}
    normals, by_id = [row for row in nut_samples if row.role == "normal"], {scene.scene_id: scene for scene in scenes}
    assert sorted(rows) == sorted(f"{n.sample_id}-redrawn" for n in normals)
    for normal in normals:
        redrawn, real = rows[f"{normal.sample_id}-redrawn"], read_image(normal.image_path)
        assert redrawn["anomaly_types"] == redrawn["exemplar_ids"] == []
        assert (decode_image(redrawn["mask"]["bytes"], "L") > 127).tolist() == by_id[redrawn["sample_id"]].mask.tolist(), "the place"
        assert redrawn["mask_source"] == "redrawn"
        assert "rust" not in redrawn["prompt"]
        scene = by_id[f"{normal.sample_id}-redrawn"]
        around = real if redrawn["normal_id"] else read_image(scene.picture.image_path)
        difference = (decode_image(redrawn["image"]["bytes"], "RGB") != around).any(-1)
        assert difference[scene.mask].mean() > 0.5
        assert not difference[~scene.mask].any()


def test_normals_are_as_they_are_where_none_is_redrawn(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Nothing of them goes through the autoencoder where the picture's own pixels are kept around an anomaly."""
    params = changed(small_params, generate={"blend": 0.0, "per_type": 1})
    out = shards(params, nut_samples, trained, make_scenes(Task(params, "nut", samples=nut_samples)), tmp_path)
    rows = {row["sample_id"]: row for row in read_table(out / "good.parquet", GENERATED_SCHEMA).to_pylist()}
    normals = [row for row in nut_samples if row.role == "normal"]
    assert sorted(rows) == sorted(normal.sample_id for normal in normals)
    for normal in normals:
        plain = rows[normal.sample_id]
        assert (decode_image(plain["image"]["bytes"], "RGB") == read_image(normal.image_path)).all()
        assert (plain["normal_id"], plain["exemplar_ids"], plain["steps"]) == (normal.sample_id, [], None)
        assert not decode_image(plain["mask"]["bytes"], "L").any()


def test_where_all_of_a_window_is_kept_normals_go_through_the_autoencoder_as_it_does(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Else the codec's traces would tell an anomaly from a normal. At a canvas of twice the base's side they come back enlarged."""
    params = changed(small_params, dataset={"size": 128}, generate={"per_type": 1})
    scenes = make_scenes(Task(params, "nut", samples=nut_samples))[:1]
    out = shards(params, nut_samples, trained, scenes, tmp_path)
    backbone = load_adapted(params, trained / "adapted")
    rows = {row["sample_id"]: row for row in read_table(out / "good.parquet", GENERATED_SCHEMA).to_pylist()}
    for normal in (row for row in nut_samples if row.role == "normal"):
        seen = read_image(normal.image_path, "RGB", (128, 128))
        passed = to_uint8(backbone.decode(backbone.encode(to_tensor(resize_picture(seen, (64, 64))[None]))))[0]
        found = decode_image(rows[normal.sample_id]["image"]["bytes"], "RGB").astype(int)
        assert np.abs(found - resize_picture(passed, (128, 128))).max() <= 1


def test_what_an_earlier_run_left_is_not_taken_for_this_ones(
    small_params: Params, trained: Path, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "dent.parquet").write_bytes(b"a type that is gone")
    scenes = make_scenes(Task(small_params, "nut", samples=nut_samples))[:1]
    shards(small_params, nut_samples, trained, scenes, tmp_path)
    assert sorted(path.stem for path in out.iterdir()) == sorted([*scenes[0].types, "good"])
    (tmp_path / "adapted").mkdir()
    for name in ("unet", "decoder"):
        (tmp_path / f"adapted/{name}.safetensors").write_bytes(b"of another adaptation")
    plain = small_params.model_copy(update={"adapt": small_params.adapt.model_copy(update={"steps": 0, "vae_steps": 0})})
    adapt_base(Task(plain, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "work-a")
    assert [path.name for path in (tmp_path / "adapted").iterdir()] == ["adaptation.json"]


def test_masks_in_place_are_drawn_in_their_exemplars_pictures_and_so_are_as_many_redrawn_normals(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Outside of their masks both are an exemplar's own picture, byte for byte; that is nobody's normal."""
    settings = {"redraw": True, "blend": 0.0, "start": "exemplar", "strength": 0.5, "per_type": 1}
    params = changed(small_params, generate=settings, masks={"placement": "in_place"})
    scenes = make_scenes(Task(params, "nut", samples=nut_samples))
    out, by_id = shards(params, nut_samples, trained, scenes, tmp_path), {scene.scene_id: scene for scene in scenes}
    rows = [row for path in out.iterdir() for row in read_table(path, GENERATED_SCHEMA).to_pylist() if row["sample_id"] in by_id]
    assert len(rows) == 3 + sum(row.role == "normal" for row in nut_samples)
    for row in rows:
        scene = by_id[row["sample_id"]]
        (anomaly,) = scene.anomalies
        assert scene.picture is anomaly.exemplar
        assert row["normal_id"] is None
        picture, real = decode_image(row["image"]["bytes"], "RGB"), read_image(scene.picture.image_path)
        assert (picture[~anomaly.mask] == real[~anomaly.mask]).all()
        assert (picture[anomaly.mask] != real[anomaly.mask]).any(-1).mean() > 0.5
        if scene.named:
            assert (row["mask_source"], row["exemplar_ids"]) == ("exemplars, in place", [anomaly.exemplar.sample_id])


def test_a_product_without_colour_is_drawn_without(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Normals of which each pixel's channels are equal say so in the record, and decoded latents have equal channels."""
    grey = []
    for row in nut_samples:
        path = tmp_path / "grey" / f"{row.sample_id}.png"
        picture = read_image(row.image_path)
        write_image(path, np.repeat(picture[..., :1], 3, -1))
        grey.append(dataclasses.replace(row, image_path=str(path)))
    adapt_base(Task(small_params, "nut", samples=grey), tmp_path / "adapted", tmp_path / "work")
    latents = torch.randn(2, 4, 8, 8)
    drawn = {folder: load_adapted(small_params, folder).decode(latents) for folder in (tmp_path / "adapted", trained / "adapted")}
    without, coloured = drawn.values()
    assert torch.equal(without, without[:, :1].expand_as(without))
    assert (coloured - coloured[:, :1]).abs().max() > 0.01
    torch.testing.assert_close(without[:, 0], coloured.mean(1))


def test_an_image_depends_on_its_own_request_alone(trained: Path, small_params: Params) -> None:
    generator = load_generator(Task(small_params, "nut", "cadiff"), trained / "adapted", trained / "generator")
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 20:30, 20:30] = True
    requests = [
        Request(generator.tokens.prompt(generator.backbone, [kind], 0), (kind,), mask, (1.0,), seed)
        for seed, kind in enumerate(("rust", "chip", "scratch"))
    ]
    together = sample(generator, requests, small_params.generate, small_params.intensity).drawn
    turned = sample(generator, requests[::-1], small_params.generate, small_params.intensity).drawn
    assert torch.allclose(together, turned.flip(0), atol=1e-4)
    alone = sample(generator, requests[1:2], small_params.generate, small_params.intensity).drawn
    assert torch.allclose(together[1], alone[0], atol=1e-4)


def test_several_types_share_an_image(trained: Path, small_params: Params) -> None:
    generator = load_generator(Task(small_params, "nut", "cadiff"), trained / "adapted", trained / "generator")
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :20, :20], masks[1, 40:, 40:] = True, True
    both = Request(generator.tokens.prompt(generator.backbone, ["rust", "chip"], 0), ("rust", "chip"), masks, (0.5, 1.5), 0)
    one = Request(generator.tokens.prompt(generator.backbone, ["rust"], 0), ("rust",), masks[:1], (1.0,), 1)
    images, _, since = sample(generator, [both, one], small_params.generate, small_params.intensity)
    assert images.shape == (2, 3, 64, 64)
    assert since.shape == (2, 2)
    assert since[1, 1] == -1


def test_an_adaptation_that_does_not_say_whether_there_is_colour_is_refused(trained: Path, small_params: Params, tmp_path: Path) -> None:
    record = read_json(trained / "adapted" / "adaptation.json")
    write_json(tmp_path / "adaptation.json", {name: value for name, value in record.items() if name != "grey"})
    with pytest.raises(CADiffError, match=r"\(grey\), which is not there. Rerun the adapt stage"):
        load_adapted(small_params, tmp_path)


def test_another_base_is_refused(trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    record = (trained / "adapted" / "adaptation.json").read_text()
    (tmp_path / "adaptation.json").write_text(record.replace('"base": "', '"base": "0'))
    with pytest.raises(CADiffError, match="Rerun the adapt stage"):
        load_adapted(small_params, tmp_path)


def test_adaptation_changes_the_unet_but_not_what_words_mean(
    small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    params = small_params.model_copy(update={"adapt": small_params.adapt.model_copy(update={"steps": 2, "vae_steps": 2, "batch": 2})})
    adapt_base(Task(params, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "work")
    before, after = load_backbone(small_params.base), load_adapted(params, tmp_path / "adapted")
    changed = {n for (n, a), (_, b) in zip(before.unet.named_parameters(), after.unet.named_parameters(), strict=True) if not a.equal(b)}
    assert changed
    assert not any("attn2" in name for name in changed)
    assert all(torch.equal(a, b) for a, b in zip(before.vae.encoder.parameters(), after.vae.encoder.parameters(), strict=True))


def test_a_stopped_adaptation_goes_on_to_the_same_bytes(
    small_params: Params, nut_samples: list[SampleRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = small_params.model_copy(update={"adapt": small_params.adapt.model_copy(update={"steps": 4, "batch": 2})})
    adapt_base(Task(params, "nut", samples=nut_samples), tmp_path / "calm", tmp_path / "work-calm")
    steps_done = 0

    def stop_at_the_third(*arguments: object) -> object:
        nonlocal steps_done
        steps_done += 1
        if steps_done == 3:
            raise KeyboardInterrupt
        return velocity_or_noise(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Pace, "due", lambda pace: True)  # a checkpoint a step
    monkeypatch.setattr("cadiff.generator.adapt.velocity_or_noise", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        adapt_base(Task(params, "nut", samples=nut_samples), tmp_path / "out", tmp_path / "work")
    monkeypatch.undo()
    assert read_metadata(tmp_path / "work" / "unet.safetensors")["step"] == "2"
    adapt_base(Task(params, "nut", samples=nut_samples), tmp_path / "out", tmp_path / "work")
    assert sha256_folder(tmp_path / "out") == sha256_folder(tmp_path / "calm")


def test_no_exemplars_is_one_clear_line(small_params: Params, nut_samples: list[SampleRow]) -> None:
    held_out = [dataclasses.replace(row, role="held_out") for row in nut_samples if row.role != "normal"]
    with pytest.raises(CADiffError, match="at least one exemplar"):
        Shown.of(held_out, small_params)
