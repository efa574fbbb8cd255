"""Training the detector: its network's loss, Adam, two drops of the learning rate; resumable to the same bytes.

Protocol (docs/method.md): half of each batch is normal, the last checkpoint is the result, and nothing of the
test set is read; ``legacy`` is another one (cadiff.detection.published). The batch of a step depends on the
step's number alone, so a run that was stopped and resumed on the CPU ends with the tensors of one that was not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cadiff.checkpoint import Steps
from cadiff.data.images import Batch
from cadiff.detection.batches import TrainingData, load_training_data, training_batch
from cadiff.detection.measuring import figures, rows_to_score
from cadiff.detection.networks import Loss, knows_nothing, network_of
from cadiff.detection.published import MOST, initialise, published_batch
from cadiff.detection.segmenter import Segmenter
from cadiff.detection.tiles import View
from cadiff.detection.unet import place
from cadiff.devices import autocast, pick_device, pick_dtype
from cadiff.errors import CADiffError
from cadiff.params import DetectorParams, Params
from cadiff.records import CURVE_SCHEMA, SampleRow
from cadiff.seeds import derive_seed, torch_generator
from cadiff.storage import write_table, write_tensors
from cadiff.task import Task

CURVE_POINTS = 200


class Curve(nn.Module):
    """The loss at every ``total / 200``-th step and the last; a module so that checkpoints carry it."""

    value: Tensor

    def __init__(self, total: int, name: str) -> None:
        super().__init__()
        self.name = name
        every = max(1, total // CURVE_POINTS)
        steps = sorted({*range(every, total + 1, every), total})
        self.index = {step: index for index, step in enumerate(steps)}
        self.register_buffer("value", torch.full((len(steps),), torch.nan, dtype=torch.float64))

    def rows(self) -> list[dict[str, object]]:
        """As CURVE_SCHEMA has them."""
        values = zip(self.index, self.value.tolist(), strict=True)
        return [{"step": step, "name": self.name, "value": value} for step, value in values]


class Best(nn.Module):
    """The weights of the epoch with the best figures on the test set so far; a module so that checkpoints carry it."""

    value: Tensor
    epoch: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.register_buffer("value", torch.tensor(-torch.inf, dtype=torch.float64))
        self.register_buffer("epoch", torch.tensor(0))

    def offer(self, model: nn.Module, epoch: int, value: float) -> None:
        if value > self.value.item():
            self.model.load_state_dict(model.state_dict())
            self.value.fill_(value)
            self.epoch.fill_(epoch)


@dataclass
class _State:
    """What a run learns, and what it learns it with."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Adam
    curve: Curve
    best: Best | None
    dtype: torch.dtype  # that its passes are computed in; weights and losses are float32

    @property
    def modules(self) -> dict[str, nn.Module]:
        own: dict[str, nn.Module] = {"model": self.model, "curve": self.curve}
        return own if self.best is None else {**own, "best": self.best}


def train_detector(task: Task, generated: Sequence[Path], seed: int, out: Path, work: Path) -> None:
    """Trains one detector; writes ``out/seed-<seed>.safetensors`` and ``out/curve-<seed>.parquet``
    (CURVE_SCHEMA).

    ``generated`` are folders of shards (GENERATED_SCHEMA); of the samples only the train normals are used. Only with
    ``detector.protocol: legacy`` are the test images read too: after each epoch, to keep the best one's weights.
    ``work`` keeps the checkpoint from which a stopped run goes on, and must be another folder for other
    inputs. The checkpoint stays there when the run is done, so that a rerun only writes the result again.

    Raises:
        UsageError: if pictures are too small for the network.
        CADiffError: if images are missing or do not fit, training diverges, or the checkpoint is broken.
    """
    params, product, samples = task.params, task.product, task.samples
    settings = params.detector.settled(sum(row.role == "exemplar" for row in samples))
    device = pick_device(params.base.device)
    legacy = settings.protocol == "legacy"
    data = load_training_data(product, samples, generated, View.of(params), *((MOST, "half") if legacy else ()))
    checkpoint = Path(work) / f"seed-{seed}.safetensors"
    state = _start(settings, product, seed, device, precision(params, device))
    judge = _Judge(rows_to_score(samples, product), params) if legacy else None
    _train(state, data, settings, (seed, "detector", task.method, product), checkpoint, judge)
    metadata = identity(task, seed) | {"made_by": data.made_by}
    if state.best is not None:
        metadata["best_epoch"] = str(int(state.best.epoch))
    curve = pa.Table.from_pylist(state.curve.rows(), schema=CURVE_SCHEMA)
    write_table(Path(out) / f"curve-{seed}.parquet", curve)
    result = state.best.model if state.best is not None else state.model
    write_tensors(Path(out) / f"seed-{seed}.safetensors", result.state_dict(), metadata)


