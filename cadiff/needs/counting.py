"""One step of training and of drawing, counted without weights.

Each, of the base's own architecture, is run on torch's meta device, which computes shapes and no values: its peak of live bytes and its
floating-point operations are counted, not guessed. Nothing is loaded but the base's configurations.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import diffusers
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from cadiff.backbone import EMBEDDED, CrossAttentionTap, recompute, sd15
from cadiff.backbone.load import in_portions, reduction_of
from cadiff.control import SpatialControl
from cadiff.generator.reweighting import Reweighting, tapped
from cadiff.params import BaseParams, Params

GIB = 2**30
BY_NAME = "by SD 1.5's published shapes"
# What CUDA's context and its libraries' work space take. With it a batch of 16 is 36.5 GB, where an H200 took about 39: its allocator's
# unused pieces are not counted.
CUDA_SPACE = 0.6 * GIB
Shapes: TypeAlias = tuple[dict[str, Any], dict[str, Any], CLIPTextConfig]  # of U-Net, autoencoder and text encoder


class Live(TorchDispatchMode):
    """While entered, counts the bytes of all tensors that came to be and are alive: ``now``, and at most (``peak``).

    ``there`` are those that were before. A view of one, such as the transpose that a linear layer takes of its weight, is nothing new.
    """

    def __init__(self, there: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's, which says no types
        self.now = self.peak = 0
        self._there = [tensor.untyped_storage() for tensor in there]  # kept, or another could have the place of one
        self._seen = {storage._cdata for storage in self._there}

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@contextmanager
def _fused() -> Iterator[None]:
    """Attention by the kernel that a card takes, which keeps no map; on the meta device torch would take the plain one. In the
    module's place, so that what is computed again in the backward pass takes it too."""
    plain = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _flash  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


