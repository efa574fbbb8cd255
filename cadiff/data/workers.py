"""Batches drawn ahead: beside an accelerator, drawing them would take longer than learning from them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Batch = TypeVar("Batch")
MOST = 4  # workers of a training, unless it says otherwise


class _Steps(Dataset[Batch]):
    def __init__(self, draw: Callable[[int], Batch], steps: int) -> None:
        self.draw, self.steps = draw, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.draw(step)


def beside(device: torch.device, most: int | None = None) -> int:
    """How many workers draw for a device: for an NVIDIA GPU as many as there are idle cores, at most ``most``; else none, as they would
    take the cores that compute. Nor where processes cannot be forked: pictures and stream would be copied into each."""
    if device.type != "cuda" or "fork" not in multiprocessing.get_all_start_methods():
        return 0
    return min(MOST, max(1, (os.cpu_count() or 1) - 1)) if most is None else most


def batches(draw: Callable[[int], Batch], start: int, steps: int, workers: int = 0, ahead: int = 2) -> Iterator[Batch]:
    """``draw(step)`` for the steps from ``start`` to ``steps`` - 1, in order; by worker processes, ``ahead`` of them each, if any.

    What is drawn may depend on the step alone, so that neither the workers nor a stop in between change it. Workers are forked, share
    what is in memory, and must not touch the accelerator. Tensors come back through shared memory, of which a container may have
    little; numpy arrays by value.
    """
    if workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive the fork, which it would warn of
    own: dict[str, Any] = {"num_workers": workers, "prefetch_factor": ahead, "multiprocessing_context": "fork"} if workers else {}
    loader = DataLoader(
        _Steps(draw, steps), batch_size=None, sampler=range(start, steps), collate_fn=_as_drawn, generator=torch.Generator(), **own
    )  # a generator of its own: the loader would draw a seed from torch's global stream
    return iter(loader)


def _as_drawn(batch: Batch) -> Batch:
    return batch
