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
from cadiff.intensity import focus_degree, focus_side, mask_cells, reweight, strength, touched_cells
from cadiff.params import IntensityParams
from cadiff.prompt import attention_of, spread


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
    """IAR during one batch's denoising: rewrites maps as they pass, and reads the focus. What a pass computes beyond the batch's images
    (their empty prompts, which guidance asks for) stays as it is and is not read.

    ``healed`` types are re-weighted from the first step on: what is to go must not be drawn first. ``positions`` are each type's in its
    prompt, the first of its ``vectors``.
    """

    def __init__(
        self, positions: Tensor, masks: Tensor, intensity: Tensor, params: IntensityParams, side: int, healed: Tensor, vectors: int = 1
    ) -> None:
        self.positions, self.masks, self.params, self.vectors = positions, masks, params, vectors
        self.side = focus_side(side)
        self.enabled = True
        self._always = torch.full(positions.shape, not params.delayed_focus, device=positions.device) | healed
        self.focus = Focus(self._always & (positions >= 0), torch.where(self._always, 0, -1))
        self._counted = mask_cells(masks, self.side)
        self._strength = strength(intensity, self._counted, params.norm)
        self._touched: dict[int, Tensor] = {}

    def touched(self, cells: int) -> Bool[Tensor, "b k cells"]:
        """Where a map with this many cells is multiplied."""
        if cells not in self._touched:
            self._touched[cells] = touched_cells(self.masks, round(cells**0.5))
        return self._touched[cells]

    def __call__(self, maps: Float[Tensor, "b heads cells tokens"]) -> Float[Tensor, "b heads cells tokens"]:
        if not self.enabled:
            return maps
        own = (self.touched(maps.shape[2]), self._strength, self.focus.active)
        touched, weights, active = (values.repeat_interleave(self.vectors, 1) for values in own)
        positions, count = spread(self.positions, self.vectors), len(self.positions)
        changed = reweight(maps[:count], positions, touched, weights, active, self.params.masked_focus, self.params.outside)
        return changed if len(maps) == count else torch.cat([changed, maps[count:]])

    @property
    def tests_each_step(self) -> bool:
        """Whether each step needs a pass of its own, without re-weighting, of which focus is read (`test`)."""
        return self.params.focus == "each_step" and self.params.delayed_focus

    def test(self, maps: Sequence[Tensor], step: int) -> Reading:
        """Eq. 11 as printed: re-weighting acts in this step where the focus of this step's own maps passes the threshold, else not."""
        attention, focus = self._read(maps)
        self.focus.active = (self._always | (focus > self.params.threshold)) & (self.positions >= 0)
        self.focus.since = torch.where(self.focus.active & (self.focus.since < 0), step, self.focus.since)
        return Reading(step, attention, focus, self.focus.active)

    def observe(self, maps: Sequence[Tensor], step: int) -> Reading:
        """Starts re-weighting, from the next step on, where the focus has passed the threshold; it stays on."""
        attention, focus = self._read(maps)
        acting = self.focus.active
        begins = (focus > self.params.threshold) & ~acting & (self.positions >= 0)
        self.focus.since = torch.where(begins, step + 1, self.focus.since)
        self.focus.active = acting | begins
        return Reading(step, attention, focus, acting)

    def _read(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "b k cells"], Float[Tensor, "b k"]]:
        """Each type's attention, the mean over heads and over the layers at the focus's level, and its degree of focus."""
        level = [layer[: len(self.positions)].float().mean(1) for layer in maps if layer.shape[2] == self.side**2]
        if not level:
            sides = sorted({round(layer.shape[2] ** 0.5) for layer in maps})
            raise UsageError(f"base.size: focus is read at {self.side}x{self.side}, but this base has maps of {sides} only; set another")
        attention = attention_of(torch.stack(level).mean(0), self.positions, self.vectors)
        return attention, focus_degree(attention, self._counted)


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
