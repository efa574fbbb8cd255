"""Sections of what is drawn: where masks lie, with which intensity, from what, and which of it is left out."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from cadiff.params.section import Section


class MaskParams(Section):
    """Where synthesis masks come from. Those of a folder lie in ``data/masks/<product>/<anomaly_type>/*.png``."""

    RECIPE: ClassVar = frozenset({"max_cut"})

    source: Literal["exemplars", "folder"] = Field(
        "exemplars", description="exemplars: theirs, moved, turned, scaled and mirrored; folder: those that someone drew, in data/masks"
    )
    placement: Literal["auto", "anywhere", "on_part", "in_place"] = Field(
        "auto",
        description="where a mask may lie. auto: where what surrounds it looks as around its exemplar, found from the pictures for each "
        "type; anywhere: on the product, near its exemplar's place; on_part: as the part lies; in_place: in its exemplar's own picture",
    )
    max_cut: float = Field(0.5, ge=0, le=1, description="largest share of a mask that placement may cut away")

    @model_validator(mode="after")
    def _drawn_masks_have_no_exemplar(self) -> MaskParams:
        if self.source == "folder" and self.placement in ("on_part", "in_place"):
            raise ValueError(f"placement: expected auto with source: folder, whose masks have no exemplar, found {self.placement}")
        return self


class IntensityParams(Section):
    """IAR, Eq. 11; w is drawn uniformly from [low, high] per image."""

    RECIPE: ClassVar = frozenset({"masked_focus", "outside", "norm", "delayed_focus", "focus", "threshold", "in_control"})

    low: float = Field(0.9, ge=-2, le=2, description="least w; fainter anomalies cost a detector more than they teach it (paper: 0.5)")
    high: float = Field(1.5, ge=-2, le=2, description="largest w (paper: 1.5)")
    masked_focus: bool = Field(True, description="Eq. 11 with the anomaly's own mask (Table 4, MFA)")
    outside: Literal["kept", "zero"] = Field(
        "kept", description="attention outside of the mask, of masked focus: as it was, or zero, Eq. 11's M as a factor"
    )
    norm: Literal["one", "cells"] = Field(
        "one", description="what ||M||_1 multiplies by in Eq. 11: nothing, or the mask's number of cells where focus is read (as printed)"
    )
    delayed_focus: bool = Field(True, description="re-weighting begins once the focus has passed the threshold (Table 4, DFS)")
    focus: Literal["latched", "each_step"] = Field(
        "latched",
        description="once a focus has passed the threshold re-weighting stays on, from the next step; each_step: alpha_t is tested at "
        "each step and acts in it (as printed), which takes a second pass",
    )
    threshold: float = Field(0.75, ge=0, description="alpha_thr (paper: 0.75)")
    in_control: bool = Field(
        True, description="the attention of the control, a copy of the encoder, is re-weighted as the U-Net's; false: the U-Net's alone"
    )

    @model_validator(mode="after")
    def _ordered(self) -> IntensityParams:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


class GenerateParams(Section):
    """Sampling."""

    RECIPE: ClassVar = frozenset({"scheduler", "background", "strength", "blend", "redraw", "dilate"})

    per_type: int = Field(64, ge=1, description="images per anomaly type (paper: 1000)")
    steps: int = Field(10, ge=1, description="denoising steps (paper: 50)")
    guidance_scale: float = Field(1.5, ge=1, description="higher: more like the word, less like the product; 1: no second pass (paper)")
    start: Literal["noise", "background", "exemplar"] = Field(
        "exemplar",
        description="what an image is drawn from. noise (paper); background: its real picture, noised; exemplar: that picture with the "
        "exemplar of its mask set into it, noised, for products that the base does not know",
    )
    batch: int = Field(16, ge=1, description="images that are drawn together, and kept together where a run is stopped")
    scheduler: Literal["ddim", "dpm"] = Field("dpm", description="paper: ddim")
    background: Literal["generated", "real"] = Field(
        "real",
        description="real: what is outside of the dilated mask is a real normal's, or with masks.placement: in_place the exemplar's own; "
        "generated: drawn as the rest (paper)",
    )
    strength: float = Field(0.2, gt=0, lt=1, description="share of the steps that are taken where the start is a noised picture")
    blend: float | None = Field(
        2.0, ge=0,
        description="canvas px over which what was drawn fades into a real background, which beyond them stays byte for byte; 0: at the "
        "mask's edge; null: all of what was drawn is kept, cut at latent cells (paper; with window.cut: whole alone)",
    )  # fmt: skip
    redraw: bool = Field(
        True,
        description="normals with a place drawn anew, without an anomaly's word, are the detector's too, so that denoising's trace tells "
        "nothing; for a control that learned masks without a word (train.normal_share less train.silenced of it)",
    )
    dilate: int = Field(0, ge=0, description="latent cells by which the mask grows before the background is kept")

    @property
    def taken(self) -> float:
        """Share of the steps that are taken: all of them from noise."""
        return 1.0 if self.start == "noise" else self.strength

    @model_validator(mode="after")
    def _what_is_kept_is_there(self) -> GenerateParams:
        if self.start != "noise" and self.background != "real":
            raise ValueError(
                f"start: expected noise with background: {self.background}, which is no picture to start from, found {self.start}; "
                "set start: noise, or recipe.generate.background: real"
            )
        if self.redraw and self.background != "real":
            raise ValueError(f"redraw: expected background: real, of which a part is drawn anew, found {self.background}; or redraw: false")
        return self


class PerturbedParams(Section):
    """The generator ``perturbed``: normals noised and denoised in random places, without any exemplar."""

    RECIPE: ClassVar = frozenset({"strength"})

    strength: float = Field(
        0.7, gt=0, lt=1, description="share of the steps that are taken from the noised normal; the more, the less of it is left"
    )


class FilterParams(Section):
    """Rules by which generated images are left out of what a detector and a classifier learn from (cadiff/metrics/quality.py
    has the signals). An image is left out if a signal is below its least value; null: no rule. Where a signal is unknown
    the image stays, and augmented exemplars always do. Rules need ``detector.protocol: filtered``.
    """

    RECIPE: ClassVar = frozenset({"min_exemplar_distance", "min_mask_agreement", "min_normal_distance"})

    min_exemplar_distance: float | None = Field(None, gt=0, description="0.5: no likely copies of an exemplar")
    min_mask_agreement: float | None = Field(None, gt=0, le=1, description="0.5: none that changed more beside its mask than in it")
    min_normal_distance: float | None = Field(None, gt=0, description="1: none whose defect is no more unusual than normal images")

    @property
    def rules(self) -> dict[str, float]:
        """The least value of each signal that has a rule."""
        return {name.removeprefix("min_"): least for name, least in self.model_dump().items() if least is not None}
