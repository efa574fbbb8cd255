"""The embedded base's making: the linear start of the autoencoder, captions, and both trainings resumed."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from cadiff.backbone import EMBEDDED, load_backbone
from cadiff.data.images import to_tensor
from cadiff.data.workers import batches
from cadiff.errors import UsageError
from cadiff.params import BaseParams
from cadiff.pretraining.__main__ import checkpoints_of, parsed
from cadiff.pretraining.autoencoder import build_autoencoder, patches_of, spread_latents, train_autoencoder, train_decoder
from cadiff.pretraining.diffusion import Batch, Parts, build_tokenizer, caption, draw_batch, train_diffusion
from cadiff.pretraining.export import export_base
from cadiff.pretraining.photographs import SCALES, crop_of
from cadiff.pretraining.stream import LEAST, VIEWS, Picture, Stream, draw_part, picture, window_around
from cadiff.storage import read_json


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream.of([picture(0, index, 64) for index in range(24)])


def test_the_autoencoder_starts_as_principal_components(stream: Stream) -> None:
    """48 - 24 components are lost: the error is the sum of their variances, no more."""
    torch.manual_seed(0)  # the lift to eight features is drawn
    patches = patches_of(stream.image, 20000)
    model = build_autoencoder(patches)
    images = to_tensor(stream.image)
    with torch.no_grad():
        error = (model.decode(model.encode(images).latent).sample - images).square().mean().item()
    variances = torch.linalg.eigvalsh(torch.cov(patches.T))
    assert error == pytest.approx(variances[:24].sum().item() / 48, abs=(1.2 / 127.5) ** 2), "about a grey level comes of norms and ReLUs"


def test_every_caption_word_is_one_token_and_positions_point_at_them(stream: Stream) -> None:
    tokenizer = build_tokenizer()
    captioned = caption(stream, np.arange(24), np.random.default_rng(0), tokenizer)
    for word in {w for phrase in [*stream.product, *stream.defect, "anomaly"] for w in str(phrase).split()}:
        ids = tokenizer(word, add_special_tokens=False).input_ids
        assert len(ids) == 1, word
        assert ids[0] != tokenizer.unk_token_id, word
    for row in range(24):
        place = int(captioned.defect_at[row])
        if place >= 0:
            assert tokenizer.decode(captioned.ids[row, place]).strip() == stream.defect[row].split()[-1]
    assert (captioned.defect_at >= 0).any()


def test_both_trainings_go_on_where_they_were(stream: Stream, tmp_path: Path) -> None:
    train_autoencoder(stream, tmp_path / "a", 1, batch=2)
    vae = train_autoencoder(stream, tmp_path / "a", 2, batch=2)
    torch.manual_seed(0)
    train_diffusion(Parts.new(vae), stream, vae, tmp_path / "d", 1, batch=2, control_from=0)
    stopped = train_diffusion(Parts.new(vae), stream, vae, tmp_path / "d", 2, batch=2, control_from=0)
    torch.manual_seed(0)
    undisturbed = train_diffusion(Parts.new(vae), stream, vae, tmp_path / "e", 2, batch=2, control_from=0)
    for name, module in stopped.modules.items():
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), undisturbed.modules[name].parameters(), strict=True)), name
    assert any(p.abs().sum() > 0 for p in stopped.control.controlnet.controlnet_mid_block.parameters()), "the control did not learn"
    done = train_diffusion(Parts.new(vae), stream, vae, tmp_path / "d", 2, batch=2, control_from=0)
    assert all(torch.equal(a, b) for a, b in zip(done.unet.parameters(), stopped.unet.parameters(), strict=True)), "equal is done"
    with pytest.raises(UsageError, match=r"d.diffusion\.safetensors: is at step 2, beyond --diffusion-steps 1\."):
        train_diffusion(Parts.new(vae), stream, vae, tmp_path / "d", 1, batch=2, control_from=0)
    train_decoder(vae, stream, tmp_path / "a", 1, batch=2)
    with pytest.raises(UsageError, match=r"decoder\.safetensors: is at step 1, beyond --decoder-steps 0\."):
        train_decoder(vae, stream, tmp_path / "a", 0, batch=2)


def test_the_control_is_copied_and_trained_from_its_own_step_on(stream: Stream, tmp_path: Path) -> None:
    """Two steps of which the second, an odd one, is drawn under a mask where the control has begun."""
    vae = train_autoencoder(stream, tmp_path, 1, batch=2)
    torch.manual_seed(0)
    parts = Parts.new(vae)
    start = parts.control.controlnet.conv_in.weight.detach().clone()
    train_diffusion(parts, stream, vae, tmp_path / "late", 2, batch=2, control_from=1)
    moved = (parts.control.controlnet.conv_in.weight.detach() - start).abs().max()
    assert moved > 1e-6, "the U-Net's encoder, which step 0 has moved, was not taken; behind zero-convolutions weight decay alone acts"
    assert any(p.abs().sum() > 0 for p in parts.control.controlnet.controlnet_mid_block.parameters())
    with pytest.raises(UsageError, match=r"--diffusion-steps: expected more than --control-from 1960, found 2"):
        train_diffusion(Parts.new(vae), stream, vae, tmp_path / "never", 2, batch=2)
    trained = dataclasses.replace(parts, control_trained=True)
    train_diffusion(trained, stream, vae, tmp_path / "further", 1, batch=2)  # one that is trained already needs no such step


def test_beside_a_mask_no_word_means_no_defect(stream: Stream) -> None:
    tokenizer = build_tokenizer()
    for draw in range(20):
        captioned = caption(stream, np.arange(24), np.random.default_rng(draw), tokenizer, general=0.3, masked=True)
        assert ((captioned.defect_at >= 0).numpy() == (stream.defect != "")).all()


def test_an_exported_base_comes_back_with_its_control_and_is_trained_further(stream: Stream, tmp_path: Path) -> None:
    vae = train_autoencoder(stream, tmp_path, 1, batch=2)
    parts = Parts.new(vae)
    with torch.no_grad():
        parts.control.controlnet.controlnet_mid_block.weight.fill_(0.5)
    modules = {"unet": parts.unet, "vae": vae, "text_encoder": parts.text, "controlnet": parts.control.controlnet}
    modules |= {"saim": parts.control.saim}
    export_base(tmp_path / "base", modules, parts.tokenizer, {"training": []})
    base = load_backbone(BaseParams(path=str(tmp_path / "base"), device="cpu", dtype="float32"))
    assert base.brings_control
    again = Parts.of(base)
    assert (again.control.controlnet.controlnet_mid_block.weight == 0.5).all()
    assert all(p.requires_grad and p.dtype == torch.float32 for module in again.modules.values() for p in module.parameters())


def test_a_training_that_starts_elsewhere_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    def of(*arguments: str) -> Path:
        return checkpoints_of(parsed(["--work", str(tmp_path), *arguments]))

    embedded = ("--start", str(EMBEDDED))
    assert of() == of("--diffusion-steps", "9", "--decoder-steps", "9"), "more steps go on"
    assert of() != of(*embedded), "a finished base trained further would take the first training's checkpoint for its own"
    assert of() != of("--autoencoder-steps", "9"), "another autoencoder has other latents"
    assert of(*embedded) == of(*embedded, "--autoencoder-steps", "9"), "it is not trained here"


def test_nothing_is_replaced_that_is_no_base_and_no_size_is_begun_that_cannot_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for arguments, said in ((["--out", str(tmp_path)], "it would be replaced"), (["--size", "160"], "multiple of 16 up to 128")):
        with pytest.raises(SystemExit):
            parsed(arguments)
        assert said in capsys.readouterr().err
    assert parsed(["--out", str(EMBEDDED)]).out == EMBEDDED, "a base may be"


def test_a_decoder_that_was_taught_is_not_taught_again_unless_asked() -> None:
    assert parsed([]).decoder_steps == parsed(["--autoencoder-of", "base"]).decoder_steps == 500
    assert parsed(["--start", "base"]).decoder_steps == 0
    assert parsed(["--start", "base", "--decoder-steps", "7"]).decoder_steps == 7


def test_spreading_the_latents_changes_them_and_not_what_is_decoded(stream: Stream) -> None:
    torch.manual_seed(0)
    model, images = build_autoencoder(patches_of(stream.image, 20000)), to_tensor(stream.image)
    with torch.no_grad():
        before = model.decode(model.encode(images).latent).sample
        spread_latents(model, images, spread=1.0)
        latents = model.encode(images).latent
        assert torch.allclose(model.decode(latents).sample, before, atol=1e-3)
    deviations = latents.movedim(1, -1).flatten(0, 2).std(0)
    expected = torch.linalg.eigvalsh(torch.cov(patches_of(stream.image, 20000).T)).flip(0).sqrt()
    assert deviations[:4] == pytest.approx(expected[:4], rel=0.1), "a spread of 1 is the pixels' own"
    assert (deviations.diff() < 1e-4).all(), "coarse first"


def drawn(stream: Stream, workers: int) -> list[Batch]:
    return list(batches(partial(draw_batch, stream, build_tokenizer(), 4, 0, 0), 3, 9, workers))


def test_batches_drawn_ahead_are_the_same_in_the_same_order(stream: Stream) -> None:
    """Drawn ahead in a process where nothing ran before, as the command is: an earlier test's Prefect would be forked too, and
    fail as the workers end."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        ahead = pool.submit(drawn, stream, 2).result()
    here = drawn(stream, 0)
    assert len(here) == len(ahead) == 6
    for step, one, other in zip(range(3, 9), here, ahead, strict=True):
        assert (one.shown is not None) == (other.shown is not None) == (step % 2 == 1), "odd steps are drawn under masks"
        assert one.seed == other.seed
        assert torch.equal(one.chosen, other.chosen)
        assert torch.equal(one.captioned.ids, other.captioned.ids)
    assert len({batch.seed for batch in here}) == 6


