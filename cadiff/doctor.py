"""What this machine offers, and which weights are real: facts for people, nothing that a stage depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from cadiff.errors import UsageError
from cadiff.params import BaseParams, Params

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "prefect", "dvc", "numpy", "pyarrow")


def facts(params: Params, card: float | None = None) -> list[tuple[str, str]]:
    """Pairs of a name and what was found, in the order to print; what is needed for a ``card`` of so many GB, if one is named."""
    return [
        ("cadiff", version("cadiff")),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((name, version(name)) for name in PACKAGES),
        *devices(params.base.device),
        *weights(params),
        *sizes(params),
        *needed(params, card),
    ]


def needed(params: Params, card: float | None = None) -> list[tuple[str, str]]:
    """Memory, time and disk before anything is started; nothing where the device or the size is none, which is said above."""
    from cadiff.devices import pick_device
    from cadiff.needs import needs

    try:
        if card is None:
            pick_device(params.base.device)
    except UsageError:
        return []
    if describe_size(params.base).startswith("error"):
        return []
    try:
        return needs(params, card)
    except UsageError as error:  # of a key that a stage would refuse too; the other facts are what one looks for then
        return [("need", f"error: {error}")]


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
    from cadiff.needs import configurations

    base, cached = params.base, Path(torch.hub.get_dir()) / "checkpoints"
    found = [("weights base", describe_base(base.path))]
    if base.path != "embedded" and (Path(base.path).is_dir() or configurations(base)):  # of a hub name where its cache has some of it
        found.append(("weights digest", weights_digest(base.path, base.revision, base.variant)))
    for network, name in PUBLISHED.items():
        there = (cached / name).is_file()
        found.append((f"weights {network}", f"real ({cached / name})" if there else f"absent: {cached / name} is not there"))
    for key in ("inception", "lpips"):
        choice = getattr(params.metrics, key)
        found.append((f"metrics.{key}", choice or "null: the shipped ImageNet network (EfficientNet-Lite0) stands in"))
    return found


def sizes(params: Params) -> list[tuple[str, str]]:
    """The sizes that pictures meet, and whether the base can draw its own; a product may override all but the canvas."""
    canvas, detector = params.dataset.size, params.detector
    window = f"a square, {params.window.context:g} times the masks' extent" if params.window.cut == "around" else "all of the picture"
    seen = canvas if detector.size is None else detector.size
    return [
        ("size canvas", f"{_pixels(canvas)} (dataset.size)"),
        ("size window", f"{window} (window), drawn at {params.base.size} x {params.base.size} px (base.size)"),
        ("size base", describe_size(params.base)),
        ("size detector", f"{_pixels(seen)} (detector.size), in squares of {detector.tile} px (detector.tile)"),
        ("size metrics", f"{_pixels(params.metrics.size)}, mask rule {params.metrics.mask_rule} (recipe.metrics.size, mask_rule)"),
    ]


def _pixels(size: int | str) -> str:
    return "each picture as it is" if size == "native" else f"{size} px of the shorter side"


def describe_size(base: BaseParams) -> str:
    """Whether the base's levels divide what it is asked to draw, read from its configurations alone; a line that begins with
    ``error`` where they do not."""
    from cadiff.backbone.load import least_side, reduction_of
    from cadiff.needs import shapes_of

    known = shapes_of(base)
    if known is None:
        return f"{base.size} px; its levels are read when a stage starts"
    (unet, vae, _), by_name = known
    least = least_side(unet, reduction_of(vae))
    if base.size % least:
        return f"error: base.size: expected a multiple of {least} for this base, found {base.size}"
    return f"{base.size} px, a multiple of {least} as this base needs" + (f" ({by_name})" if by_name else "")


def describe_base(path: str) -> str:
    from cadiff.backbone import EMBEDDED

    if path == "embedded":
        if (EMBEDDED / "unet" / "config.json").is_file():
            return "embedded: shipped with CADiff, trained on drawn images only"
        return f"absent: {EMBEDDED}"
    if Path(path).is_dir():
        return f"real: {path}"
    return f"{path}: not a folder here; read from the hub, or its cache, when a stage starts"
