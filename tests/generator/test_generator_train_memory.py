"""A step in less memory: passes, activations computed again, half precision, 8-bit averages, batches drawn ahead. The same gradients to
rounding, and the same bytes after a stop."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from interrupting import interrupted
from parameters import bare

from cadiff.backbone import load_backbone, recompute
from cadiff.checkpoint import SHARE, Pace, load_training, save_training
from cadiff.errors import CADiffError, UsageError
from cadiff.generator import adapt_base, train_generator
from cadiff.generator.examples import Shown, draw_ahead, draw_view
from cadiff.generator.joint import joint_loss, learn
from cadiff.generator.sample import Request, sample
from cadiff.generator.steps import in_passes, new_optimizer, new_scaler, update
from cadiff.generator.train import new_generator
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.seeds import torch_generator
from cadiff.storage import read_metadata, read_tensors, sha256_folder
from cadiff.task import Task
from flows.stage import passing_reason

KINDS = ["chip", "rust", "scratch"]
CPU = torch.device("cpu")
LEAN = {"accumulate": 2, "checkpointing": True}


def changed(params: Params, **sections: dict[str, object]) -> Params:
    values = params.model_dump()
    return Params(**{**values, **{name: {**values[name], **own} for name, own in sections.items()}})


def gradients(params: Params, samples: list[SampleRow], steps: int = 2) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Of all that learns, after a few steps away from the zeros that it starts at."""
    backbone = load_backbone(params.base)
    generator = new_generator(params, "nut", KINDS, backbone)
    assert generator.control is not None
    for model in (backbone.unet, generator.control.controlnet, generator.control.saim) if params.train.checkpointing else ():
        recompute(model)
    shown, scaler = Shown.of(samples, params), new_scaler(CPU, backbone.dtype)
    learnt = {**dict(generator.tokens.named_parameters()), **dict(generator.control.named_parameters())}
    torch.manual_seed(0)
    with torch.no_grad():
        for value in learnt.values():
            value += 0.02 * torch.randn_like(value)
    for step in range(steps):
        rng = torch_generator(0, "lean", step)
        parts = learn(generator, draw_view(shown, generator.tokens, backbone, params, rng), params, rng, scaler)
    return {name: value.grad for name, value in learnt.items() if value.grad is not None}, parts


def compare(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        difference = (found[name] - value).norm() / value.norm().clamp(min=1e-12)
        assert difference <= tolerance, f"{name}: {difference:.2g}"


@pytest.mark.parametrize("base", ["sd15", "embedded"])
def test_gradients_are_the_same_in_passes_and_computed_again(
    small_params: Params, nut_samples: list[SampleRow], base: str
) -> None:
    """With silenced words among them, which are re-weighted in the recomputation too, and with the localising loss, which reads maps."""
    train = {"batch": 4, "normal_share": 0.5, "silenced": 0.7}
    own = {"base": {"path": "embedded"}, "control": {"heads": 4}} if base == "embedded" else {}
    weights = {"gamma": 0.5, "beta": 0.5}  # so large that a reading taken twice would be seen
    plain = changed(small_params, train=train, prompt=weights, **own)
    expected, parts = gradients(plain, nut_samples)
    assert set(parts) == {"denoising", "localizing", "contrastive"}
    for lean in ({"checkpointing": True}, {"accumulate": 4}, LEAN):
        found, said = gradients(changed(plain, train={**train, **lean}), nut_samples)
        assert said == pytest.approx(parts, rel=1e-4)
        compare(found, expected, 1e-3)


@pytest.mark.parametrize("prompt", [{"tokens": "single"}, {"localizing_over": "printed", "contrastive_of": "all"}])
def test_each_form_of_the_loss_is_the_same_in_passes(
    small_params: Params, nut_samples: list[SampleRow], prompt: dict[str, object]
) -> None:
    plain = changed(small_params, train={"batch": 4, "normal_share": 0.5}, prompt={"gamma": 0.5, "beta": 0.5, **prompt})
    expected, parts = gradients(plain, nut_samples, 1)
    found, said = gradients(changed(plain, train={"accumulate": 4}), nut_samples, 1)
    assert said == pytest.approx(parts, rel=1e-4)
    compare(found, expected, 1e-3)


def test_what_is_computed_again_keeps_less(small_params: Params, nut_samples: list[SampleRow]) -> None:
    kept = {}
    for again in (False, True):
        backbone = load_backbone(small_params.base)
        generator = new_generator(small_params, "nut", KINDS, backbone)
        assert generator.control is not None
        for model in (backbone.unet, generator.control.controlnet, generator.control.saim) if again else ():
            recompute(model)
        rng = torch_generator(0, "kept")
        view = draw_view(Shown.of(nut_samples, small_params), generator.tokens, backbone, small_params, rng)
        own = {p.untyped_storage().data_ptr() for module in (backbone.unet, generator.control) for p in module.parameters()}
        found: dict[int, int] = {}

        def keep(tensor: torch.Tensor, own: set[int] = own, found: dict[int, int] = found) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = joint_loss(generator, view, small_params, rng)
        kept[again] = sum(found.values())
        loss.backward()
    assert kept[True] < 0.7 * kept[False], "the text encoder, which is not computed again, is most of the rest"


def test_a_batch_that_passes_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"accumulate: expected a divisor of batch: 6 \(1, 2, 3, 6\), found 4"):
        bare(products={"a": {}}, train={"batch": 6, "accumulate": 4})  # type: ignore[arg-type]
    assert in_passes(6, 3) == [slice(0, 2), slice(2, 4), slice(4, 6)]