def total_steps(settings: DetectorParams) -> int:
    """Optimiser steps of a whole run of ``settled`` ones; the last epoch's incomplete batch counts as a step."""
    assert settings.samples_per_epoch is not None
    return -(-settings.epochs * settings.samples_per_epoch // settings.batch)


def learning_rate(settings: DetectorParams, step: int) -> float:
    """The detector's rate at a step (from 0); a network's record says which share of it each of its parameters has."""
    return dropped(settings.learning_rate, step, total_steps(settings))


def dropped(rate: float, step: int, total: int) -> float:
    """``rate`` at a step (from 0) of ``total``: times 0.2 from 80 % on, and again from 90 %."""
    drops = (10 * step >= 8 * total) + (10 * step >= 9 * total)
    return rate * 0.2**drops


def precision(params: Params, device: torch.device) -> torch.dtype:
    """That a detector's or a classifier's passes are computed in while it is trained: ``base.dtype``, or what is published. Gradients are
    not scaled, so float16 is none."""
    return torch.float32 if params.detector.protocol == "legacy" else pick_dtype(params.base.dtype, device)


def identity(task: Task, seed: int) -> dict[str, str]:
    """What a trained detector's file says of itself."""
    settings, view = task.params.detector, View.of(task.params)
    values = {
        "network": settings.network, "width": settings.width, "standardise": settings.standardise, "canvas": view.canvas,
        "size": view.seen, "tile": view.tile, "method": task.method, "product": task.product, "seed": seed,
    }  # fmt: skip
    return {name: str(value) for name, value in values.items()}


def _start(settings: DetectorParams, product: str, seed: int, device: torch.device, dtype: torch.dtype) -> _State:
    network = network_of(settings.network)
    # The method is not in this stream's name: methods are compared from the same initial weights.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "detector", "weights", product))
        model = network.build(settings, True)
        if settings.protocol == "legacy" and knows_nothing(model):  # an encoder that knows ImageNet keeps what it knows
            initialise(model)
    place(model, device).train()
    groups = [{"params": parameters, "share": share} for parameters, share in network.groups(model)]
    optimizer = torch.optim.Adam(groups, lr=settings.learning_rate)
    best = Best(model) if settings.protocol == "legacy" else None
    return _State(model, network.loss, optimizer, Curve(total_steps(settings), network.loss_name), best, dtype)


class _Judge:
    """The legacy protocol's choice of an epoch: the sum of image AUROC, pixel AUROC, pixel AP and PRO on the test set
    (as the published code of AnomalyDiffusion, AAAI 2024, adds them)."""

    SUMMED = ("image_auroc", "pixel_auroc", "pixel_ap", "pro")

    def __init__(self, rows: list[SampleRow], params: Params) -> None:
        self.rows, self.params = rows, params

    def value(self, model: nn.Module) -> float:
        settings = self.params.detector
        detector = Segmenter(model.eval(), View.of(self.params), settings.pooling, settings.network)
        found = figures(self.rows, detector, self.params.metrics)
        model.train()
        return sum(found[name][0] for name in self.SUMMED if not math.isnan(found[name][0]))


def epoch_ends(settings: DetectorParams) -> dict[int, int]:
    """The number of steps taken when an epoch is over, and its number (from 1)."""
    assert settings.samples_per_epoch is not None
    return {-(-epoch * settings.samples_per_epoch // settings.batch): epoch for epoch in range(1, settings.epochs + 1)}


def _train(
    state: _State, data: TrainingData, settings: DetectorParams, stream: tuple[Any, ...], checkpoint: Path, judge: _Judge | None
) -> None:
    """Steps from where the checkpoint is to the end."""
    ends, make = epoch_ends(settings), training_batch if judge is None else published_batch
    title = f"detector {' '.join(map(str, stream[2:]))} seed {stream[0]}"
    left = Steps(title, total_steps(settings), checkpoint, state.modules, state.optimizer)
    for step in left:
        loss = _step(state, make(data, settings.batch, torch_generator(*stream, step)), learning_rate(settings, step))
        taken = step + 1
        if taken in state.curve.index:
            value = loss.item()
            if not math.isfinite(value):
                raise CADiffError(f"recipe.detector.learning_rate: loss is not finite at step {taken}; lower it.")
            state.curve.value[state.curve.index[taken]] = value
            left.figures = {"loss": value}
        if judge is not None and state.best is not None and taken in ends:
            state.best.offer(state.model, ends[taken], judge.value(state.model))


def _step(state: _State, batch: Batch, rate: float) -> Float[Tensor, ""]:
    device = next(state.model.parameters()).device
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["share"]
    image = batch.image.to(device, memory_format=torch.channels_last)
    with autocast(device, state.dtype):
        logits = state.model(image)
    loss = state.loss(logits.float(), batch.mask.to(device))
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    return loss.detach()
