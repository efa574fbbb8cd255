"""A segmenter on any encoder of segmentation-models-pytorch (the extra ``smp``), and the decoder of the shipped one on top.

``smp:ENCODER`` starts from the encoder's ImageNet weights, ``smp:ENCODER:WEIGHTS`` from others that the library knows by that name,
``smp:ENCODER:scratch`` from none. ``tu-NAME`` is timm's model NAME. Weights are taken from the cache of huggingface_hub: nothing is
downloaded here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Float
from torch import Tensor, nn

from cadiff.detection.pretrained import EncoderUNet
from cadiff.detection.unet import STRIDE
from cadiff.errors import UsageError
from cadiff.metrics.networks import load_weights
from cadiff.params import SMP
from cadiff.storage import read_json

SCRATCH, IMAGENET = "scratch", "imagenet"  # what ``WEIGHTS`` may be besides the library's own names, and what it is by default
TIMM = "tu-"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"


class Named(NamedTuple):
    """What ``detector.network`` says after ``smp:``."""

    encoder: str
    weights: str

    @classmethod
    def of(cls, network: str) -> Named:
        encoder, _, weights = network.removeprefix(SMP).partition(":")
        return cls(encoder, weights or IMAGENET)

    @property
    def scratch(self) -> bool:
        return self.weights == SCRATCH


class Wanted(NamedTuple):
    """Mean and deviation that the encoder's images are brought to from [0, 1], by channel; without weights to [-1, 1]."""

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)


