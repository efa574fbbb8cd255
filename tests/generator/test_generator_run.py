"""Adaptation, training, resuming and sampling on a small random base with real components."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cadiff.data.images import load_samples, to_tensor, to_uint8
from cadiff.errors import CADiffError
from cadiff.generator import adapt_base, generate_shards, load_adapted, load_generator, train_generator
from cadiff.generator.adapt import velocity_or_noise
from cadiff.generator.planting import cuttings, plant, without
from cadiff.generator.sample import Request, sample
from cadiff.generator.shards import request_for
from cadiff.generator.train import Exemplars, draw_view, joint_loss, learning_rates, new_generator
from cadiff.masks import make_masks
from cadiff.params import Params
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.seeds import torch_generator
from cadiff.storage import decode_image, read_image, read_json, read_metadata, read_table, sha256_folder, write_image, write_json


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def trained(folders: Path, small_params: Params, nut_samples: list[SampleRow]) -> Path:
    if not (folders / "generator" / "generator.json").exists():
        adapt_base(small_params, "nut", nut_samples, folders / "adapted", folders / "work-a")
        train_generator(small_params, "nut", nut_samples, folders / "adapted", folders / "generator", folders / "work-t")
    return folders


def test_both_learning_rates_decay_together_or_not_at_all(small_params: Params) -> None:
    def rates(decay: str, step: int) -> tuple[float, float]:
        params = small_params.model_copy(
            update={
                "train": small_params.train.model_copy(update={"steps": 100, "decay": decay}),
                "prompt": small_params.prompt.model_copy(update={"learning_rate": 4.0}),
                "control": small_params.control.model_copy(update={"learning_rate": 1.0}),
            }
        )
        return learning_rates(params, step)

    assert [rates("none", step) for step in (0, 50, 99)] == [(4.0, 1.0)] * 3
    assert rates("cosine", 0) == pytest.approx((0.2, 0.05))  # the first of 20 steps of warm-up
    assert rates("cosine", 20) == pytest.approx((4.0, 1.0))
    assert rates("cosine", 60) == pytest.approx((2.04, 0.51))  # half of the way: the mean of 1 and 0.02
    assert rates("cosine", 99) == pytest.approx((0.08, 0.02), rel=0.1)


def test_two_trainings_give_the_same_bytes(trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    train_generator(small_params, "nut", nut_samples, trained / "adapted", tmp_path / "again", tmp_path / "work")
    assert sha256_folder(tmp_path / "again") == sha256_folder(trained / "generator")


def test_a_stopped_training_goes_on_to_the_same_bytes(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = small_params.model_copy(update={"train": small_params.train.model_copy(update={"checkpoint_seconds": 1e-9})})
    steps_done = 0

    def stop_at_the_second(*arguments: object) -> object:
        nonlocal steps_done
        steps_done += 1
        if steps_done == 3:
            raise KeyboardInterrupt
        return joint_loss(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("cadiff.generator.train.joint_loss", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_generator(eager, "nut", nut_samples, trained / "adapted", tmp_path / "out", tmp_path / "work")
    monkeypatch.undo()
    train_generator(small_params, "nut", nut_samples, trained / "adapted", tmp_path / "out", tmp_path / "work")
    assert sha256_folder(tmp_path / "out") == sha256_folder(trained / "generator")


@pytest.mark.parametrize("interaction", ["residual", "literal", "none"])
def test_gradients_reach_what_learns_and_nothing_frozen(
    small_params: Params, nut_samples: list[SampleRow], trained: Path, interaction: str
) -> None:
    backbone = load_adapted(small_params, trained / "adapted")
    exemplars = Exemplars.read(nut_samples, 64)
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
        loss, parts = joint_loss(generator, draw_view(exemplars, generator.tokens, backbone, wide, rng), wide, rng)
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
    masks = make_masks(small_params, "nut", nut_samples)
    arguments = (small_params, "nut", nut_samples, trained / "adapted", trained / "generator", masks)
    generate_shards(*arguments, tmp_path / "out", tmp_path / "work")
    first = sha256_folder(tmp_path / "out")
    table = read_table(tmp_path / "out" / "rust.parquet", GENERATED_SCHEMA)
    assert table.num_rows == 3
    rows = table.to_pylist()
    assert all(0.5 <= row["intensity"] <= 1.5 for row in rows)
    assert len({row["image_sha256"] for row in rows}) == 3
    assert rows[0]["anomaly_types"] == ["rust"]
    assert decode_image(rows[0]["image"]["bytes"], "RGB").shape == (64, 64, 3)
    (tmp_path / "out" / "rust.parquet").unlink()
    next((tmp_path / "work").glob("chip-*.parquet")).unlink()
    generate_shards(*arguments, tmp_path / "out", tmp_path / "work")
    assert sha256_folder(tmp_path / "out") == first


def test_outside_the_mask_the_normal_is_kept(trained: Path, small_params: Params) -> None:
    generator = load_generator(small_params, "nut", trained / "adapted", trained / "generator")
    background = generator.backbone.encode(torch.rand(1, 3, 64, 64) * 2 - 1)[0]
    prompt = generator.tokens.prompt(generator.backbone, ["rust"], 0)
    nowhere = Request(prompt, ("rust",), torch.zeros(1, 64, 64, dtype=torch.bool), (1.0,), 1, background)
    image, _ = sample(generator, [nowhere], small_params.generate, small_params.intensity)
    assert torch.allclose(image, generator.backbone.decode(background[None]), atol=1e-4)


def test_blending_keeps_the_backgrounds_pixels_and_what_is_inside_the_mask(trained: Path, small_params: Params) -> None:
    generator = load_generator(small_params, "nut", trained / "adapted", trained / "generator")
    background = generator.backbone.encode(torch.rand(1, 3, 64, 64) * 2 - 1)[0]
    known, mask = generator.backbone.decode(background[None])[0], torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:15, 10:30] = True  # its edges lie within cells
    request = Request(generator.tokens.prompt(generator.backbone, ["rust"], 0), ("rust",), mask, (1.0,), 1, background)
    drawn = {
        blend: sample(generator, [request], small_params.generate.model_copy(update={"blend": blend}), small_params.intensity)[0][0]
        for blend in (None, 0.0, 1.0)
    }
    outside, beside = ~mask.expand(3, -1, -1), mask.roll(1, 1).expand(3, -1, -1) & ~mask
    assert not torch.allclose(drawn[None][outside], known[outside], atol=1e-3), "nothing to keep: the test proves nothing"
    assert torch.allclose(drawn[0.0][outside], known[outside], atol=1e-4)
    assert torch.allclose(drawn[0.0][~outside], drawn[None][~outside], atol=1e-4)
    assert torch.allclose(drawn[1.0][beside], (drawn[None][beside] + known[beside]) / 2, atol=1e-4), "half at one pixel"


def test_intensity_changes_the_image_and_one_is_neutral(trained: Path, small_params: Params) -> None:
    generator = load_generator(small_params, "nut", trained / "adapted", trained / "generator")
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :32, :32] = True
    prompt = generator.tokens.prompt(generator.backbone, ["rust"], 0)
    off = small_params.intensity.model_copy(update={"threshold": 9.0})  # never reached: no re-weighting at all

    def drawn(w: float, intensity: object) -> torch.Tensor:
        return sample(generator, [Request(prompt, ("rust",), mask, (w,), 1)], small_params.generate, intensity)[0]  # type: ignore[arg-type]

    assert torch.equal(drawn(1.0, small_params.intensity), drawn(2.0, off))
    assert not torch.equal(drawn(1.0, small_params.intensity), drawn(2.0, small_params.intensity))


def test_less_strength_stays_nearer_to_what_it_starts_from(trained: Path, small_params: Params) -> None:
    generator = load_generator(small_params, "nut", trained / "adapted", trained / "generator")
    background = generator.backbone.encode(torch.rand(1, 3, 64, 64) * 2 - 1)[0]
    prompt = generator.tokens.prompt(generator.backbone, ["rust"], 0)
    everywhere = Request(prompt, ("rust",), torch.ones(1, 64, 64, dtype=torch.bool), (1.0,), 1, background, start=background)
    known, away = generator.backbone.decode(background[None]), []
    for strength in (0.34, 1.0):
        params = small_params.generate.model_copy(update={"strength": strength})
        image, _ = sample(generator, [everywhere], params, small_params.intensity)
        away.append((image - known).abs().mean().item())
    assert 0 < away[0] < away[1]


def test_shards_start_from_the_exemplars_of_their_masks_where_asked(
    trained: Path, small_params: Params, nut_samples: list[SampleRow]
) -> None:
    """At a small strength an image is near to its background with its mask's exemplar set into it, and not at all from noise."""
    generator = load_generator(small_params, "nut", trained / "adapted", trained / "generator")
    by_id = {row.sample_id: row for row in nut_samples}
    mask = make_masks(small_params, "nut", nut_samples)[0]
    assert mask.exemplar_id
    assert mask.normal_id

    def begun(**changes: object) -> tuple[Params, Request]:
        params = small_params.model_copy(update={"generate": small_params.generate.model_copy(update=changes)})
        return params, request_for(generator, params, mask, by_id)

    params, request = begun(start="exemplar", strength=0.34)
    normal = load_samples([by_id[mask.normal_id]], 64)[0][0]
    picture = plant(normal, cuttings(params, normal, [mask], by_id), {mask.anomaly_type: request.intensities[0]})
    assert request.start is not None
    assert torch.equal(request.start, generator.backbone.encode(to_tensor(picture[None]))[0])
    assert request.background is not None
    assert not torch.equal(request.start, request.background)
    background = begun(strength=0.34)[1]
    assert background.start is background.background
    assert begun()[1].start is None
    drawn = dataclasses.replace(mask, exemplar_id=None)  # one from a folder
    assert request_for(generator, params, drawn, by_id).start is None
    with pytest.raises(CADiffError, match="not among the product's exemplars"):
        request_for(generator, params, dataclasses.replace(mask, exemplar_id="nut/test/chip/999"), by_id)


