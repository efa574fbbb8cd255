"""Networks as ONNX graphs: pixels in, what is thought of them out, all normalisation inside."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cadiff.detection.unet import anomaly_map
from cadiff.errors import CADiffError

IMAGE, MAP, LOGITS = "image", "anomaly", "logits"  # what the graphs' inputs and outputs are called
OPSET = 17  # of ONNX 1.12 (2022): old runtimes read it, and nothing here needs a later one
TOLERANCE = 1e-3  # largest difference between a graph and its network


class DetectorGraph(nn.Module):
    """Pixels to the probability of anomaly of each."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: UInt8[Tensor, "n s s 3"]) -> Float[Tensor, "n s s"]:
        return anomaly_map(self.model(_scaled(image)))


class ClassifierGraph(nn.Module):
    """Pixels to a logit for each class."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: UInt8[Tensor, "n side side 3"]) -> Float[Tensor, "n classes"]:
        logits: Tensor = self.model(_scaled(image))
        return logits


def _scaled(image: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """As ``cadiff.data.images.to_tensor`` does it outside of a graph."""
    return image.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def detector_graph(model: nn.Module, side: int) -> bytes:
    """A detector's network for any number of square tiles, of any side that the network takes; ``side``: of those it is tried on.

    Raises:
        CADiffError: if the graph does not say what the network says.
    """
    return _graph(DetectorGraph(model), side, MAP, {IMAGE: {0: "n", 1: "s", 2: "s"}, MAP: {0: "n", 1: "s", 2: "s"}})


def classifier_graph(model: nn.Module, side: int) -> bytes:
    """A classifier for any number of squares of this side.

    Raises:
        CADiffError: if the graph does not say what the network says.
    """
    return _graph(ClassifierGraph(model), side, LOGITS, {IMAGE: {0: "n"}, LOGITS: {0: "n"}})


def _graph(module: nn.Module, side: int, output: str, axes: dict[str, dict[int, str]]) -> bytes:
    """The same bytes for the same network.

    By torch's older exporter: the newer one takes half a minute where this takes a second, and writes the paths of the machine's files
    into the graph. Both give the same values to 1e-6.
    """
    module = copy.deepcopy(module).cpu().eval()
    tried = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="cadiff-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older one, and that what depends on the side alone is fixed
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module, (tried,), path, dynamo=False, opset_version=OPSET, input_names=[IMAGE], output_names=[output], dynamic_axes=axes
        )
        graph = path.read_bytes()
    with torch.inference_mode():
        expected = module(tried[:1]).numpy()  # not as many as it was made with: a number that was fixed in the graph would show
    difference = float(np.abs(session(graph).run(None, {IMAGE: tried[:1].numpy()})[0] - expected).max())
    if not difference < TOLERANCE:
        raise CADiffError(
            f"{output}: expected a graph that differs from its network by less than {TOLERANCE}, found {difference:.3g}. "
            "Is this onnxruntime one that was tried (pyproject.toml)?"
        )
    return graph


def session(graph: bytes) -> onnxruntime.InferenceSession:
    """A graph that is ready to run on the CPU."""
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