class SmpUNet(EncoderUNet):
    """Logits of (normal, anomaly) for every pixel, from an image in [-1, 1] with sides divisible by 32.

    Args:
        network: ``detector.network``.
        standardise: each image to mean 0 and deviation 1 first.
        start: with the weights that it names; without, where those of a trained one are loaded into it.

    Raises:
        UsageError: if the extra is not installed, it has no such encoder, or the weights are not there.
        CADiffError: if the weights are not its.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: str, standardise: bool = False, start: bool = True) -> None:
        named = Named.of(network)
        encoder, wanted = _with_weights(named) if start and not named.scratch else (_encoder(named), Wanted())
        super().__init__(encoder, _channels(encoder, network), standardise=standardise)
        self.knows = not named.scratch
        self.register_buffer("mean", torch.tensor(wanted.mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(wanted.deviation).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> SmpUNet:
        """An encoder that knows something keeps its batch statistics, as ``PretrainedUNet``'s."""
        super().train(mode)
        if self.knows:
            self.encoder.eval()
        return self

    def prepared(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return ((image + 1) / 2 - self.mean) / self.deviation

    def levels(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        return list(self.encoder(x)[1:])


def library() -> Any:
    """The package's encoders.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        from segmentation_models_pytorch import encoders
    except ModuleNotFoundError as error:
        raise UsageError(
            f"detector.network: {SMP}... needs the extra smp, of which {error.name} is not installed; "
            'pip install -e ".[smp]", or choose efficientnet-lite0 or unet'
        ) from None
    return encoders


def _encoder(named: Named, weights: bool | None = None, **given: Any) -> nn.Module:
    """The encoder without weights, or timm's with those of a file that ``given`` names."""
    encoders, name = library(), named.encoder
    if not name.startswith(TIMM) and name not in encoders.encoders:
        raise UsageError(
            f"detector.network: {SMP}{name}: no such encoder; segmentation-models-pytorch has {', '.join(sorted(encoders.encoders))} "
            f"and, for timm's model NAME, {TIMM}NAME"
        )
    try:
        encoder: nn.Module = encoders.get_encoder(name, weights=weights, **given)
        return encoder
    except (RuntimeError, ValueError) as error:  # timm's: no such model, one without such features, or a file of something else
        raise UsageError(f"detector.network: {SMP}{name}: this encoder cannot be built ({_line(error)}); choose another") from None


def _with_weights(named: Named) -> tuple[nn.Module, Wanted]:
    """The encoder with its weights, and how it wants its images."""
    if named.encoder.startswith(TIMM):
        return _of_timm(named)
    encoder, known = _encoder(named), library().encoders[named.encoder]["pretrained_settings"]
    if named.weights not in known:
        raise UsageError(f"detector.network: {SMP}{named.encoder}: expected weights {', '.join(known)} or {SCRATCH}, found {named.weights}")
    source = known[named.weights]
    weights, config = (_cached(named, source["repo_id"], name, source["revision"]) for name in (WEIGHTS_FILE, CONFIG_FILE))
    said = read_json(config)
    if said.get("input_space", "RGB") != "RGB" or said.get("input_range", [0, 1]) != [0, 1]:
        raise UsageError(
            f"detector.network: {SMP}{named.encoder}: expected an encoder of RGB pictures from 0 to 1, found "
            f"{said.get('input_space')} from {said.get('input_range')}; choose another"
        )
    load_weights(weights, encoder)
    return encoder, Wanted(tuple(said["mean"]), tuple(said["std"]))


def _of_timm(named: Named) -> tuple[nn.Module, Wanted]:
    """The same of timm's: its name says which weights."""
    if named.weights != IMAGENET:
        raise UsageError(
            f"detector.network: {SMP}{named.encoder}: expected weights as timm names them ({TIMM}MODEL.TAG) or {SCRATCH}, found "
            f"{named.weights}"
        )
    _encoder(named)  # says what is wrong with the name, or that nothing is installed
    import timm

    config = timm.models.get_pretrained_cfg(named.encoder.removeprefix(TIMM))
    if config is None or not config.hf_hub_id:
        raise UsageError(f"detector.network: {SMP}{named.encoder}: timm publishes no weights of it; set {SMP}{named.encoder}:{SCRATCH}")
    weights = _cached(named, config.hf_hub_id, config.hf_hub_filename or WEIGHTS_FILE)
    encoder = _encoder(named, weights=True, pretrained_cfg_overlay={"file": str(weights)})
    return encoder, Wanted(config.mean, config.std)


def _cached(named: Named, repo: str, name: str, revision: str | None = None) -> Path:
    """A file of huggingface_hub's cache.

    Raises:
        UsageError: if it is not there.
    """
    found = try_to_load_from_cache(repo, name, revision=revision)
    if isinstance(found, str):
        return Path(found)
    raise UsageError(
        f"detector.network: {SMP}{named.encoder}: its weights are not here ({name} of {repo} in the cache of huggingface_hub), and nothing "
        f"is downloaded in a run; fetch them with `{fetching(named)}`, or start from none with {SMP}{named.encoder}:{SCRATCH}"
    )


def fetching(named: Named) -> str:
    """The command that brings an encoder's weights into the cache."""
    weights = "True" if named.encoder.startswith(TIMM) else f"'{named.weights}'"
    program = f"import cadiff, segmentation_models_pytorch as smp; smp.encoders.get_encoder('{named.encoder}', weights={weights})"
    return f'python -c "{program}"'


@torch.inference_mode()
def _channels(encoder: nn.Module, network: str) -> list[int]:
    """Of its features at strides 2 to 32, found by trying it."""
    side, training = 2 * STRIDE, encoder.training
    try:
        found = encoder.eval()(torch.zeros(1, 3, side, side))[1:]
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"detector.network: {network}: takes no pictures of {side} px ({_line(error)}); choose another encoder") from None
    encoder.train(training)
    sides = [features.shape[-1] for features in found]
    if sides != [side // stride for stride in (2, 4, 8, 16, STRIDE)]:
        raise UsageError(f"detector.network: {network}: expected features at strides 2, 4, 8, 16 and 32, found sides {sides} of {side} px; "
                         "choose another encoder")  # fmt: skip
    return [features.shape[1] for features in found]


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