def test_normals_are_redrawn_in_a_place_where_asked(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Each normal's round trip, and the same with a place drawn anew: no mask, no type, nothing changed around the place."""
    params = small_params.model_copy(update={"generate": small_params.generate.model_copy(update={"redraw": True, "blend": 0.0})})
    masks = make_masks(params, "nut", nut_samples)[:1]
    generate_shards(params, "nut", nut_samples, trained / "adapted", trained / "generator", masks, tmp_path / "out", tmp_path / "work")
    rows = {row["sample_id"]: row for row in read_table(tmp_path / "out" / "good.parquet", GENERATED_SCHEMA).to_pylist()}
    normals = [row.sample_id for row in nut_samples if row.role == "normal"]
    assert sorted(rows) == sorted([*normals, *(f"{name}-redrawn" for name in normals)])
    for name in normals:
        plain, redrawn = rows[name], rows[f"{name}-redrawn"]
        assert redrawn["anomaly_types"] == []
        assert not decode_image(redrawn["mask"]["bytes"], "L").any()
        assert redrawn["mask_source"] == "redrawn"
        assert "rust" not in redrawn["prompt"]
        changed = (decode_image(plain["image"]["bytes"], "RGB") != decode_image(redrawn["image"]["bytes"], "RGB")).any(-1)
        assert 0 < changed.mean() < 0.5


def test_what_an_earlier_run_left_is_not_taken_for_this_ones(
    small_params: Params, trained: Path, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    (out / "dent.parquet").write_bytes(b"a type that is gone")
    masks = make_masks(small_params, "nut", nut_samples)[:1]
    generate_shards(small_params, "nut", nut_samples, trained / "adapted", trained / "generator", masks, out, work)
    assert sorted(path.stem for path in out.iterdir()) == sorted([masks[0].anomaly_type, "good"])
    (tmp_path / "adapted").mkdir()
    for name in ("unet", "decoder"):
        (tmp_path / f"adapted/{name}.safetensors").write_bytes(b"of another adaptation")
    plain = small_params.model_copy(update={"adapt": small_params.adapt.model_copy(update={"steps": 0, "vae_steps": 0})})
    adapt_base(plain, "nut", nut_samples, tmp_path / "adapted", tmp_path / "work-a")
    assert [path.name for path in (tmp_path / "adapted").iterdir()] == ["adaptation.json"]


def test_masks_in_place_are_drawn_in_their_exemplars_pictures_and_so_are_as_many_redrawn_normals(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Outside of their masks both are an exemplar's picture without its anomaly, as the autoencoder gives it back."""
    changes = {"redraw": True, "blend": 0.0, "start": "exemplar", "strength": 0.5}
    generate, masked = (small_params.generate.model_copy(update=changes), small_params.masks.model_copy(update={"in_place": 1.0}))
    params = small_params.model_copy(update={"generate": generate, "masks": masked})
    masks = make_masks(params, "nut", nut_samples)[:2]
    generate_shards(params, "nut", nut_samples, trained / "adapted", trained / "generator", masks, tmp_path / "out", tmp_path / "work")
    backbone = load_adapted(params, trained / "adapted")
    exemplars = [row for row in nut_samples if row.role == "exemplar"]
    images, own = load_samples(exemplars, 64)
    healed = np.stack([without(image, mask) for image, mask in zip(images, own, strict=True)])
    passed = to_uint8(backbone.decode(backbone.encode(to_tensor(healed)))).astype(int)

    def setting(row: dict) -> str:
        """Whose surroundings the row's image has."""
        picture = decode_image(row["image"]["bytes"], "RGB")
        away = [np.abs(picture - passed[k])[~own[k]].mean() for k in range(len(exemplars))]
        assert min(away) < 1, "no exemplar's"
        return exemplars[int(np.argmin(away))].sample_id

    drawn = read_table(tmp_path / "out" / f"{masks[0].anomaly_type}.parquet", GENERATED_SCHEMA).to_pylist()
    assert [row["mask_source"] for row in drawn] == ["exemplars, in place"] * 2
    assert [setting(row) for row in drawn] == [mask.exemplar_id for mask in masks]
    good = read_table(tmp_path / "out" / "good.parquet", GENERATED_SCHEMA).to_pylist()
    redrawn = [row for row in good if row["mask_source"] == "redrawn"]
    assert len(redrawn) == sum(row.role == "normal" for row in nut_samples)
    assert all(setting(row) for row in redrawn)


def test_a_product_without_colour_is_drawn_without(
    trained: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    """Normals of which each pixel's channels are equal say so in the record, and decoded latents have equal channels."""
    grey = []
    for row in nut_samples:
        path = tmp_path / "grey" / f"{row.sample_id}.png"
        picture = read_image(row.image_path, "RGB", 64)
        write_image(path, np.repeat(picture[..., :1], 3, -1))
        grey.append(dataclasses.replace(row, image_path=str(path)))
    adapt_base(small_params, "nut", grey, tmp_path / "adapted", tmp_path / "work")
    latents = torch.randn(2, 4, 8, 8)
    drawn = {folder: load_adapted(small_params, folder).decode(latents) for folder in (tmp_path / "adapted", trained / "adapted")}
    without, coloured = drawn.values()
    assert torch.equal(without, without[:, :1].expand_as(without))
    assert (coloured - coloured[:, :1]).abs().max() > 0.01
    torch.testing.assert_close(without[:, 0], coloured.mean(1))


def test_an_image_depends_on_its_own_request_alone(trained: Path, small_params: Params) -> None:
    generator = load_generator(small_params, "nut", trained / "adapted", trained / "generator")
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 20:30, 20:30] = True
    requests = [
        Request(generator.tokens.prompt(generator.backbone, [kind], 0), (kind,), mask, (1.0,), seed)
        for seed, kind in enumerate(("rust", "chip", "scratch"))
    ]
    together, _ = sample(generator, requests, small_params.generate, small_params.intensity)
    turned, _ = sample(generator, requests[::-1], small_params.generate, small_params.intensity)
    assert torch.allclose(together, turned.flip(0), atol=1e-4)
    alone, _ = sample(generator, requests[1:2], small_params.generate, small_params.intensity)
    assert torch.allclose(together[1], alone[0], atol=1e-4)


def test_several_types_share_an_image(trained: Path, small_params: Params) -> None:
    generator = load_generator(small_params, "nut", trained / "adapted", trained / "generator")
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :20, :20], masks[1, 40:, 40:] = True, True
    both = Request(generator.tokens.prompt(generator.backbone, ["rust", "chip"], 0), ("rust", "chip"), masks, (0.5, 1.5), 0)
    one = Request(generator.tokens.prompt(generator.backbone, ["rust"], 0), ("rust",), masks[:1], (1.0,), 1)
    images, since = sample(generator, [both, one], small_params.generate, small_params.intensity)
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
    adapt_base(params, "nut", nut_samples, tmp_path / "adapted", tmp_path / "work")
    before, after = load_adapted_plain(small_params), load_adapted(params, tmp_path / "adapted")
    changed = {n for (n, a), (_, b) in zip(before.unet.named_parameters(), after.unet.named_parameters(), strict=True) if not a.equal(b)}
    assert changed
    assert not any("attn2" in name for name in changed)
    assert all(torch.equal(a, b) for a, b in zip(before.vae.encoder.parameters(), after.vae.encoder.parameters(), strict=True))


def test_a_stopped_adaptation_goes_on_to_the_same_bytes(
    small_params: Params, nut_samples: list[SampleRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = small_params.model_copy(update={"adapt": small_params.adapt.model_copy(update={"steps": 4, "batch": 2})})
    adapt_base(params, "nut", nut_samples, tmp_path / "calm", tmp_path / "work-calm")
    clock, steps_done = itertools.count(0, 31), 0

    def stop_at_the_third(*arguments: object) -> object:
        nonlocal steps_done
        steps_done += 1
        if steps_done == 3:
            raise KeyboardInterrupt
        return velocity_or_noise(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("cadiff.generator.adapt.time", SimpleNamespace(monotonic=lambda: next(clock)))  # a checkpoint a step
    monkeypatch.setattr("cadiff.generator.adapt.velocity_or_noise", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        adapt_base(params, "nut", nut_samples, tmp_path / "out", tmp_path / "work")
    monkeypatch.undo()
    assert read_metadata(tmp_path / "work" / "unet.safetensors")["step"] == "2"
    adapt_base(params, "nut", nut_samples, tmp_path / "out", tmp_path / "work")
    assert sha256_folder(tmp_path / "out") == sha256_folder(tmp_path / "calm")


def load_adapted_plain(params: Params) -> object:
    from cadiff.backbone import load_backbone

    return load_backbone(params.base)


def test_no_exemplars_is_one_clear_line(nut_samples: list[SampleRow]) -> None:
    held_out = [dataclasses.replace(row, role="held_out") for row in nut_samples if row.role != "normal"]
    with pytest.raises(CADiffError, match="at least one exemplar"):
        Exemplars.read(held_out, 64)
