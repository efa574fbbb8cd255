"""The networks behind IS and IC-LPIPS: the published ones where the user has their weights, else the shipped stand-in.

Nothing is downloaded; torchvision's files, which are pickled, are read by torch's ``weights_only`` reader, which runs no
code. A network's name goes into the metric's name: ``inception-v3`` and ``lpips-vgg`` only for the weights that torchvision
publishes (by checksum), with part of the file's own checksum for any others, ``efficientnet-lite0`` for the stand-in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cadiff.devices import pick_device
from cadiff.errors import CADiffError, UsageError
from cadiff.metrics import imagenet
from cadiff.params import Params
from cadiff.storage import read_tensors, sha256_file

# torchvision's files; torch's hub ends a file's name with the first digits of its SHA-256.
PUBLISHED = {
    "inception_v3": "inception_v3_google-0cc3c7bd.pth",
    "vgg16": "vgg16-397923af.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "wide_resnet50_2": "wide_resnet50_2-95faca4d.pth",
}
BACKBONES = {"vgg": "vgg16", "alex": "alexnet"}
INCEPTION_SIDE = 299
_BATCH = 16

Embed = Callable[[UInt8[np.ndarray, "n h w 3"]], Float[Tensor, "n d"]]


class Networks(NamedTuple):
    """``posteriors`` are class probabilities. ``lpips`` has by net (``vgg``, ``alex``) a name and embeddings, whose squared Euclidean
    distances are LPIPS distances."""

    inception_name: str
    posteriors: Embed
    lpips: dict[str, tuple[str, Embed]]


class Weights(NamedTuple):
    """A checked file; ``tag`` is empty for a published one, else the first digits of its checksum."""

    path: Path
    tag: str


def load_networks(params: Params) -> Networks:
    """The networks that ``params.metrics`` names, each loaded once; by the published evaluation LPIPS' as ``load_lpips`` has them.

    Raises:
        UsageError: if a file is not there, or its checksum is not the expected one.
        CADiffError: if it does not hold the network's weights.
    """
    inception, own = find_networks(params)[:2]
    device, net = pick_device(params.base.device), params.metrics.lpips_net
    posteriors: Embed = imagenet.posteriors
    inception_name = imagenet.NAME
    if inception is not None:
        posteriors, inception_name = inception_posteriors(inception.path, device), f"inception-v3{inception.tag}"
    legacy = params.detector.protocol == "legacy"
    return Networks(inception_name, posteriors, load_lpips(params) if legacy else {net: _lpips(net, own, device)})


def load_lpips(params: Params) -> dict[str, tuple[str, Embed]]:
    """By net (``vgg``, ``alex``) the name and the embeddings of those that published figures are made with, as far as ``metrics.lpips``
    has them: both of torch's cache (``hub``), the one that a file is of, the stand-in in place of each.

    Raises:
        UsageError, CADiffError: as ``load_networks``.
    """
    own, device = params.metrics, pick_device(params.base.device)
    if own.lpips not in (None, "hub"):
        return {own.lpips_net: _lpips(own.lpips_net, find_networks(params)[1], device)}
    return {net: _lpips(net, find_weights(network, own.lpips, "metrics.lpips"), device) for net, network in BACKBONES.items()}


def _lpips(net: str, weights: Weights | None, device: torch.device) -> tuple[str, Embed]:
    if weights is None:
        return imagenet.NAME, imagenet.embeddings
    return f"lpips-{net}{weights.tag}", lpips_embeddings(net, weights.path, device)


def find_networks(params: Params) -> tuple[Weights | None, Weights | None, Weights | None]:
    """The checked files of Inception, of LPIPS' backbone and of the classifier; None for what needs none.

    Raises:
        UsageError: if a file is not there, or its checksum is not the expected one.
    """
    own, classifier = params.metrics, params.classifier
    if own.lpips == "hub" and (params.detector.published or params.detector.protocol == "legacy"):  # which measures with both
        for network in BACKBONES.values():
            find_weights(network, own.lpips, "metrics.lpips")
    wanted = classifier.weights if classifier.network == "resnet34" else None
    return (
        find_weights("inception_v3", own.inception, "metrics.inception"),
        find_weights(BACKBONES[own.lpips_net], own.lpips, "metrics.lpips"),
        find_weights("resnet34", wanted, "recipe.classifier.weights"),
    )


def find_weights(network: str, choice: str | None, key: str) -> Weights | None:
    """The file that ``choice`` names (``hub``: the published one in torch's cache), its checksum compared with the published one, or with
    that behind an ``@``."""
    if choice is None:
        return None
    name, named = PUBLISHED[network], re.fullmatch(r"(.+)@([0-9A-Fa-f]{64})", choice)
    file, sha256 = (named[1], named[2]) if named else (choice, None)
    path = Path(torch.hub.get_dir()) / "checkpoints" / name if file == "hub" else Path(file)
    if not path.is_file():
        raise UsageError(
            f"{key}: expected {path}, which is not there. It comes from https://download.pytorch.org/models/{name}; "
            "put it there, or name another file, or null."
        )
    found, published = sha256_file(path), name.rpartition("-")[2].removesuffix(".pth")
    if sha256 is None and not found.startswith(published):
        raise UsageError(
            f"{key}: {path}: expected the published {name} (SHA-256 {published}...), found {found}. If these are "
            f"the weights that you mean, set {key}: {path}@{found}"
        )
    if sha256 is not None and found != sha256.lower():
        raise UsageError(f"{key}: {path}: expected SHA-256 {sha256}, found {found}. Is the file whole?")
    return Weights(path, "" if found.startswith(published) else f"@{found[:8]}")


def load_weights(path: Path, model: nn.Module, rename: Callable[[str], str | None] = lambda name: name) -> None:
    """A safetensors file, or a PyTorch one that holds tensors only, into a model.

    ``rename`` maps a name in the file to one in the model, None for what the model does not have.

    Raises:
        CADiffError: if the file holds anything else, or not these weights.
    """
    try:
        safe = path.suffix == ".safetensors"
        tensors = read_tensors(path)[0] if safe else torch.load(path, map_location="cpu", weights_only=True)
        renamed = {rename(name): tensor for name, tensor in tensors.items()}
        model.load_state_dict({name: tensor for name, tensor in renamed.items() if name is not None})
    except (RuntimeError, UnpicklingError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise CADiffError(f"{path}: expected weights of {type(model).__name__}, found something else ({reason}).") from None


def inception_posteriors(path: Path, device: torch.device) -> Embed:
    """Class probabilities of torchvision's Inception v3, images at 299 px in [-1, 1] as its original weights want them."""
    from torchvision.models import inception_v3

    model = inception_v3(weights=None, init_weights=False, transform_input=False)
    load_weights(path, model)
    model.to(device).eval()

    @torch.inference_mode()
    def posteriors(images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 1000"]:
        side = (INCEPTION_SIDE, INCEPTION_SIDE)
        resized = (F.interpolate(x, side, mode="bilinear", antialias=True, align_corners=False) for x in _scaled(images))
        return torch.cat([model(x.to(device)).softmax(dim=1).cpu() for x in resized])

    return posteriors


def lpips_embeddings(net: str, path: Path, device: torch.device) -> Embed:
    """LPIPS (its package's heads, this backbone) as an embedding: the head's weights are squared distances' weights,
    so their square roots scale the features."""
    from lpips import LPIPS

    model = LPIPS(net=net, pnet_rand=True, verbose=False)
    places = {name.split(".", 1)[1]: name for name in model.net.state_dict()}
    load_weights(path, model.net, lambda name: places.get(name.removeprefix("features.")))
    model.to(device).eval()
    heads = [getattr(model, f"lin{level}").model[-1].weight.clamp_min(0).sqrt() for level in range(model.L)]

    @torch.inference_mode()
    def embed(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        levels = model.net(model.scaling_layer(image.to(device)))
        scaled = [
            (F.normalize(x, dim=1, eps=1e-10) * head / (x.shape[2] * x.shape[3]) ** 0.5).flatten(1)
            for x, head in zip(levels, heads, strict=True)
        ]
        return torch.cat(scaled, dim=1).cpu()

    return lambda images: torch.cat([embed(batch) for batch in _scaled(images)])


def _scaled(images: UInt8[np.ndarray, "n h w 3"]) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """Batches in [-1, 1]."""
    for start in range(0, len(images), _BATCH):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH].transpose(0, 3, 1, 2)))
        yield pixels.float() / 127.5 - 1
