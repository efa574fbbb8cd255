"""Joint training of one product's tokens, ControlNet and SAIM (Eq. 8)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cadiff.backbone import Backbone, recompute
from cadiff.checkpoint import Steps, cosine
from cadiff.control import SpatialControl
from cadiff.devices import LEANER_TRAINING, within_memory
from cadiff.generator.adapt import load_adapted, load_recorded, seed_everything
from cadiff.generator.examples import Shown, collate, draw_ahead
from cadiff.generator.joint import learn
from cadiff.generator.model import Generator
from cadiff.generator.steps import new_optimizer, new_scaler, update
from cadiff.generator.validation import Watch
from cadiff.params import Params
from cadiff.prompt import LearnedTokens, PlainWords
from cadiff.records import CURVE_SCHEMA
from cadiff.storage import read_json, sha256_folder, write_json, write_table
from cadiff.task import Task

CURVE_EVERY = 5
PLACE = {  # what decides where and in which order a training is computed
    "base": {"device", "dtype"}, "train": {"accumulate", "checkpointing"},
}  # fmt: skip
WARMUP = 20  # steps up to the whole learning rate, where it decays


def learning_rates(params: Params, step: int, steps: int) -> tuple[float, float]:
    """The tokens' and the control's at a step of so many (``train.decay``)."""
    share = cosine(step, steps, warmup=WARMUP) if params.train.decay == "cosine" else 1.0
    return share * params.prompt.learning_rate, share * params.control.learning_rate


def new_tokens(params: Params, product: str, types: list[str], backbone: Backbone) -> LearnedTokens | PlainWords:
    prompt = params.prompt
    if prompt.tokens == "plain":
        return PlainWords(backbone, types, prompt.initial_word, prompt.initial_context)
    return LearnedTokens(backbone, product, types, prompt.initial_word, prompt.tokens == "single", prompt.initial_context, prompt.vectors)


def new_generator(params: Params, product: str, types: list[str], backbone: Backbone) -> Generator:
    tokens = new_tokens(params, product, types, backbone)
    seed_everything(params, "generator", product)  # after the tokens: their table draws from the stream of its own device
    return Generator(backbone, tokens.to(backbone.device), SpatialControl.started(backbone, params.control), "")


def settings(params: Params) -> Params:
    """CADiff's own parameters, as they are."""
    return params


def train(task: Task, adapted: Path, out: Path, work: Path, workers: int | None = None) -> None:
    """Trains and writes ``tokens/``, ``controlnet/``, ``saim/``, ``curve.parquet`` and ``generator.json``.

    Goes on from ``work/training.safetensors`` where there is one, and ends with the same bytes (CPU), whatever the number of
    ``workers``, processes that draw batches ahead; None: as the device asks for. ``work/validation`` has pictures of what it has learned.
    """
    params, product = task.params, task.product
    backbone = load_adapted(params, adapted)
    shown = Shown.of(task.samples, params)
    types = sorted(set(shown.types))
    generator = new_generator(params, product, types, backbone)
    backbone.narrow()  # the control's copy of the encoder has been taken, in full precision
    tokens, control, steps = generator.tokens, generator.control, params.train.steps_for(len(shown.exemplars))
    assert control is not None
    for model in (backbone.unet, control.controlnet, control.saim) if params.train.checkpointing else ():
        recompute(model)
    optimizer = new_optimizer(
        params.train.optimizer,
        [
            {"params": list(tokens.parameters()), "lr": params.prompt.learning_rate, "weight_decay": params.prompt.weight_decay},
            {"params": list(control.parameters()), "lr": params.control.learning_rate, "weight_decay": params.control.weight_decay},
        ],
    )
    scaler, modules = new_scaler(backbone.device, backbone.dtype), {"tokens": tokens, "control": control}
    checkpoint, curve = work / "training.safetensors", list[dict[str, object]]()
    left = Steps(
        f"train {product}", steps, checkpoint, modules, optimizer, scaler, keeps_last=False,
        beside=lambda step: write_json(work / f"curve-{step}.json", curve),
    )  # fmt: skip
    curve += read_json(work / f"curve-{left.start}.json") if left.start else []
    watch = Watch.of(generator, params, product, shown, steps, left.start, work)
    drawn = draw_ahead(shown, tokens, backbone, params, product, left.start, steps, workers)
    for step, (examples, rng) in zip(left, drawn, strict=True):
        watch.after(step, curve)
        for group, rate in zip(optimizer.param_groups, learning_rates(params, step, steps), strict=True):
            group["lr"] = rate
        optimizer.zero_grad()  # before the forward pass: the last step's gradients would lie beside its activations
        with within_memory(LEANER_TRAINING):
            parts = learn(generator, collate(examples, tokens), params, rng, scaler)
            update(optimizer, scaler, params.train.clip)
        if step % CURVE_EVERY == 0 or step + 1 == steps:
            curve += [{"step": step, "name": name, "value": value} for name, value in parts.items()]
            watch.losses(step, parts, {f"rate/{name}": group["lr"] for name, group in zip(modules, optimizer.param_groups, strict=True)})
        left.figures = parts
    watch.after(steps, curve)
    watch.close()
    tokens.save(out / "tokens")
    control.save(out)
    write_table(out / "curve.parquet", pa.Table.from_pylist(curve, schema=CURVE_SCHEMA))
    made_with = {"product": product, "types": types, "base": backbone.digest, "steps": steps, "params": training_of(params)}
    write_json(out / "generator.json", made_with)
    for needless in (checkpoint, *work.glob("curve-*.json")):
        needless.unlink(missing_ok=True)


def training_of(params: Params) -> dict[str, dict[str, object]]:
    """The parameters that a trained generator depends on, by section; where it was computed is none of them."""
    found = params.model_dump(mode="json", include={"base", "window", "adapt", "prompt", "control", "train"})
    for section, keys in PLACE.items():
        found[section] = {key: value for key, value in found[section].items() if key not in keys}
    return {"dataset": {"size": params.dataset.size}, **found}


def load(params: Params, product: str, adapted: Path, folder: Path) -> Generator:
    """The trained generator of a product, frozen.

    Raises:
        CADiffError: if it was trained on another base.
    """
    backbone, record = load_recorded(params, adapted, folder)
    tokens = new_tokens(params, product, record["types"], backbone)
    if isinstance(tokens, LearnedTokens):
        tokens.restore(folder / "tokens")
    tokens.to(backbone.device).requires_grad_(False)
    return Generator(backbone.narrow(), tokens, SpatialControl.load(folder, backbone).narrow(backbone.dtype), sha256_folder(folder)[:16])
