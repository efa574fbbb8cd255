"""Batches drawn ahead: beside an accelerator, drawing them would take longer than learning from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Batch = TypeVar("Batch")


class _Steps(Dataset, Generic[Batch]):
    def __init__(self, draw: Callable[[int], Batch], steps: int) -> None:
        self.draw, self.steps = draw, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.draw(step)


def batches(draw: Callable[[int], Batch], start: int, steps: int, device: torch.device, workers: int) -> Iterator[Batch]:
    """``draw(step)`` for the steps from ``start`` to ``steps`` - 1, in order; beside an NVIDIA GPU by worker processes, ahead.

    What is drawn may depend on the step alone, so that neither the workers nor a stop in between change it.
    """
    own: dict[str, Any] = {}
    if device.type == "cuda":  # forked, so that all share the stream's memory: for a process that does nothing else
        own = {"num_workers": workers, "prefetch_factor": 4 if workers else None, "multiprocessing_context": "fork" if workers else None}
    return iter(DataLoader(_Steps(draw, steps), batch_size=None, sampler=range(start, steps), **own))
