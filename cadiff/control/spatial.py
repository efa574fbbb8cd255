"""The trainable copy of the encoder, and the hooks that bring it into a frozen U-Net."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from cadiff.backbone import Backbone
from cadiff.backbone.load import LOADING_ERRORS, load_whole, narrowed
from cadiff.backbone.save import save_part
from cadiff.control.saim import SelfAdaptiveInteraction
from cadiff.errors import CADiffError, UsageError
from cadiff.params import ControlParams


class SpatialControl(nn.Module):
    """ControlNet with SAIM at every skip and at the mid block; the condition is the anomaly mask (b 1 h w, 0/1)."""

    def __init__(self, controlnet: ControlNetModel, saim: SelfAdaptiveInteraction) -> None:
        super().__init__()
        self.controlnet, self.saim = controlnet, saim

    @classmethod
    def started(cls, backbone: Backbone, params: ControlParams) -> SpatialControl:
        """What training starts from: a copy of the encoder (the paper), or the control that the base brings.

        A base's ``saim`` is taken where its form is the one asked for; another form starts at the identity.

        Raises:
            UsageError: if ``control.start`` is ``base`` and the base brings none.
        """
        if params.start == "copy":
            return cls.copy_of(backbone.unet, backbone.reduction, params).to(backbone.device)
        if not backbone.brings_control:
            raise UsageError(
                f"recipe.control.start: base, but {backbone.path} has no controlnet/ and saim/ on anomaly masks. Use "
                "recipe.control.start: copy."
            )
        control = cls.load(Path(backbone.path), backbone).train()
        asked = {"heads": params.heads, "interaction": params.interaction, "positions": params.positions}
        if any(control.saim.config[name] != value for name, value in asked.items()):
            control.saim = _new_saim(control.controlnet, params).to(backbone.device)
        return control.requires_grad_(True)

    @classmethod
    def copy_of(cls, unet: UNet2DConditionModel, reduction: int, params: ControlParams) -> SpatialControl:
        """The paper's start: the encoder copied, zero-convolutions and the interaction at the identity.

        ``reduction`` is the autoencoder's, pixels per latent cell along a side.
        """
        stages = reduction.bit_length() - 1  # the mask is halved until it has the latents' side
        widths = (16, 32, 96, *[256] * stages)[: stages + 1]
        controlnet = ControlNetModel.from_unet(unet, conditioning_channels=1, conditioning_embedding_out_channels=widths)
        return cls(controlnet, _new_saim(controlnet, params)).requires_grad_(True)

    def copy_encoder(self, unet: UNet2DConditionModel) -> None:
        """Takes the U-Net's encoder as it is now; what the control adds of its own stays."""
        for name in ("conv_in", "time_proj", "time_embedding", "down_blocks", "mid_block"):
            getattr(self.controlnet, name).load_state_dict(getattr(unet, name).state_dict())

    def save(self, folder: Path) -> None:
        """Two diffusers folders with safetensors: ``controlnet`` and ``saim``."""
        save_part(self.controlnet, folder / "controlnet")
        save_part(self.saim, folder / "saim")

    @classmethod
    def load(cls, folder: Path, backbone: Backbone) -> SpatialControl:
        for part in ("controlnet", "saim"):
            if not (folder / part / "config.json").is_file():
                raise CADiffError(f"{folder / part}/config.json: not there; run the train stage of this product.")
        options = {"torch_dtype": torch.float32, "use_safetensors": True, "low_cpu_mem_usage": False}
        try:
            saim = SelfAdaptiveInteraction.from_config(SelfAdaptiveInteraction.load_config(folder / "saim"))
            if saim.interaction != "none":  # plain ControlNet has no weights of its own here, so no file of them
                saim = load_whole(SelfAdaptiveInteraction, folder / "saim", **options)
            control = cls(load_whole(ControlNetModel, folder / "controlnet", **options), saim)
        except LOADING_ERRORS as error:
            raise CADiffError(f"{folder}: its controlnet/ or saim/ cannot be loaded ({str(error).splitlines()[0]}).") from None
        return control.to(backbone.device).requires_grad_(False).eval()

    def narrow(self, dtype: torch.dtype) -> SpatialControl:
        """A trained one's weights in the precision that they are computed in (``narrowed``)."""
        narrowed(self, dtype)
        return self

    def features(
        self, latents: Float[Tensor, "b c hl wl"], t: Tensor, text: Float[Tensor, "b tokens d"], mask: Float[Tensor, "b 1 h w"]
    ) -> list[Tensor]:
        """y_c of every skip, then of the mid block."""
        down, mid = self.controlnet(latents, t, text, mask, return_dict=False)
        return [*down, mid]

    def denoise(
        self, unet: UNet2DConditionModel, latents: Float[Tensor, "b c hl wl"], t: Tensor,
        text: Float[Tensor, "b tokens d"], mask: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b c hl wl"]:  # fmt: skip
        """The U-Net's prediction with this control."""
        with joined(unet, self.features(latents, t, text, mask), self.saim):
            predicted: Tensor = unet(latents, t, text).sample
        return predicted


def _new_saim(controlnet: ControlNetModel, params: ControlParams) -> SelfAdaptiveInteraction:
    channels = skip_channels(controlnet)
    if params.interaction != "none" and any(count % params.heads for count in channels):
        raise UsageError(f"recipe.control.heads: expected a divisor of this base's channels {sorted(set(channels))}, found {params.heads}")
    saim: SelfAdaptiveInteraction = SelfAdaptiveInteraction(
        channels=channels, heads=params.heads, interaction=params.interaction, positions=params.positions
    )
    return saim


def skip_channels(controlnet: ControlNetModel) -> tuple[int, ...]:
    """Channels of every skip, then of the mid block."""
    zero_convolutions = [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]
    return tuple(convolution.out_channels for convolution in zero_convolutions)


@contextmanager
def joined(unet: UNet2DConditionModel, control: Sequence[Tensor], saim: SelfAdaptiveInteraction) -> Iterator[None]:
    """While entered, every skip y of the U-Net's next pass becomes saim(y, y_c), and its mid block's output too.

    The decoder concatenates a skip with its own features: that is Eq. 10's concat, so no channel count changes.
    """
    left = len(control) - 1

    def at_up_block(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal left
        skips = named["res_hidden_states_tuple"]
        left -= len(skips)
        changed = tuple(saim(left + k, y, control[left + k].to(y.dtype)) for k, y in enumerate(skips))
        return inputs, {**named, "res_hidden_states_tuple": changed}

    def after_mid_block(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        changed: Tensor = saim(len(control) - 1, output, control[-1].to(output.dtype))
        return changed

    handles = [block.register_forward_pre_hook(at_up_block, with_kwargs=True) for block in unet.up_blocks]
    handles.append(unet.mid_block.register_forward_hook(after_mid_block))
    try:
        yield
        if left != 0:
            raise CADiffError(f"control: expected to meet every skip of the U-Net, {left} of {len(control) - 1} were not met.")
    finally:
        for handle in handles:
            handle.remove()
