"""Forward and backward passes recorded once and replayed: Python launches a small network's kernels slower than a GPU runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Inputs = TypeVar("Inputs", bound=NamedTuple)
Figures = Mapping[str, Tensor]
WARM_UP = 3  # runs before a recording: what is set up at a first use may not be recorded


@dataclass(frozen=True)
class _Recording(Generic[Inputs]):
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    gradients: list[Tensor | None]
    figures: Figures


class RecordedPasses(Generic[Inputs]):
    """Does what ``passes`` does: sets the parameters' gradients and returns its figures; CUDA alone.

    ``passes`` must start from no gradients, wait for nothing on the host, and read only its inputs (tensors of one
    shape, or None) and weights that are changed in place. Each choice of inputs that are None is a recording of its own;
    its gradients and figures lie where they were recorded, so the next call of that choice overwrites them.

    Raises:
        ValueError: if an input has another shape than the one that was recorded.
    """

    def __init__(self, passes: Callable[[Inputs], Figures], parameters: Sequence[nn.Parameter]) -> None:
        self.passes, self.parameters = passes, parameters
        self.recordings: dict[tuple[bool, ...], _Recording[Inputs]] = {}

    def __call__(self, inputs: Inputs) -> Figures:
        form = tuple(value is None for value in inputs)
        if form not in self.recordings:
            self.recordings[form] = self._record(inputs)
        recording = self.recordings[form]
        for kept, value in zip(recording.inputs, inputs, strict=True):
            if value is not None:
                if value.shape != kept.shape:
                    raise ValueError(f"recorded passes: expected {tuple(kept.shape)} as recorded, found {tuple(value.shape)}")
                kept.copy_(value)
        recording.graph.replay()
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.figures

    def _record(self, inputs: Inputs) -> _Recording[Inputs]:
        kept = inputs._replace(**{name: value.clone() for name, value in inputs._asdict().items() if value is not None})
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self.passes(kept)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            figures = self.passes(kept)
        return _Recording(graph, kept, [parameter.grad for parameter in self.parameters], figures)
