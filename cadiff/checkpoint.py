"""Training that stops and goes on: modules, optimiser and step in one safetensors file, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cadiff.storage import read_tensors, write_tensors


def save_training(path: Path, step: int, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> None:
    """Writes all that a resumed run needs to end with the same bytes as an undisturbed one.

    What is drawn at a step must depend on (seed, step) alone; then no generator's state has to be kept.
    """
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in values.items()}
    # safetensors refuses shared memory; clones are cheap beside a training step
    write_tensors(path, {name: value.clone() for name, value in tensors.items()}, {"step": str(step)})


def load_training(path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> int:
    """Restores what `save_training` wrote and returns the step; 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    tensors, metadata = read_tensors(path)
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict({key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, index, field = key.split("/")
            state.setdefault(int(index), {})[field] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(metadata["step"])


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
