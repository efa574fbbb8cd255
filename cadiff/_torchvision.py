"""Makes ``import torchvision`` work beside a CPU-only torch.

The registry's torchvision is built for CUDA. Beside a CPU torch its compiled operators do not load, and its import
fails with ``operator torchvision::nms does not exist``, taking lpips, torchmetrics' image metrics and parts of
diffusers with it. Declaring the operators that its Python code refers to is enough for what is used here (none of
them is ever called). Where torchvision works, nothing is done.

This waits until torchvision is asked for: torch takes a second to import, and commands that compute nothing need none.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_DECLARED: list[Any] = []  # a torch Library's operators live as long as the object


class Mender(MetaPathFinder):
    """Finds nothing itself; mends torch just before torchvision is found for the first time."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            make_importable()
        return None


def mend_when_imported() -> None:
    """Has `make_importable` called by the first import of torchvision."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, Mender) for finder in sys.meta_path):
        sys.meta_path.insert(0, Mender())


def make_importable() -> None:
    """Declares torchvision's ``nms`` and ``qnms`` where its own library does not provide them."""
    if _DECLARED:
        return
    import torch

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
