"""What a run was, in words: its settings, its sizes, what it was measured under, and what identifies it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable

from cadiff.params import RESULT_KEYS, SMP, Params
from cadiff.reporting.artefacts import SHOWN
from cadiff.reporting.comparing import counted
from cadiff.reporting.gallery import Group

PACKAGES = [
    "cadiff",
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "scikit-learn",
    "scikit-image",
    "pyarrow",
]
NETWORKS = {"unet": "a plain U-Net", "efficientnet-lite0": "a decoder on an encoder that knows ImageNet"}
RULES = {
    "any": "any part of it", "quarter": "at least a quarter of it", "half": "at least half of it",
    "nearest": "the mask’s pixel nearest to its centre", "cut": "all that is bilinear between the four nearest pixels",
}  # fmt: skip


def scale(params: Params) -> str:
    """What this run was, in a few words."""
    return f"{params.dataset.name}, {size_said(params.dataset.size)}, {counted(len(params.products), 'product')}"


def size_said(size: int | str) -> str:
    return "pictures at their own size" if size == "native" else f"{size} px"


def network_said(network: str) -> str:
    """What a detector's network is, in words."""
    if not network.startswith(SMP):
        return NETWORKS[network]
    encoder, _, weights = network.removeprefix(SMP).partition(":")
    return f"a decoder on segmentation-models-pytorch’s {encoder}, from {weights or 'ImageNet'}"


def scored_at(params: Params) -> str:
    """At which size pixels are scored, and by which rule a true mask is brought there, as a part of a sentence."""
    return by_product(
        params, lambda own: f"pixels are scored at {own.metrics.size} px of the shorter side, where a pixel of the true mask counts if the "
        f"anomaly covers {RULES[own.metrics.mask_rule]} (recipe.metrics.mask_rule: {own.metrics.mask_rule})",
    )  # fmt: skip


def sizes(params: Params) -> list[tuple[str, str]]:
    """Every size that this run had, in the order in which a picture meets them."""
    size = params.dataset.size
    canvas = "each picture as it is" if size == "native" else f"{size} px of each picture’s shorter side, its aspect ratio kept"

    def window(own: Params) -> str:
        side = f"{own.base.size} x {own.base.size} px"
        if own.window.cut == "whole":
            return f"all of the picture, brought to {side}"
        return f"a square {own.window.context:g} times as large as what is masked, brought to {side}, drawn, brought back and set in"

    def detector(own: Params) -> str:
        seen = size_said(size) if own.detector.size is None else f"{own.detector.size} px"
        return f"{seen} of the shorter side, in squares of {own.detector.tile} px" if seen[0].isdigit() else seen

    said = scored_at(params)
    return [
        ("Canvas", f"{canvas}: masks, generated images, anomaly maps and exports (dataset.size)."),
        ("What the base draws", f"{by_product(params, window)} (recipe.window, base.size)."),
        ("What the detector sees", f"{by_product(params, detector)} (detector.size, detector.tile)."),
        ("What is scored", f"{said[0].upper()}{said[1:]}; where no pixel has as much, those with the most count."),
    ]


def by_product(params: Params, said: Callable[[Params], str]) -> str:
    """What is said of the parameters, once where it is the same for all products."""
    found = {product: said(params.for_product(product)) for product in params.products}
    different = set(found.values())
    return different.pop() if len(different) == 1 else "; ".join(f"{product}: {text}" for product, text in found.items())


def protocol_said(protocols: set[str]) -> str:
    """What was done under the protocols that were found, as a part of a sentence."""
    if not protocols:
        return "nothing was scored"
    some = "" if len(protocols) == 1 else "for some products "
    said = {
        "legacy": f"{some}the best epoch was chosen on the test set, so {'these' if not some else 'their'} figures are optimistic",
        "filtered": f"{some}generated images were left out by rules on their quality signals, none by hand",
    }
    found = [f"{said[name]} (protocol: {name})" for name in said if name in protocols]
    if "legacy" not in protocols:
        found.insert(0, "the last checkpoint is scored, and the run chose nothing by looking at test images")
    return "; ".join(found)


def origin(params: Params) -> str:
    """What to know of the demo's own images, further sentences; empty for any other data set."""
    if params.dataset.layout != "demo":
        return ""
    return (
        " The demo’s images are drawn, not photographed; the embedded base learnt from other drawings of the same products, and the "
        "demo’s settings were chosen by such figures on the images of the seeds 0 and 1. How it fares on a product of yours, they do "
        "not tell."
    )


def digests(params: Params, groups: list[Group]) -> list[tuple[str, str]]:
    """What identifies this run: the parameters' digest, then those found in the generated rows."""
    found = [("all parameters", params.digest_of(*RESULT_KEYS))]
    for product in params.products:
        rows = [p.row for g in groups if (g.product, g.source) == (product, SHOWN) for p in g.pictures]
        for name in ("base_digest", "generator_digest", "params_digest"):
            values = sorted({row[name] for row in rows})
            if values:
                found.append((f"{product}, {name}", ", ".join(values)))
    return found


def versions() -> list[tuple[str, str]]:
    """The packages that wrote this page."""
    return [
        ("python", platform.python_version()),
        *((name, importlib.metadata.version(name)) for name in PACKAGES),
    ]
