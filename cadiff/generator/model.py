"""What draws one product's anomalies: the base, its words, and the control on masks; or what sets exemplars in without any of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusers import ControlNetModel
from jaxtyping import Float
from torch import Tensor

from cadiff.backbone import Backbone
from cadiff.control import SpatialControl
from cadiff.prompt import LearnedTokens, PlainWords, Prompt


@dataclass
class Generator:
    """``tokens`` make prompts; without a ``control`` the base alone draws; ``digest`` names the trained weights."""

    backbone: Backbone
    tokens: LearnedTokens | PlainWords
    control: SpatialControl | None
    digest: str

    @property
    def base_digest(self) -> str:
        return self.backbone.digest

    @property
    def controlnet(self) -> ControlNetModel | None:
        return self.control.controlnet if self.control else None

    def prompt(self, types: Sequence[str], template: int) -> Prompt:
        """The ``template``-th way to say the product with these anomaly types (none: a good part)."""
        return self.tokens.prompt(self.backbone, list(types), template)

    def encode(self, prompts: Sequence[Prompt]) -> Float[Tensor, "b tokens d"]:
        return self.tokens.encode(self.backbone, list(prompts))

    def denoise(
        self, latents: Float[Tensor, "b c hl wl"], t: Tensor, text: Float[Tensor, "b tokens d"], mask: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b c hl wl"]:
        """The U-Net's prediction, with the control where there is one."""
        if self.control is None:
            predicted: Tensor = self.backbone.unet(latents, t, text).sample
            return predicted
        return self.control.denoise(self.backbone.unet, latents, t, text, mask)


@dataclass(frozen=True)
class Paster:
    """What draws nothing: each scene's exemplars are set in as they are. It has no base."""

    digest: str
    base_digest: None = None