def _flash(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    found: Tensor = _Flash.apply(query, key, value)  # type: ignore[no-untyped-call]  # likewise
    return found


class _Flash(torch.autograd.Function):
    """What the kernel keeps and how much it computes: backward about twice as much as forward."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        ctx.save_for_backward(query, key, value, found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _ = ctx.saved_tensors
        for _ in range(2):
            torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@dataclass(frozen=True)
class Step:
    """One pass of a training step over ``pictures``: parameters by part, bytes of activations at most in half precision, and
    floating-point operations: of the pass forward and backward, of drawing an image once, of the autoencoder's two halves."""

    frozen: int
    trained: int
    autoencoder: int
    text: int
    pictures: int
    activations: int
    learning: int
    denoising: int
    encoding: int
    decoding: int

    def memory(self, optimizer: str, narrow: bool, cuda: bool) -> float:
        """Bytes at most. A trained weight has 4, its gradient 4, AdamW's averages 8 (in 8 bits 2) and, in a narrow precision, a copy
        of 2; a frozen one 2 where that is narrow, else 4."""
        trained = self.trained * (4 + 4 + (8 if optimizer == "adamw" else 2) + (2 if narrow else 0))
        frozen = self.frozen * (2 if narrow else 4) + 4 * (self.autoencoder + self.text)
        activations = self.activations * (1 if narrow else 2)
        return float(trained + frozen + activations + (CUDA_SPACE if cuda else 0))


@dataclass(frozen=True)
class Drawing:
    """Drawing ``pictures`` together: bytes of activations at most, of a denoising step in half precision and of the autoencoder in
    float32."""

    pictures: int
    denoising: int
    decoding: int

    def memory(self, step: Step, narrow: bool, cuda: bool) -> float:
        """Bytes at most. U-Net and control have 2 a weight where they are narrow, else 4, as autoencoder and text encoder always."""
        weights = (step.frozen + step.trained) * (2 if narrow else 4) + 4 * (step.autoencoder + step.text)
        return float(weights + max(self.denoising * (1 if narrow else 2), self.decoding) + (CUDA_SPACE if cuda else 0))


def configurations(base: BaseParams) -> Shapes | None:
    """Those of the base's parts, from its folder or the hub's cache; None: not on this machine yet."""
    path = str(EMBEDDED) if base.path == "embedded" else base.path
    options = {} if Path(path).is_dir() else {"local_files_only": True, "revision": base.revision}
    try:
        unet, vae = (UNet2DConditionModel.load_config(path, subfolder=part, **options) for part in ("unet", "vae"))
        return unet, vae, CLIPTextConfig.from_pretrained(path, subfolder="text_encoder", **options)
    except OSError:
        return None


def shapes_of(base: BaseParams) -> tuple[Shapes, str] | None:
    """The base's configurations and how they are known: its own ("" then), or by its name. None: they are not."""
    if (found := configurations(base)) is not None:
        return found, ""
    return (sd15.configurations(), BY_NAME) if sd15.is_sd15(base.path) else None


class _Parts(NamedTuple):
    """The base's parts and a control on the meta device, those that compute narrowly in half precision; the latents' channels and side."""

    unet: UNet2DConditionModel
    vae: Any
    encoder: CLIPTextModel
    control: SpatialControl
    channels: int
    side: int

    def inputs(self, pictures: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, text, mask and t of so many pictures."""
        length, width = self.encoder.config.max_position_embeddings, self.encoder.config.hidden_size
        shapes = ((self.channels, self.side, self.side), (length, width), (1, size, size))
        latents, text, mask = (torch.empty(pictures, *shape, dtype=torch.bfloat16, device="meta") for shape in shapes)
        return latents, text, mask, torch.empty(pictures, dtype=torch.long, device="meta")


def _on_meta(params: Params, unet_config: dict[str, Any], vae_config: dict[str, Any], text_config: CLIPTextConfig) -> _Parts:
    size = params.base.size
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(unet_config).requires_grad_(False)
        vae, encoder = getattr(diffusers, vae_config["_class_name"]).from_config(vae_config), CLIPTextModel(text_config)
        side = size // reduction_of(vae_config)
        control = SpatialControl.copy_of(unet, size // side, params.control)
    for parameter in (*unet.parameters(), *control.controlnet.parameters()):  # not SAIM's, which norms in float32 as under autocast
        parameter.data = parameter.data.to(torch.bfloat16)
    return _Parts(unet, vae, encoder, control, int(unet.config["in_channels"]), side)


def step_of(params: Params, unet_config: dict[str, Any], vae_config: dict[str, Any], text_config: CLIPTextConfig) -> Step:
    """One pass of ``train.batch`` / ``train.accumulate`` pictures of ``base.size``, in half precision, on the meta device.

    Gradients of weights are let go as they come, so that what is counted is activations.
    """
    size, pictures = params.base.size, params.train.batch // params.train.accumulate
    parts = _on_meta(params, unet_config, vae_config, text_config)
    unet, vae, encoder, control, *_ = parts
    latents, text, mask, t = parts.inputs(pictures, size)
    image = torch.empty(1, 3, size, size, device="meta")
    text.requires_grad_()
    for parameter in control.parameters():
        parameter.register_post_accumulate_grad_hook(_let_go)
    for model in (unet, control.controlnet, control.saim) if params.train.checkpointing else ():
        recompute(model)
    there = (*unet.parameters(), *control.parameters(), latents, text, mask, t)
    with CrossAttentionTap(unet, keep=False), _fused(), FlopCounterMode(display=False) as learning, Live(there) as live:
        control.denoise(unet, latents, t, text, mask).float().square().mean().backward()
    for part in (control, vae, text):  # the counter hooks onto what has gradients
        part.requires_grad_(False)
    denoising = flops_of(lambda: control.denoise(unet, latents[:1], t[:1], text[:1], mask[:1]))
    encoding, decoding = flops_of(lambda: vae.encoder(image)), flops_of(lambda: vae.decoder(latents[:1].float()))
    frozen, trained, autoencoder, reading = (sum(p.numel() for p in part.parameters()) for part in (unet, control, vae, encoder))
    return Step(frozen, trained, autoencoder, reading, pictures, live.peak, learning.get_total_flops(), denoising, encoding, decoding)


@torch.no_grad()
def drawing_of(params: Params, unet_config: dict[str, Any], vae_config: dict[str, Any], text_config: CLIPTextConfig) -> Drawing:
    """A denoising step of ``generate.batch`` pictures of ``base.size``, re-weighted, their empty prompts with them where guidance asks for
    these; and their decoding as an accelerator does it (``in_portions``). On the meta device."""
    size, pictures = params.base.size, params.generate.batch
    parts = _on_meta(params, unet_config, vae_config, text_config)
    asked = pictures * (2 if params.generate.guidance_scale > 1 else 1)
    latents, text, mask, t = parts.inputs(asked, size)
    positions, weights = (torch.ones(pictures, 1, dtype=kind, device="meta") for kind in (torch.long, torch.float32))
    rewriting = Reweighting(positions, mask[:pictures] > 0, weights, params.intensity, parts.side, torch.zeros_like(positions) > 0)
    there = (*parts.unet.parameters(), *parts.control.parameters(), latents, text, mask, t, positions, weights)
    with tapped(parts.unet, parts.control.controlnet, rewriting, params.intensity.in_control) as tap, _fused(), Live(there) as denoising:
        parts.control.denoise(parts.unet, latents, t, text, mask)
        rewriting.observe(tap.maps, 0)
        tap.clear()
    found = latents[:pictures].float()
    with _fused(), Live((*parts.vae.parameters(), found)) as decoding:
        in_portions(lambda part: parts.vae.decode(part).sample, found, size**2, found.device)
    return Drawing(pictures, denoising.peak, decoding.peak)


def _let_go(parameter: Tensor) -> None:
    parameter.grad = None


def flops_of(call: Callable[[], object]) -> int:
    """Floating-point operations of a call."""
    with _fused(), FlopCounterMode(display=False) as counter:
        call()
    counted: int = counter.get_total_flops()
    return counted
