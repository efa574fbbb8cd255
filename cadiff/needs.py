"""What a preset takes before it is started: memory of a training step, hours, disk.

One step of the base's own architecture is run on torch's meta device, which computes shapes and no values: its peak of live bytes and
its floating-point operations are counted, not guessed. Nothing is loaded but the base's configurations.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from cadiff.backbone import EMBEDDED, CrossAttentionTap, recompute
from cadiff.backbone.load import reduction_of
from cadiff.control import SpatialControl
from cadiff.devices import pick_device, pick_dtype
from cadiff.params import BaseParams, Params
from cadiff.progress import duration

GIB = 2**30
# What CUDA's context and its libraries' work space take. With it a batch of 16 is 36.5 GB, where an H200 took about 39: its allocator's
# unused pieces are not counted.
CUDA_SPACE = 0.6 * GIB
ATTAINED = 0.35  # of what a matrix product reaches on the same card: one H200 took 0.44 s for a step at 512 px
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


def configurations(base: BaseParams) -> Shapes | None:
    """Those of the base's parts, from its folder or the hub's cache; None: not on this machine yet."""
    path = str(EMBEDDED) if base.path == "embedded" else base.path
    options = {} if Path(path).is_dir() else {"local_files_only": True, "revision": base.revision}
    try:
        unet, vae = (UNet2DConditionModel.load_config(path, subfolder=part, **options) for part in ("unet", "vae"))
        return unet, vae, CLIPTextConfig.from_pretrained(path, subfolder="text_encoder", **options)
    except OSError:
        return None


def step_of(params: Params, unet_config: dict[str, Any], vae_config: dict[str, Any], text_config: CLIPTextConfig) -> Step:
    """One pass of ``train.batch`` / ``train.accumulate`` pictures of ``base.size``, in half precision, on the meta device.

    Gradients of weights are let go as they come, so that what is counted is activations.
    """
    size, pictures = params.base.size, params.train.batch // params.train.accumulate
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(unet_config).requires_grad_(False)
        vae, encoder = getattr(diffusers, vae_config["_class_name"]).from_config(vae_config), CLIPTextModel(text_config)
        side, channels = size // reduction_of(vae_config), int(unet.config["in_channels"])
        control = SpatialControl.copy_of(unet, size // side, params.control)
        latents = torch.empty(pictures, channels, side, side, dtype=torch.bfloat16)
        text = torch.empty(pictures, text_config.max_position_embeddings, text_config.hidden_size, dtype=torch.bfloat16)
        mask, t = torch.empty(pictures, 1, size, size, dtype=torch.bfloat16), torch.empty(pictures, dtype=torch.long)
        image = torch.empty(1, 3, size, size)
    for parameter in (*unet.parameters(), *control.controlnet.parameters()):  # not SAIM's, which norms in float32 as under autocast
        parameter.data = parameter.data.to(torch.bfloat16)
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
    denoising = _flops(lambda: control.denoise(unet, latents[:1], t[:1], text[:1], mask[:1]))
    encoding, decoding = _flops(lambda: vae.encoder(image)), _flops(lambda: vae.decoder(latents[:1].float()))
    frozen, trained, autoencoder, reading = (sum(p.numel() for p in part.parameters()) for part in (unet, control, vae, encoder))
    return Step(frozen, trained, autoencoder, reading, pictures, live.peak, learning.get_total_flops(), denoising, encoding, decoding)


def _let_go(parameter: Tensor) -> None:
    parameter.grad = None


def _flops(call: Callable[[], object]) -> int:
    with _fused(), FlopCounterMode(display=False) as counter:
        call()
    counted: int = counter.get_total_flops()
    return counted


def attained(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Operations a second of a large matrix product on a device."""
    side = 4096 if device.type == "cuda" else 1024
    one = torch.ones(side, side, device=device, dtype=dtype)
    (one @ one).sum().item()
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        (one @ one).sum().item()
        count += 1
    return 2 * side**3 * count / (time.monotonic() - began)


def needs(params: Params) -> list[tuple[str, str]]:
    """What training and drawing one product takes, as pairs of a name and what was found."""
    found = configurations(params.base)
    if found is None:
        return [("need", "known once the base's config.json files are here; it counts one step of its architecture")]
    device = pick_device(params.base.device)
    dtype, train = pick_dtype(params.base.dtype, device, scaled=True), params.train
    step, narrow, cuda = step_of(params, *found), dtype != torch.float32, device.type == "cuda"
    memory = step.memory(train.optimizer, narrow, cuda) / GIB
    passes = f"train.batch {train.batch} in {train.accumulate} passes of {step.pictures} at {params.base.size} px"
    rate = ATTAINED * attained(device, dtype)
    step_seconds = train.accumulate * (step.learning + step.pictures * step.encoding) / rate
    image_seconds = (params.generate.steps * step.denoising * (2 if params.generate.guidance_scale > 1 else 1) + step.decoding) / rate
    shard = 2 * params.base.size**2 * params.generate.per_type
    return [
        ("need memory", f"{memory:.1f} GiB of weights, gradients and activations ({passes}){_room(memory, device)}"),
        ("need time", f"{duration(1000 * step_seconds)} for 1000 steps, {duration(1000 * image_seconds)} for 1000 images: "
         f"arithmetic, {ATTAINED:.0%} of what a matrix product reaches on {device} ({rate / ATTAINED / 1e12:.3g} TFLOPS)"),
        ("need disk", f"a product: generator {4 * step.trained / GIB:.2f} GiB, checkpoint {12 * step.trained / GIB:.2f} GiB until it is "
         f"trained, {params.generate.per_type} images {shard / GIB:.2f} GiB; as much again in DVC's cache where it cannot link"),
    ]  # fmt: skip


def _room(memory: float, device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    there = torch.cuda.get_device_properties(device).total_memory / GIB
    if memory <= there:
        return f"; {device} has {there:.1f} GiB"
    return (
        f"; error: {device} has {there:.1f} GiB: set train.accumulate higher, train.checkpointing: true, or train.optimizer: adamw-8bit"
    )