def ahead(params: Params, samples: list[SampleRow], workers: int) -> list[bytes]:
    """What four steps draw, from the second on."""
    backbone = load_backbone(params.base)
    tokens = new_generator(params, "nut", KINDS, backbone).tokens
    drawn = draw_ahead(Shown.of(samples, params), tokens, backbone, params, "nut", 1, 5, workers)
    return [
        b"".join(one.image.numpy().tobytes() + one.mask.numpy().tobytes() + repr(one[2:]).encode() for one in examples)
        + torch.randn(4, generator=rng).numpy().tobytes()
        for examples, rng in drawn
    ]


def test_batches_have_the_same_bytes_whoever_draws_them(small_params: Params, nut_samples: list[SampleRow]) -> None:
    """Workers are forked in a process where nothing ran before, as a stage is."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        none, one, two = pool.map(ahead, [small_params] * 3, [nut_samples] * 3, [0, 1, 2])
    assert none == one == two
    assert len(set(none)) == 4
    here = Shown.of(nut_samples, small_params)
    backbone = load_backbone(small_params.base)
    tokens, rng = new_generator(small_params, "nut", KINDS, backbone).tokens, torch_generator(small_params.seed, "train", "nut", 1)
    view = draw_view(here, tokens, backbone, small_params, rng)
    assert none[0].startswith(view.image[0].numpy().tobytes()), "the stream of a step is that of its number"
    assert none[0].endswith(torch.randn(4, generator=rng).numpy().tobytes()), "noise goes on where pictures have left the stream"


@pytest.mark.parametrize(("base", "train"), [({"dtype": "float16"}, LEAN), ({}, {**LEAN, "optimizer": "adamw-8bit"})])
def test_a_lean_training_that_is_stopped_ends_with_the_same_bytes(
    base: dict, train: dict, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    if "optimizer" in train and not find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is not installed (pip install -e '.[adam8bit]')")
    params = changed(small_params, base=base, train=train)
    adapt_base(Task(params, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "work-a")

    def run(name: str) -> str:
        train_generator(Task(params, "nut", "cadiff", nut_samples), tmp_path / "adapted", tmp_path / name, tmp_path / f"work-{name}")
        return sha256_folder(tmp_path / name)

    calm = run("calm")
    with interrupted(3):
        run("out")
    kept = read_metadata(tmp_path / "work-out" / "training.safetensors")
    assert kept["step"] == "2"
    assert ("scaler/scale" in kept) == (base == {"dtype": "float16"})
    assert run("out") == calm
    assert list((tmp_path / "work-out").iterdir()) == [], "what was kept for a stop goes when the result is written"


def test_an_adaptation_in_passes_has_the_same_weights_to_rounding(
    small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    made = {}
    for name, lean in (("whole", {}), ("passes", LEAN)):
        params = changed(small_params, adapt={"steps": 2, "vae_steps": 2, "batch": 4}, train=lean)
        adapt_base(Task(params, "nut", samples=nut_samples), tmp_path / name, tmp_path / "work" / name)
        made[name] = {part: read_tensors(tmp_path / name / f"{part}.safetensors")[0] for part in ("unet", "decoder")}
    for part, tensors in made["whole"].items():
        for key, value in tensors.items():
            torch.testing.assert_close(made["passes"][part][key], value, rtol=0, atol=1e-4, msg=f"{part} {key}")
    assert not list((tmp_path / "work").rglob("*.safetensors")), "no checkpoint is left"


def test_without_bitsandbytes_eight_bits_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UsageError, match=r"train.optimizer: adamw-8bit needs bitsandbytes, .* pip install -e \"\.\[adam8bit\]\""):
        new_optimizer("adamw-8bit", [{"params": [torch.nn.Parameter(torch.zeros(1))]}])


def full(*_: object) -> None:
    """What torch raises on a card, in its words."""
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 11.99 GiB of which 0.31 GiB is free. If reserved "
        "but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.\n(more)"
    )


@pytest.mark.parametrize("adapting", [False, True])
def test_a_full_device_is_an_error_that_says_what_to_set_and_may_pass(
    adapting: bool, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = changed(small_params, adapt={"steps": 2, "batch": 4}) if adapting else small_params
    task = Task(params, "nut", "cadiff", nut_samples)
    work = partial(adapt_base, task, tmp_path / "adapted", tmp_path / "work-a")
    if not adapting:
        work()
        work = partial(train_generator, task, tmp_path / "adapted", tmp_path / "out", tmp_path / "work")
    monkeypatch.setattr(torch.Tensor, "backward", full)
    with pytest.raises(CADiffError) as error:
        work()
    said = str(error.value)
    assert said.startswith("base.device: its memory is full (OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "Set train.accumulate higher, train.checkpointing: true, or train.optimizer: adamw-8bit" in said
    assert "reserved" not in said
    assert passing_reason(error.value.exit_code, [f"error: {said}"]) is not None, "another process may have held it"


def test_a_device_that_drawing_fills_is_told_so(small_params: Params) -> None:
    backbone = load_backbone(small_params.base)
    generator = new_generator(small_params, "nut", KINDS, backbone)
    backbone.vae.decoder.register_forward_hook(full)
    request = Request(generator.prompt(["rust"], 0), ("rust",), torch.ones(1, 64, 64, dtype=torch.bool), (1.0,), seed=0)
    with pytest.raises(CADiffError, match=r"OutOfMemoryError: .* Set generate\.batch lower"):
        sample(generator, [request], small_params.generate, small_params.intensity)


def test_a_step_that_leaves_float16_is_not_taken_and_its_scale_survives_a_stop(tmp_path: Path) -> None:
    def fresh() -> tuple[torch.nn.Linear, torch.optim.Optimizer, torch.amp.GradScaler]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 1)
        return layer, new_optimizer("adamw", [{"params": list(layer.parameters())}]), new_scaler(CPU, torch.float16)

    layer, optimizer, scaler = fresh()
    before = layer.weight.detach().clone()
    for factor, moves in ((1e38, False), (1.0, True)):
        optimizer.zero_grad()
        scaler.scale((layer(torch.ones(2, 4)) * factor).sum()).backward()
        update(optimizer, scaler)
        assert (not torch.equal(layer.weight, before)) == moves
    assert scaler.get_scale() == 2.0**15, "halved once"
    save_training(tmp_path / "kept.safetensors", 2, {"layer": layer}, optimizer, scaler)
    again, other, scale = fresh()
    assert load_training(tmp_path / "kept.safetensors", {"layer": again}, other, scale) == 2
    assert scale.state_dict() == scaler.state_dict()
    assert torch.equal(again.weight, layer.weight)


def test_checkpoints_that_take_long_come_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("cadiff.checkpoint.time.monotonic", lambda: now)
    pace, written = Pace(), []
    for second in range(2000):
        now = float(second) if second >= now else now
        if pace.due():
            with pace.writing():
                now += 6
            written.append(now)
    assert written[0] == pytest.approx(37), "the first after the least that was asked for"
    assert all(later - sooner >= 6 / SHARE for sooner, later in pairwise(written))
    assert 8 <= len(written) <= 10
