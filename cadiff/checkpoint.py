"""Training that stops and goes on: its steps; modules, optimiser and step in one safetensors file, written atomically."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsFloat

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cadiff.progress import Progress
from cadiff.storage import read_tensors, write_tensors

SECONDS = 30.0  # from one checkpoint to the next, at least
SHARE = 0.03  # of a training's time that may go into writing checkpoints


class Pace:
    """When a checkpoint is due: at the earliest ``SECONDS`` after the last, and so that writing takes at most ``SHARE`` of the time.
    One of 5 GB comes by minutes, whatever the disk."""

    def __init__(self) -> None:
        self.last, self.cost = time.monotonic(), 0.0

    def due(self) -> bool:
        return time.monotonic() - self.last > max(SECONDS, self.cost / SHARE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around what is written: how long it takes says how often it may be."""
        began = time.monotonic()
        yield
        self.last = time.monotonic()
        self.cost = self.last - began


@dataclass
class Steps:
    """The steps of a training that are still to do, from where its checkpoint is to ``total``; the body of a loop over them is one step.

    ``start`` is the first of them, and ``modules``, ``optimiser`` and ``scaler`` are as they were before it. After each step its
    ``figures`` are shown, and a checkpoint is written where one is due (``Pace``) and, unless ``keeps_last`` says otherwise, at the end.
    A step that an exception leaves, such as that of an interrupt, is neither counted nor kept: the next run takes it again.
    """

    title: str
    total: int
    path: Path
    modules: Mapping[str, nn.Module]
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    keeps_last: bool = True  # False: what the training makes is written right after the last step, and the checkpoint is not needed
    beside: Callable[[int], None] | None = None  # writes what else a run needs that goes on at this step, before the checkpoint
    figures: Mapping[str, SupportsFloat] = field(default_factory=dict)  # set in the loop's body; those of before stay

    def __post_init__(self) -> None:
        self.start = load_training(self.path, self.modules, self.optimiser, self.scaler)

    def __iter__(self) -> Iterator[int]:
        bar, pace = Progress(self.title, self.total, self.start), Pace()
        for step in range(self.start, self.total):
            yield step
            bar.advance(1, self.figures)
            due = self.keeps_last if step + 1 == self.total else pace.due()
            if due:
                with pace.writing():
                    if self.beside is not None:
                        self.beside(step + 1)
                    save_training(self.path, step + 1, self.modules, self.optimiser, self.scaler)


def save_training(
    path: Path, step: int, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None
) -> None:
    """Writes all that a resumed run needs to end with the same bytes as an undisturbed one.

    What is drawn at a step must depend on (seed, step) alone; then no generator's state has to be kept. On a CPU nothing is copied;
    of what lies on an accelerator there is one copy in the host's memory.
    """
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in _flat(values)}
    scaling = {} if scaler is None else {f"scaler/{key}": str(value) for key, value in scaler.state_dict().items()}
    write_tensors(path, tensors, {"step": str(step), **scaling})


def load_training(
    path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None
) -> int:
    """Restores what `save_training` wrote and returns the step; 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    tensors, metadata = read_tensors(path)
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict({key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, index, *fields = key.split("/")
            own = state.setdefault(int(index), {})
            for field in fields[:-1]:
                own = own.setdefault(field, {})
            counts = value.ndim == 0 and not value.is_floating_point()  # a number of steps, which 8-bit Adam keeps as such
            own[fields[-1]] = int(value) if counts else value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    if scaler is not None and scaler.is_enabled() and "scaler/scale" in metadata:  # not in what a card with bfloat16 has begun
        scaler.load_state_dict({key: type(value)(metadata[f"scaler/{key}"]) for key, value in scaler.state_dict().items()})
    return int(metadata["step"])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values with their keys joined by ``/``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights: a <- decay a + (1 - decay) w."""
    kept = list(average.parameters())
    get_ema_multi_avg_fn(decay)(kept, [w.to(a.dtype) for a, w in zip(kept, module.parameters(), strict=True)], None)


def cosine(step: int, steps: int, warmup: int = 100, floor: float = 0.02) -> float:
    """The share of the learning rate at a step: linear warm-up, then a cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    angle = torch.pi * min((step - warmup) / max(steps - warmup, 1), 1.0)
    return floor + (1 - floor) * 0.5 * (1 + float(torch.cos(torch.tensor(angle))))
