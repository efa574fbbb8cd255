"""Makes ``import torchvision`` work beside a CPU-only torch.

The registry's torchvision is built for CUDA. Beside a CPU torch its compiled operators do not load, and its import
fails with ``operator torchvision::nms does not exist``, taking lpips, torchmetrics' image metrics and parts of
diffusers with it. Declaring the operators that its Python code refers to is enough for what is used here (none of
them is ever called). Where torchvision works, nothing is done.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_DECLARED: list[torch.library.Library] = []  # a Library's operators live as long as the object


def make_importable() -> None:
    """Declares torchvision's ``nms`` and ``qnms`` where its own library does not provide them."""
    if _DECLARED:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except (OSError, RuntimeError, ImportError):
            continue
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            declared = torch.library.Library("torchvision", "FRAGMENT")
            declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _DECLARED.append(declared)
