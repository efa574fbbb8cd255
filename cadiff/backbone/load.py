"""Loading a base: U-Net, autoencoder, text encoder, tokenizer and noise schedule from a folder or the hub."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from cadiff.devices import autocast, pick_device, pick_dtype
from cadiff.errors import CADiffError, UsageError
from cadiff.params import BaseParams
from cadiff.storage import digest, sha256_file

Autoencoder: TypeAlias = AutoencoderKL | AutoencoderTiny | AutoencoderDC
EMBEDDED = Path(__file__).parent / "embedded"
LOADING_ERRORS = (OSError, ValueError, SafetensorError)  # what the libraries raise at files that are not a model's
LEAST_WORDS = 100  # of a vocabulary that is one
WEIGHTS = ".safetensors"
READ = (WEIGHTS, ".json", ".txt")  # what is read of a base
CONTROL = ("controlnet", "saim")  # what a base may bring beside Stable Diffusion's parts
AT_ONCE = 512 * 512  # pixels that an accelerator's autoencoder sees at once: one picture of Stable Diffusion 1.5, which fills a card


@dataclass
class Backbone:
    """The frozen parts of Stable Diffusion's layout, on one device in one precision.

    ``path`` is where they came from, a folder or a hub name; ``digest`` names the weights: 16 hex digits over their
    files. ``grey``: the product was photographed without colour, and so is what comes out.
    """

    unet: UNet2DConditionModel
    vae: Autoencoder
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: DDPMScheduler
    device: torch.device
    dtype: torch.dtype
    path: str
    digest: str
    grey: bool = False

    @property
    def brings_control(self) -> bool:
        """Whether the base's folder also holds a ControlNet and SAIM trained on anomaly masks, to start from."""
        return all((Path(self.path) / part / "config.json").is_file() for part in CONTROL)

    def autocast(self) -> torch.autocast:
        """Computes in ``base.dtype``; weights stay in float32, so that what is trained is trained in float32."""
        return autocast(self.device, self.dtype)

    @property
    def reduction(self) -> int:
        """Pixels per latent cell, along a side."""
        return reduction_of({"_class_name": type(self.vae).__name__, **self.vae.config})

    def latent_side(self, size: int) -> int:
        """The side of the latents of ``size`` px images.

        Raises:
            UsageError: if the U-Net's levels do not divide it.
        """
        least = least_side(self.unet.config, self.reduction)
        if size % least:
            raise UsageError(f"base.size: expected a multiple of {least} for this base, found {size}")
        return size // self.reduction

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 h w"], narrow: bool = False) -> Float[Tensor, "b c hl wl"]:
        """Images in [-1, 1] as scaled latents (the mode of the posterior, where there is one).

        ``narrow``: to learn from, in ``base.dtype``. In float32 Stable Diffusion's autoencoder would cost a third of a training step;
        the embedded one costs nothing, and keeps it.
        """
        with self.autocast() if narrow and isinstance(self.vae, AutoencoderKL) else contextlib.nullcontext():
            return in_portions(self._encoded, images, images[0, 0].numel() if len(images) else 1, self.device)

    def _encoded(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        encoded = self.vae.encode(images.to(self.device))
        if hasattr(encoded, "latent_dist"):
            latents: Tensor = encoded.latent_dist.mode()
        else:
            latents = encoded.latent if hasattr(encoded, "latent") else encoded.latents
        return latents.float() * float(self.vae.config["scaling_factor"])

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        """Scaled latents as images in [-1, 1], float32 on the CPU."""
        pixels = latents[0, 0].numel() * self.reduction**2 if len(latents) else 1
        images = in_portions(self._decoded, latents, pixels, self.device).cpu()
        return images.mean(1, keepdim=True).expand_as(images).contiguous() if self.grey else images

    def _decoded(self, latents: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        scaled = latents.to(self.device).float() / self.vae.config["scaling_factor"]
        images: Tensor = self.vae.decode(scaled).sample.float().clamp(-1, 1)
        return images

    def tokenize(self, prompts: list[str]) -> Tensor:
        """Token ids (b length), padded to the text encoder's length, on the base's device.

        Raises:
            UsageError: if a prompt is too long to be read whole.
        """
        return self.token_ids(prompts).to(self.device)

    def token_ids(self, prompts: list[str]) -> Tensor:
        """The same on the CPU: a worker process must not touch the device.

        Raises:
            UsageError: if a prompt is too long to be read whole.
        """
        length = self.text_encoder.config.max_position_embeddings
        encoded = self.tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt")
        if encoded.input_ids.shape[1] > length:
            longest = max(prompts, key=len)
            raise UsageError(f"prompt: expected at most {length - 2} tokens, this one has more: {longest!r}")
        return torch.as_tensor(encoded.input_ids)

    def encode_text(self, ids: Tensor) -> Float[Tensor, "b tokens d"]:
        """The text encoder's last hidden states; gradients reach the input embeddings."""
        hidden: Tensor = self.text_encoder(ids)[0]
        return hidden

    def narrow(self) -> Backbone:
        """The frozen U-Net's weights in the precision that they are computed in (``narrowed``)."""
        narrowed(self.unet, self.dtype)
        return self

    def freeze(self) -> Backbone:
        for module in (self.unet, self.vae, self.text_encoder):
            module.requires_grad_(False).eval()
        return self


def in_portions(call: Callable[[Tensor], Tensor], batch: Tensor, pixels: int, device: torch.device) -> Tensor:
    """``call`` of a batch of pictures of so many ``pixels`` each. An accelerator takes ``AT_ONCE`` of them at a time, at least a picture:
    in float32 Stable Diffusion's decoder has 0.75 GiB for each of 512 px. A CPU takes all: its batch's shape decides the last bits."""
    if device.type == "cpu":
        return call(batch)
    return torch.cat([call(part) for part in batch.split(max(1, AT_ONCE // pixels))])


def narrowed(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Keeps a frozen model's linear and convolution weights in the precision that they are computed in.

    Autocast rounds the same weights at every use, and where something is trained keeps a second copy of each for the backward pass: the
    results have the same bits, without the copies and in half of the room.
    """
    if dtype != torch.float32:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
    return model


def reduction_of(vae: Mapping[str, Any]) -> int:
    """Pixels per latent cell along a side, from an autoencoder's configuration."""
    widths = vae["block_out_channels" if vae["_class_name"] == "AutoencoderKL" else "encoder_block_out_channels"]
    factor = int(vae["upsampling_scaling_factor"]) if vae["_class_name"] == "AutoencoderTiny" else 2
    return int(factor ** (len(widths) - 1))


def least_side(unet: Mapping[str, Any], reduction: int) -> int:
    """What a side in pixels must be a multiple of: pixels per latent cell, times what the U-Net's levels halve."""
    return int(reduction * 2 ** (len(unet["block_out_channels"]) - 1))


def load_whole(kind: Any, path: str | Path, **options: Any) -> Any:
    """``kind.from_pretrained``, but only of all weights: for those that its file lacks the library would draw random ones.

    Raises:
        LOADING_ERRORS: if there is no such file, it lacks weights of the model, or some have another shape than its config says.
    """
    place = options.get("subfolder", path)
    try:
        model, info = kind.from_pretrained(path, output_loading_info=True, **options)
    except RuntimeError as error:  # torch's, with a line for each weight
        if not any(mark in str(error) for mark in ("loading state_dict", "ignore_mismatched_sizes")):
            raise
        raise ValueError(f"{place}/: weights of other shapes than its config.json says: {str(error).splitlines()[-1].strip()}") from None
    if other := sorted(str(key) for key in info["mismatched_keys"]):
        raise ValueError(f"{place}/: weights of other shapes than its config.json says: {other[0]} first of {len(other)}")
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{place}/: its weights lack {len(missing)} of the model's tensors, {missing[0]} first; copy the whole model")
    return model


def _check_fit(path: str, unet: UNet2DConditionModel, vae: Autoencoder, text: CLIPTextModel) -> None:
    """That the parts are of one model, and of one that draws whole images.

    Raises:
        UsageError: if one part's numbers are not the other's, as an inpainting U-Net's, which takes a mask and an image as well.
    """
    channels = {"the U-Net takes": unet.config["in_channels"], "the U-Net gives": unet.config["out_channels"]}
    for what, found in channels.items():
        if found != (expected := vae.config["latent_channels"]):
            raise UsageError(
                f"base.path: {path!r}: {what} {found} channels, expected the autoencoder's {expected}; use a text-to-image base"
            )
    if unet.config["cross_attention_dim"] != (width := text.config.hidden_size):
        asked = unet.config["cross_attention_dim"]
        raise UsageError(f"base.path: {path!r}: expected a U-Net that reads the text encoder's {width} numbers a token, found {asked}")


def _vae_class(path: str, pinned: dict[str, str]) -> type[AutoencoderKL] | type[AutoencoderTiny] | type[AutoencoderDC]:
    config = AutoencoderKL.load_config(path, subfolder="vae", **pinned)
    classes: dict[str, type[AutoencoderKL] | type[AutoencoderTiny] | type[AutoencoderDC]] = {
        "AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny, "AutoencoderDC": AutoencoderDC,
    }  # fmt: skip
    if (name := str(config.get("_class_name"))) not in classes:
        raise CADiffError(f"{path}/vae/config.json: expected one of {', '.join(classes)}, found {name}")
    return classes[name]


def weights_digest(path: str, revision: str | None = None, variant: str | None = None) -> str:
    """16 hex digits over a base's weights: those of a folder, or of a hub name those that lie in the hub's cache. A name of which nothing
    is there stands for itself."""
    root, parts = Path(path), ("unet", "vae", "text_encoder", "tokenizer", "scheduler", *CONTROL)
    hub = not root.is_dir()
    if hub:
        try:
            root = Path(snapshot_download(path, revision=revision, local_files_only=True))
        except (OSError, ValueError):  # the hub's own: nothing in its cache, or no name of the hub's
            return digest({"hub": path, "revision": revision})
    files = sorted(file for part in parts for file in (root / part).rglob("*") if file.is_file())
    if hub:  # its cache may hold what other programs asked for: pickled weights, other variants
        own = f".{variant}." if variant else None
        files = [f for f in files if f.suffix in READ and (f.suffix != WEIGHTS or (own in f.name if own else f.name.count(".") == 1))]
    stamps = [(file, file.stat()) for file in files]
    return digest({f.relative_to(root).as_posix(): _file_digest(str(f), s.st_size, s.st_mtime_ns) for f, s in stamps})


@functools.cache
def _file_digest(path: str, size: int, modified: int) -> str:
    return sha256_file(path)


def load_words(params: BaseParams) -> tuple[CLIPTokenizer, int] | None:
    """The base's tokenizer and how many tokens its text encoder reads, without its weights; None where they are not on this machine."""
    path = str(EMBEDDED) if params.path == "embedded" else params.path
    options = {} if Path(path).is_dir() else {"local_files_only": True, "revision": params.revision}
    try:
        config = CLIPTextConfig.from_pretrained(path, subfolder="text_encoder", **options)
        return CLIPTokenizer.from_pretrained(path, subfolder="tokenizer", **options), int(config.max_position_embeddings)
    except LOADING_ERRORS:  # what is wrong with a folder is said where the base is loaded
        return None


def load_backbone(params: BaseParams) -> Backbone:
    """The base that ``params.path`` names, frozen. Safetensors only; no remote code.

    Raises:
        UsageError: if there is nothing of diffusers' layout at the path, a part of it is not whole, or ``params.size`` does not fit.
    """
    path = str(EMBEDDED) if params.path == "embedded" else params.path
    local = Path(path)
    if (local.exists() or params.path == "embedded") and not (local / "unet" / "config.json").is_file():
        raise UsageError(f"base.path: expected a model in diffusers' layout, but {local}/unet/config.json is not there")
    if params.revision is not None and (params.path == "embedded" or local.exists()):
        raise UsageError(
            f"base.revision: expected null with base.path: {params.path}, which is a folder and has none, found {params.revision!r}"
        )
    device = pick_device(params.device)
    dtype = pick_dtype(params.dtype, device, scaled=True)
    transformers_logging.disable_progress_bar()
    pinned = {} if params.revision is None else {"revision": params.revision}
    weights = {"use_safetensors": True, "variant": params.variant, **pinned}
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, **weights}
    try:
        unet = load_whole(UNet2DConditionModel, path, subfolder="unet", **options)
        vae = load_whole(_vae_class(path, pinned), path, subfolder="vae", **options)
        text = load_whole(CLIPTextModel, path, subfolder="text_encoder", dtype=torch.float32, **weights)
        tokenizer = CLIPTokenizer.from_pretrained(path, subfolder="tokenizer", **pinned)
        schedule = DDPMScheduler.from_pretrained(path, subfolder="scheduler", **pinned)
    except LOADING_ERRORS as error:
        raise UsageError(f"base.path: {params.path!r} cannot be loaded ({str(error).splitlines()[0]})") from None
    if len(tokenizer) < LEAST_WORDS:  # transformers makes one of two tokens where the files are not there
        raise UsageError(f"base.path: {params.path!r}: expected a CLIP tokenizer under tokenizer/, found {len(tokenizer)} tokens")
    _check_fit(params.path, unet, vae, text)
    for module in (unet, vae, text):
        module.to(device)
    made_of = weights_digest(path, params.revision, params.variant)
    backbone = Backbone(unet, vae, text, tokenizer, schedule, device, dtype, path, made_of).freeze()
    backbone.latent_side(params.size)  # a size that does not fit is named before anything is trained
    return backbone
