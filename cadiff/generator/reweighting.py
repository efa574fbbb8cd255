"""Attention re-weighting of a batch (Eq. 11): its state over the denoising steps, and the models that it acts in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cadiff.backbone import CrossAttentionTap
from cadiff.errors import UsageError
from cadiff.intensity import focus_degree, focus_side, mask_cells, reweight, touched_cells
from cadiff.params import IntensityParams


@dataclass
class Focus:
    """The delayed focus scheduler's state, per image and type: whether re-weighting acts, and since which step."""

    active: Bool[Tensor, "b k"]
    since: Int[Tensor, "b k"]


@dataclass(frozen=True)
class Reading:
    """What the scheduler saw at one step: each type's attention before re-weighting, its focus, and whether
    re-weighting acted in that step. Row b is the image asked for at place ``images[b]``; one may come twice."""

    step: int
    attention: Float[Tensor, "b k cells"]
    focus: Float[Tensor, "b k"]
    acting: Bool[Tensor, "b k"]
    images: tuple[int, ...] = ()


class Reweighting:
    """IAR during one batch's denoising: rewrites maps as they pass, and reads the focus after each step.

    ``healed`` types are re-weighted from the first step on: what is to go must not be drawn first.
    """

    def __init__(
        self, positions: Tensor, masks: Tensor, intensity: Tensor, params: IntensityParams, side: int, healed: Tensor
    ) -> None:
        self.positions, self.masks, self.intensity, self.params = positions, masks, intensity, params
        self.side = focus_side(side, params.resolution)
        self.enabled = True
        begun = torch.full(positions.shape, not params.delayed_focus, device=positions.device) | healed
        self.focus = Focus(begun & (positions >= 0), torch.where(begun, 0, -1))
        self._counted = mask_cells(masks, self.side)
        self._touched: dict[int, Tensor] = {}

    def touched(self, cells: int) -> Bool[Tensor, "b k cells"]:
        """Where a map with this many cells is multiplied."""
        if cells not in self._touched:
            self._touched[cells] = touched_cells(self.masks, round(cells**0.5))
        return self._touched[cells]

    def __call__(self, maps: Float[Tensor, "b heads cells tokens"]) -> Float[Tensor, "b heads cells tokens"]:
        if not self.enabled:
            return maps
        touched = self.touched(maps.shape[2])
        return reweight(maps, self.positions, touched, self.intensity, self.focus.active, self.params.masked_focus)

    def observe(self, maps: Sequence[Tensor], step: int) -> Reading:
        """Starts re-weighting, from the next step on, where the focus has passed the threshold; it stays on."""
        level = [layer.float().mean(1) for layer in maps if layer.shape[2] == self.side**2]
        if not level:
            sides = sorted({round(layer.shape[2] ** 0.5) for layer in maps})
            raise UsageError(f"intensity.resolution: expected the side of one of this base's maps ({sides}), found {self.side}")
        mean = torch.stack(level).mean(0)
        index = self.positions.clamp(min=0)[:, None, :].expand(-1, mean.shape[1], -1)
        attention = mean.gather(2, index).transpose(1, 2)
        focus, acting = focus_degree(attention, self._counted), self.focus.active
        begins = (focus > self.params.threshold) & ~acting & (self.positions >= 0)
        self.focus.since = torch.where(begins, step + 1, self.focus.since)
        self.focus.active = acting | begins
        return Reading(step, attention, focus, acting)


@contextmanager
def tapped(
    unet: UNet2DConditionModel, controlnet: ControlNetModel | None, rewriting: Reweighting | None, in_control: bool = True
) -> Iterator[CrossAttentionTap]:
    """While entered, ``rewriting`` acts in the U-Net and, with ``in_control``, in the control's copy of its encoder, which attends
    to the same words. Yields the U-Net's maps alone: they are what focus is read from, and what localisation trains."""
    with CrossAttentionTap(unet, rewriting) as tap:
        if rewriting is None or controlnet is None or not in_control:
            yield tap
        else:
            with CrossAttentionTap(controlnet, rewriting, keep=False):
                yield tap