@pytest.fixture(scope="module")
def many() -> list[Picture]:
    """Of 400 drawings: the whole, and two windows."""
    return [picture(1, index, 16) for index in range(400 * VIEWS)]


def test_the_stream_has_photographs_and_grey_pictures(many: list[Picture]) -> None:
    """A share of 6 % and of a fifth of the 52 % that are products which nobody makes, within three standard deviations."""
    wholes = many[::VIEWS]
    photos = [p for p in wholes if p.product == "product"]
    assert 10 < len(photos) < 39
    assert not any(p.defect or p.mask.any() for p in photos), "nobody knows what is wrong in a photograph"
    grey = [p for p in wholes if (p.image == p.image[..., :1]).all() and p.product != "product"]
    assert 23 < len(grey) < 62
    assert all(p.product.startswith("grey ") for p in grey), "the caption says what is to be seen"
    assert any(p.defect for p in grey)


def test_a_third_is_whole_and_the_rest_are_windows_of_all_scales(many: list[Picture]) -> None:
    drawn = [p for p in many if p.product != "product"]
    scales = np.array([p.scale for p in drawn])
    assert scales.min() >= 1
    assert scales.max() == SCALES
    assert 0.30 < (scales == SCALES).mean() < 0.36
    windows = np.log(scales[scales < SCALES]) / np.log(SCALES)
    assert np.histogram(windows, 4, (0, 1))[0].min() > 0.1 * len(windows), "no scale is left out"


