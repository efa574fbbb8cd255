"""What this machine offers, and which weights are real: facts for people, nothing that a stage depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from cadiff.errors import UsageError
from cadiff.params import Params

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "prefect", "dvc", "numpy", "pyarrow")


def facts(params: Params) -> list[tuple[str, str]]:
    """Pairs of a name and what was found, in the order to print."""
    return [
        ("cadiff", version("cadiff")),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((name, version(name)) for name in PACKAGES),
        *devices(params.base.device),
        *weights(params),
    ]


def devices(wanted: str) -> list[tuple[str, str]]:
    """Each device with its memory and the precisions that it computes in natively."""
    import torch

    from cadiff.devices import pick_device, pick_dtype

    native = "" if pick_dtype("auto", torch.device("cpu")) == torch.float32 else ", bfloat16"
    found = [("device cpu", f"{torch.get_num_threads()} threads; float32{native}")]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        precisions = "float32" + (", bfloat16" if card.major >= 8 else "")
        memory = f"{card.total_memory / 2**30:.0f} GiB"
        found.append((f"device cuda:{index}", f"{card.name}, {memory}; {precisions}"))
    if torch.backends.mps.is_available():
        found.append(("device mps", "float32"))
    try:
        used = f"{pick_device(wanted)} (base.device: {wanted})"
    except UsageError as error:  # the other facts are what one looks for then
        used = f"none: {error}"
    return [*found, ("device used", used)]


def weights(params: Params) -> list[tuple[str, str]]:
    """The base's weights, and the networks that metrics want: real, or what stands in for them."""
    import torch

    from cadiff.backbone.load import weights_digest
    from cadiff.metrics.networks import PUBLISHED

    cached = Path(torch.hub.get_dir()) / "checkpoints"
    found = [("weights base", describe_base(params.base.path))]
    if params.base.path != "embedded" and Path(params.base.path).is_dir():
        found.append(("weights digest", weights_digest(params.base.path)))
    for network, name in PUBLISHED.items():
        there = (cached / name).is_file()
        found.append((f"weights {network}", f"real ({cached / name})" if there else f"absent: {cached / name} is not there"))
    for key in ("inception", "lpips"):
        choice = getattr(params.metrics, key)
        found.append((f"metrics.{key}", choice or "null: the shipped ImageNet network (EfficientNet-Lite0) stands in"))
    return found


def describe_base(path: str) -> str:
    from cadiff.backbone import EMBEDDED

    if path == "embedded":
        if (EMBEDDED / "unet" / "config.json").is_file():
            return "embedded: shipped with CADiff, trained on drawn images only"
        return f"absent: {EMBEDDED}"
    if Path(path).is_dir():
        return f"real: {path}"
    return f"{path}: not a folder here; read from the hub, or its cache, when a stage starts"