def test_the_caption_names_a_defect_where_one_is_to_be_seen_and_nowhere_else(many: list[Picture]) -> None:
    assert all(bool(p.defect) == bool(p.mask.any()) for p in many)
    assert min(p.mask.mean() for p in many if p.defect) >= LEAST
    windows = [p for p in many if p.scale < SCALES]
    shown = np.array([bool(p.defect) for p in windows])
    assert 0.35 < shown.mean() < 0.65, "not in every window of a bad part"


def test_windows_are_cut_from_the_drawing_that_is_shown_whole(many: list[Picture]) -> None:
    """A window of the same place: its colours are those of the whole, and it is sharper than the whole enlarged."""
    same, other = [], []
    colours = [p.image.reshape(-1, 3).mean(0) for p in many]
    for first in range(0, len(many) - VIEWS, VIEWS):
        same.append(np.abs(colours[first] - colours[first + 1]).mean())
        other.append(np.abs(colours[first] - colours[first + VIEWS + 1]).mean())
    assert np.median(same) < 0.3 * np.median(other)


def test_a_window_around_a_defect_shows_all_of_it_and_not_always_in_the_middle() -> None:
    mask, rng = np.zeros((256, 256), bool), np.random.default_rng(0)
    mask[30:70, 200:220] = True
    middles, sides = [], []
    for _ in range(200):
        top, left, side = window_around(mask, rng, 64)
        assert 0 <= top <= 30
        assert top + side >= 70
        assert left <= 200
        assert 220 <= left + side <= 256
        middles.append((50 - top) / side)
        sides.append(side)
    assert (min(sides), max(sides)) == (64, pytest.approx(120, abs=3)), "1.5 to 3 times 40 px, and no less than what the base draws"
    assert np.ptp(middles) > 0.3
    mask[:] = False
    mask[100, 20:250] = True  # longer than half of the picture: the window is all of it
    assert window_around(mask, rng, 64) == (0, 0, 256)


def test_parts_that_are_drawn_are_the_streams_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cadiff.pretraining.stream.PART", 4)  # a drawing's pictures lie in two parts
    for part in (0, 1):
        (tmp_path / f"{part:05d}.npz").write_bytes(draw_part(3, part, 16))
    stream = Stream.opened(tmp_path, 7)
    assert len(stream.image) == 7
    for index in range(7):
        own = picture(3, index, 16)
        assert np.array_equal(stream.image[index], own.image)
        assert np.array_equal(stream.mask[index], own.mask)
        assert (stream.product[index], stream.defect[index], stream.scale[index]) == (own.product, own.defect, own.scale)


@pytest.mark.parametrize("whole", [True, False])
def test_photographs_are_cut_at_all_scales(whole: bool) -> None:
    """From a picture whose columns tell their number: how far apart those at the edges are is the side."""
    columns = np.tile(np.arange(250, dtype=np.uint8)[None, :, None], (300, 1, 3))
    rng = np.random.default_rng(0)
    sides = np.array([np.ptp(crop_of(columns, rng, 32, whole)[16, :, 0].astype(int)) for _ in range(60)])
    if whole:
        assert sides.min() > 235
    else:
        assert sides.min() < 45
        assert 95 < sides.max() <= 128, "four times what the base draws"


def test_the_embedded_base_names_no_machine() -> None:
    """diffusers writes the folder that a part was loaded from into its config."""
    configs = list(EMBEDDED.glob("*/config.json"))
    assert len(configs) == 5
    assert not any("_name_or_path" in read_json(path) for path in configs)
