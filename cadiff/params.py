"""Typed parameters, and the only reader of YAML. Unknown keys are errors; every section is one pydantic model."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cadiff import names
from cadiff.errors import UsageError
from cadiff.records import ChosenProtocol
from cadiff.storage import MaskRule, digest

Layout = Literal["demo", "mvtec", "visa", "loco", "folder"]
ExportFormat = Literal["mvtec", "coco", "yolo", "voc", "huggingface"]  # of `cadiff export`: known before what writes them is loaded
VISA_TABLE = "../split_csv/1cls.csv"
NETWORKS = ("unet", "efficientnet-lite0")  # of a detector
SMP = "smp:"  # before the name of an encoder of segmentation-models-pytorch
TABLES: dict[str, str] = {"visa": VISA_TABLE}  # by layout; others have none


Range = tuple[float, float] | tuple[str, str]  # values, or percentiles of the train normals ("0.1%")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def percentiles(limits: Sequence[Any]) -> list[float] | None:
    """Two limits such as ``0.1%`` as numbers; None: they are not such."""
    found = [re.fullmatch(r"(\d+(?:\.\d+)?) ?%", limit) for limit in limits if isinstance(limit, str)]
    return [float(each[1]) for each in found if each] if all(found) and len(found) == len(limits) else None


class DatasetParams(Section):
    """Where the real images are; they are only read. For ``demo`` the first stage draws them, into ``data/made/demo``."""

    name: str = "demo"
    layout: Layout = "demo"
    root: str = "data/made/demo"
    table: str = Field(
        ".", description=f"a table that lies beside the products' folders, as seen from one, so that DVC watches it: {VISA_TABLE} with "
        "layout: visa; .: there is none"
    )

    @field_validator("root")
    @classmethod
    def _root_is_spelt_out(cls, value: str) -> str:
        if value.startswith("~"):
            raise ValueError(f"~ is not your home here; expected a whole path such as {Path(value).expanduser()}, found {value!r}")
        return value

    max_normals: int | None = Field(None, ge=1, description="use at most this many train normals, by sorted name")
    size: int | Literal["native"] = Field(
        256,
        description="the canvas: px of a picture's shorter side, its aspect ratio kept; native: as it is. Masks, generated images, "
        "anomaly maps and exports have this size",
    )
    range: Range | None = Field(
        None,
        description="of pictures of more than 8 bits a channel: the values that are black and white, such as [0, 4095], or percentiles of "
        "each product's train normals, such as [0.1%, 99.9%]; null: pictures have 8 bits",
    )
    calibration: float = Field(
        0.0, ge=0, lt=1,
        description="share of the train normals that nothing is trained on: they set the detector's threshold; 0: there is none",
    )  # fmt: skip

    @field_validator("range", mode="before")
    @classmethod
    def _range_is_ordered(cls, value: Any) -> Any:
        pair = value if isinstance(value, list | tuple) and len(value) == 2 else (None, None)
        numbers = [float(one) for one in pair if isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)]
        shares = percentiles(pair) or []
        within = all(0 <= share <= 100 for share in shares)
        if value is None or (len(numbers) == 2 and numbers[0] < numbers[1]) or (shares and within and shares[0] < shares[1]):
            return value if value is None or shares else tuple(numbers)
        raise ValueError(f"expected two values, the smaller first, such as [0, 4095] or [0.1%, 99.9%], found {value!r}")

    @field_validator("size")
    @classmethod
    def _canvas_is_no_speck(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 16:
            raise ValueError(f"expected native or at least 16 px, found {value}")
        return value


class DrawParams(Section):
    """The demo data set's drawing; ``products`` is empty for a data set that is already on disk."""

    products: list[str] = []
    normals: int = Field(60, ge=1)
    test_good: int = Field(20, ge=0)
    anomalies_per_type: int = Field(24, ge=3)


class BaseParams(Section):
    """The latent diffusion model: ``embedded``, a folder in diffusers' layout, or a hub name."""

    path: str = "embedded"
    variant: str | None = None
    revision: str | None = Field(None, description="of a hub name: the commit, tag or branch that is meant; null: the newest that is there")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32",
        description="precision of the base's computation; auto: bfloat16 where the device computes in it natively, else float16 on an "
        "NVIDIA GPU, whose loss is scaled so that small gradients do not vanish, else float32",
    )
    device: str = "auto"
    size: int = Field(
        64, ge=16, description="side in px of the squares that the base draws; a multiple of 16 for the embedded base, of 64 for SD 1.5"
    )


class WindowParams(Section):
    """What of a picture the base draws: a square around the masks, brought to ``base.size``, drawn, brought back and set in; or the
    picture itself."""

    cut: Literal["around", "whole"] = Field("around", description="whole: all of the picture, brought to a square of base.size (paper)")
    context: float = Field(2.0, ge=1, description="side of a window that is drawn in, times the extent of the masks in it")
    train_context: tuple[float, float] = Field((1.5, 3.0), description="the same in training, drawn from this range")

    @model_validator(mode="after")
    def _ordered(self) -> WindowParams:
        low, high = self.train_context
        if not 1 <= low <= high:
            raise ValueError(f"train_context: expected two numbers of at least 1, the smaller first, found [{low:g}, {high:g}]")
        return self


def check_passes(batch: int, accumulate: int) -> None:
    """A ValueError unless a batch is divided into equal passes."""
    if batch % accumulate:
        fits = ", ".join(str(k) for k in range(1, batch + 1) if batch % k == 0)
        raise ValueError(f"accumulate: expected a divisor of batch: {batch} ({fits}), found {accumulate}")


class AdaptParams(Section):
    """Fine-tuning of the base's U-Net (and autoencoder) on the product's normals; 0 steps switches it off."""

    steps: int = Field(0, ge=0)
    vae_steps: int = Field(0, ge=0)
    batch: int = Field(16, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    accumulate: int = Field(1, ge=1, description="passes that a step takes its batch in, as in train")
    checkpointing: bool = Field(False, description="gradient checkpointing, as in train")

    @model_validator(mode="after")
    def _passes_are_equal(self) -> AdaptParams:
        check_passes(self.batch, self.accumulate)
        return self


class PromptParams(Section):
    """CTP, Eq. 2-8. ``tokens: single`` is Textual Inversion on the anomaly region (first row of Table 5); ``plain`` learns none: types are
    called by their own words."""

    tokens: Literal["multi", "single", "plain"] = "multi"
    vectors: int = Field(1, ge=1, description="embeddings a token stands for, as textual inversion has it; paper: 1")
    localizing: bool = True
    localizing_over: Literal["tokens", "printed"] = Field(
        "tokens", description="Eq. 5; tokens: the error of each token's map by itself; printed: the tokens' mean error, before the norm"
    )
    contrastive: bool = True
    gamma: float = Field(0.001, ge=0, description="weight of Eq. 5 (paper: 0.001)")
    beta: float = Field(0.0005, ge=0, description="weight of Eq. 7 (paper: 0.0005)")
    balanced: bool = Field(False, description="Eq. 5 weighs inside and outside of a mask alike, however small it is")
    temperature: float = Field(0.1, gt=0, description="of NT-Xent, Eq. 6")
    contrastive_over: Literal["vectors", "pairs", "printed"] = Field(
        "vectors",
        description="Eq. 7 sums a vector's positives and averages over vectors; pairs: averages over all positive pairs; printed: as "
        "vectors, and each vector is a positive of itself",
    )
    contrastive_without: Literal["itself", "image"] = Field(
        "itself", description="what Eq. 6's denominator leaves out: the vector itself, or all vectors of its image (as printed)"
    )
    contrastive_of: Literal["shown", "all"] = Field(
        "shown", description="Eq. 7 sums over the concepts that an image shows, or over all of the product's, for every image (as printed)"
    )
    learning_rate: float = Field(1e-5, gt=0, description="paper: 1e-5")
    weight_decay: float = Field(0.0, ge=0, description="of the embeddings, AdamW's; ControlNet: 0.01")
    initial_word: str = Field("anomaly", description="what the tokens start from (paper: anomaly)")
    initial_context: str | None = Field(None, description="what the context's token starts from; null: as the others (paper)")

    @model_validator(mode="after")
    def _forms_go_together(self) -> PromptParams:
        if self.balanced and self.localizing_over == "printed":
            raise ValueError("balanced: expected false with localizing_over: printed, whose norm weighs all cells alike, found true")
        return self


class ControlParams(Section):
    """SSC, Eq. 9-10. ``interaction``: ``none`` is plain ControlNet, ``literal`` the printed equation, ``residual``
    adds the ControlNet's own residual and positions (docs/method.md). ``start``: a copy of the U-Net's encoder, as in
    the paper, or the control on masks that the base's own folder brings."""

    start: Literal["copy", "base"] = "copy"

    interaction: Literal["none", "literal", "residual"] = "residual"
    positions: bool = True
    heads: int = Field(4, ge=1)
    learning_rate: float = Field(1e-5, gt=0, description="paper: 1e-5")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's; ControlNet: 0.01, torch's default")


class TrainParams(Section):
    """Joint training of tokens, ControlNet and SAIM for one product (Eq. 8)."""

    steps: int | None = Field(300, ge=1, description="or null, and ``epochs``")
    epochs: float | None = Field(None, gt=0, description="in place of steps: how often each exemplar is shown, on average; paper: 1000")
    batch: int = Field(16, ge=1)
    accumulate: int = Field(
        1, ge=1, description="passes that a step takes its batch in: the same gradients to rounding, with the memory of batch / accumulate "
        "pictures"
    )
    checkpointing: bool = Field(
        False, description="gradient checkpointing: activations are computed again in the backward pass, for a third more time; the same "
        "gradients to rounding"
    )
    optimizer: Literal["adamw", "adamw-8bit"] = Field(
        "adamw", description="adamw-8bit keeps its state in a quarter of the memory (bitsandbytes: pip install -e '.[adam8bit]')"
    )
    decay: Literal["none", "cosine"] = Field("none", description="of both learning rates; cosine: to 2 % (the paper names none)")
    normal_share: float = Field(0.25, ge=0, lt=1, description="normals under a mask, their anomaly not named or silenced; paper: 0")
    silenced: float = Field(
        0.0, ge=0, lt=1, description="share of these normals whose prompt names the type, at w = 0 in the mask; paper: 0"
    )
    exposure: Literal["own", "normals"] = Field(
        "own",
        description="of exemplars; normals: each is as bright as a normal drawn for it, for products under several exposures; paper: own",
    )
    mask_weight: float = Field(0.0, ge=0, description="extra weight of Eq. 4 inside the mask; paper: 0")
    empty_prompts: float = Field(
        0.0, ge=0, lt=1, description="share of pictures with an empty prompt, which guidance above 1 asks for; ControlNet: 0.5"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of all gradients together; null: any (ControlNet's own code)")
    crop: float = Field(0.1, ge=0, le=0.5)
    translate: float = Field(0.1, ge=0, le=0.5)
    rotate: float = Field(15.0, ge=0, le=180, description="degrees")
    checkpoint_seconds: float = Field(30, gt=0)


    @model_validator(mode="after")
    def _passes_are_equal(self) -> TrainParams:
        check_passes(self.batch, self.accumulate)
        return self

    @model_validator(mode="after")
    def _length_is_said_once(self) -> TrainParams:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"epochs: expected null with steps: {self.steps}, found {self.epochs}; set one of the two, the other to null")
        return self

    def steps_for(self, exemplars: int) -> int:
        """Optimiser steps of a training on so many exemplars: ``steps``, or what it takes until each was shown ``epochs`` times on
        average (of a batch the share ``normal_share`` are normals)."""
        if self.epochs is None:
            assert self.steps is not None
            return self.steps
        return math.ceil(self.epochs * exemplars / (self.batch * (1 - self.normal_share)) - 1e-9)


class MaskParams(Section):
    """Where synthesis masks come from."""

    source: Literal["exemplars", "folder"] = "exemplars"
    folder: str = Field("data/masks", description="of <product>/<anomaly_type>/*.png; DVC watches it, so it is one for all products")
    placement: Literal["auto", "anywhere", "on_part", "in_place"] = Field(
        "auto",
        description="where a mask may lie. auto: where what surrounds it looks as around its exemplar, found from the pictures for each "
        "type; anywhere: on the product, near its exemplar's place; on_part: as the part lies; in_place: in its exemplar's own picture",
    )
    min_area: float = Field(0.0005, gt=0, description="smallest accepted share of the image")
    max_cut: float = Field(0.5, ge=0, le=1, description="largest share of a mask that placement may cut away")
    @model_validator(mode="after")
    def _folder_is_named(self) -> MaskParams:
        if self.source == "folder" and not self.folder:
            raise ValueError("source: folder needs `folder`, the directory with <anomaly_type>/*.png")
        if self.source == "folder" and self.placement in ("on_part", "in_place"):
            raise ValueError(f"placement: expected auto with source: folder, whose masks have no exemplar, found {self.placement}")
        return self


class IntensityParams(Section):
    """IAR, Eq. 11; w is drawn uniformly from [low, high] per image."""

    low: float = Field(0.5, ge=-2, le=2)
    high: float = Field(1.5, ge=-2, le=2)
    masked_focus: bool = True
    outside: Literal["kept", "zero"] = Field(
        "kept", description="attention outside of the mask, of masked focus: as it was, or zero, Eq. 11's M as a factor"
    )
    norm: Literal["one", "cells"] = Field(
        "one", description="what ||M||_1 multiplies by in Eq. 11: nothing, or the mask's number of cells where focus is read (as printed)"
    )
    delayed_focus: bool = True
    focus: Literal["latched", "each_step"] = Field(
        "latched",
        description="once a focus has passed the threshold re-weighting stays on, from the next step; each_step: alpha_t is tested at "
        "each step and acts in it (as printed), which takes a second pass",
    )
    threshold: float = Field(0.75, ge=0, description="alpha_thr (paper: 0.75)")
    resolution: int | None = Field(None, ge=2, description="side of the map the focus is read at; null: by the base")
    in_control: bool = Field(
        True, description="the attention of the control, a copy of the encoder, is re-weighted as the U-Net's; false: the U-Net's alone"
    )

    @model_validator(mode="after")
    def _ordered(self) -> IntensityParams:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


class GenerateParams(Section):
    """Sampling. ``background: real`` keeps a real image's latents outside the dilated mask: a normal's, or with
    ``masks.placement: in_place`` the exemplar's own."""

    per_type: int = Field(40, ge=1, description="images per anomaly type (paper: 1000)")
    scheduler: Literal["ddim", "dpm"] = "ddim"
    steps: int = Field(20, ge=1, description="denoising steps (paper: 50)")
    guidance_scale: float = Field(1.0, ge=1, description="1: no second pass")
    background: Literal["generated", "real"] = "real"
    strength: float = Field(
        1.0, gt=0, le=1, description="share of the steps that are taken; below 1 an image starts from a noised picture, ``start``"
    )
    start: Literal["background", "exemplar"] = Field(
        "background",
        description="of images with strength below 1; exemplar: the background with the exemplar of its mask set into it",
    )
    blend: float | None = Field(
        2.0, ge=0,
        description="canvas px over which what was drawn fades into a real background, which beyond them stays byte for byte; 0: at the "
        "mask's edge; null: all of what was drawn is kept, cut at latent cells (paper; window.cut: whole alone)",
    )  # fmt: skip
    redraw: bool = Field(
        False,
        description="normals with a place drawn anew, without an anomaly's word, are the detector's too; for a control that learned "
        "masks without a word (train.normal_share less train.silenced of it)",
    )
    dilate: int = Field(1, ge=0, description="latent cells by which the mask grows before the background is kept")
    batch: int = Field(16, ge=1)
    part: int = Field(16, ge=1, description="images per resumable part")

    @model_validator(mode="after")
    def _strength_has_a_start(self) -> GenerateParams:
        if self.strength == 1 and self.start == "exemplar":
            raise ValueError("start: exemplar needs a strength below 1, found 1: noise alone shows no picture; set either")
        if self.strength < 1 and self.background != "real":
            raise ValueError(
                f"strength: expected 1 with background: {self.background}, which is no picture to start from, found {self.strength}; "
                "set strength: 1 or background: real"
            )
        return self

    @model_validator(mode="after")
    def _redrawn_normals_have_a_background(self) -> GenerateParams:
        if self.redraw and self.background != "real":
            raise ValueError(f"redraw: expected background: real, of which a part is drawn anew, found {self.background}; or redraw: false")
        return self


class PerturbedParams(Section):
    """The generator ``perturbed``: normals noised and denoised in random places, without any exemplar."""

    strength: float = Field(
        0.7, gt=0, le=1, description="share of the steps that are taken from the noised normal; the more, the less of it is left"
    )


class FilterParams(Section):
    """Rules by which generated images are left out of what a detector and a classifier learn from (cadiff/metrics/quality.py
    has the signals). An image is left out if a signal is below its least value; null: no rule. Where a signal is unknown
    the image stays, and augmented exemplars always do. Rules need ``detector.protocol: filtered``.
    """

    min_exemplar_distance: float | None = Field(None, gt=0, description="0.5: no likely copies of an exemplar")
    min_mask_agreement: float | None = Field(None, gt=0, le=1, description="0.5: none that changed more beside its mask than in it")
    min_normal_distance: float | None = Field(None, gt=0, description="1: none whose defect is no more unusual than normal images")

    @property
    def rules(self) -> dict[str, float]:
        """The least value of each signal that has a rule."""
        return {name.removeprefix("min_"): least for name, least in self.model_dump().items() if least is not None}


class DetectorParams(Section):
    """The segmenter, and how it is trained.

    Pictures are brought to ``size`` px of their shorter side, and seen in squares of ``tile`` px that overlap.

    ``protocol``: ``strict`` trains on every generated image and keeps the last checkpoint; ``filtered`` is strict but for the
    images that ``filter`` leaves out; ``legacy`` is the published evaluation (cadiff/detection/published.py), whose checkpoint is the best
    on the test set. ``published``: that one is run as well, beside the protocol.
    """

    network: str = Field(
        "unet",
        description="unet: DRAEM's, from scratch; efficientnet-lite0: a decoder on the ImageNet encoder that a package ships; smp:ENCODER: "
        "on one of segmentation-models-pytorch, with the ImageNet weights that were fetched; smp:ENCODER:scratch: without",
    )
    size: int | None = Field(None, ge=32, description="px of the shorter side that it sees pictures at; null: the canvas (dataset.size)")
    tile: int = Field(256, ge=32, description="side in px of the squares that a larger picture is seen in")
    width: int = Field(64, ge=4, description="of unet: base width (reading: 64, DRAEM's)")
    standardise: bool = Field(False, description="each square to mean 0 and deviation 1 first: for products under several exposures")
    epochs: int = Field(200, ge=1)
    samples_per_epoch: int = Field(500, ge=1)
    batch: int = Field(8, ge=1)
    learning_rate: float = Field(1e-4, gt=0, description="an encoder that knows ImageNet takes a tenth of it")
    pooling: int = Field(21, ge=1, description="side of the average pooling before the maximum (image score)")
    seeds: list[int] = Field([0], min_length=1)
    false_alarms: float = Field(0.01, gt=0, lt=1, description="share of good pictures that may be called defective")
    threshold: Literal["good", "generated"] = Field(
        "good", description="good: from calibration normals alone; generated: half way from there to the scores of generated anomalies"
    )
    protocol: ChosenProtocol = "strict"
    published: bool = Field(False, description="the published evaluation as well, in rows of their own: the time of a second detector")
    checkpoint_seconds: float = Field(30, gt=0)

    @field_validator("network")
    @classmethod
    def _network_known(cls, value: str) -> str:
        if value not in NETWORKS and not re.fullmatch(rf"{SMP}[\w.-]+(:[\w.+-]+)?", value):
            raise ValueError(f"expected {', '.join(NETWORKS)}, {SMP}ENCODER or {SMP}ENCODER:scratch (docs/method.md), found {value!r}")
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected each seed once, as their spread is measured, found {value}")
        return value


class ClassifierParams(Section):
    """The network that tells a product's anomaly types apart, and how it is trained (seeds are the detector's).

    The paper follows AnomalyDiffusion and prints no settings: the readings are that one's.
    """

    network: Literal["resnet34", "efficientnet-lite0"] = Field(
        "efficientnet-lite0", description="reading: resnet34; efficientnet-lite0 starts from the ImageNet weights that a package ships"
    )
    weights: str | None = Field(
        None, description="of resnet34: `hub` (torch's cache), a file, or null: from scratch; nothing is downloaded"
    )
    weights_sha256: str | None = Field(None, description="of that file, if it is not one that torchvision publishes")
    epochs: int = Field(30, ge=1, description="reading: 30")
    batch: int = Field(8, ge=2, description="reading: 8")
    learning_rate: float = Field(1e-4, gt=0, description="reading: 1e-4")


class PeerParams(Section):
    """Training of the detectors that anomalib implements (`draem`, `sspcab`, `rd4ad`, `cfa`); its seeds are the detector's."""

    steps: int = Field(400, ge=1, description="of draem 700 epochs in its paper, of rd4ad 200, of cfa 30")
    batch: int = Field(8, ge=1)
    backbone: Literal["resnet18", "wide_resnet50_2"] = Field("wide_resnet50_2", description="of rd4ad and cfa; as their papers have it")
    weights: str | None = Field(None, description="of that backbone, which rd4ad and cfa need: `hub` (torch's cache) or a file")
    weights_sha256: str | None = Field(None, description="of that file, if it is not one that torchvision publishes")
    checkpoint_seconds: float = Field(120, gt=0)


class MetricParams(Section):
    """How pixels are scored, and the networks behind IS and IC-LPIPS: ``hub`` (torch's cache), a file, or null for the ImageNet
    network that a package ships. Nothing is downloaded; a metric's name carries its network."""

    size: int = Field(256, ge=16, description="px of the shorter side that maps and masks are brought to before pixels are scored")
    mask_rule: MaskRule = Field(
        "half",
        description="which pixels of a true mask count there: those of which it covers half, a quarter, any, or whose nearest it is; cut: "
        "bilinear and wholly anomaly, as published code has it",
    )
    pixel_f1: Literal["exact", "steps"] = Field(
        "exact", description="F1-max of pixels over all thresholds, or over 0, 0.05, ..., 1, as published code has it"
    )
    inception: str | None = Field(None, description="torchvision's inception_v3 weights")
    inception_sha256: str | None = Field(None, description="of that file, if it is not the one that torchvision publishes")
    lpips: str | None = Field(None, description="torchvision's weights of lpips_net")
    lpips_sha256: str | None = Field(None, description="of that file, if it is not the one that torchvision publishes")
    lpips_net: Literal["vgg", "alex"] = "vgg"


LEGACY: dict[str, dict[str, Any]] = {  # what the published evaluation sets
    "detector": {"size": 256, "tile": 256}, "metrics": {"size": 256, "mask_rule": "cut", "pixel_f1": "steps"},
}  # fmt: skip


class ShipParams(Section):
    """The methods whose detector leaves the house (``cadiff ship``), one folder a product."""

    methods: list[str] = []


class ExternalFolder(Section):
    """``root/<method>/<product>`` for each of ``methods``."""

    root: str
    methods: list[str] = []


class ExternalParams(Section):
    """Results that were made elsewhere, scored beside: generators' images and masks, detectors' anomaly maps."""

    images: ExternalFolder = ExternalFolder(root="data/external/images")
    maps: ExternalFolder = ExternalFolder(root="data/external/maps")


SECTIONS = {
    "base": BaseParams, "window": WindowParams,
    "adapt": AdaptParams, "prompt": PromptParams, "control": ControlParams, "train": TrainParams,
    "masks": MaskParams, "intensity": IntensityParams, "generate": GenerateParams, "perturbed": PerturbedParams, "filter": FilterParams,
    "detector": DetectorParams, "classifier": ClassifierParams, "peers": PeerParams, "metrics": MetricParams,
}  # fmt: skip
Generator = Literal["cadiff", "controlnet", "perturbed", "pasted"]
Synthesizer = Literal["exemplars", "cutpaste", "nsa", "perlin"]
Union = Literal["both"]
Detector = Literal["patchcore", "draem", "sspcab", "rd4ad", "cfa"]
Kind = Literal["generator", "synthesizer", "union", "images", "detector", "maps"]
BUILT_IN: dict[str, Kind] = {
    **dict.fromkeys(get_args(Generator), "generator"), **dict.fromkeys(get_args(Synthesizer), "synthesizer"),
    **dict.fromkeys(get_args(Union), "union"), **dict.fromkeys(get_args(Detector), "detector"),
}  # fmt: skip
METHOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")  # part of stage names, in which "-" separates


class MethodGroups(Section):
    """How ``params.yaml`` lists the methods: by the stages they need, so that dvc.yaml names exact inputs.

    ``generators`` are adapted, trained and sampled; ``synthesizers`` draw from the real images alone; ``unions``
    train a detector on others' shards (``both``: cadiff's and the exemplars' together); ``detectors`` learn from
    normal images alone. Methods whose results come from elsewhere are named under ``external``.
    """

    generators: list[Generator]
    synthesizers: list[Synthesizer]
    unions: list[Union]
    detectors: list[Detector] = []

    @model_validator(mode="after")
    def _unions_have_parts(self) -> MethodGroups:
        if self.unions and not ("cadiff" in self.generators and "exemplars" in self.synthesizers):
            raise ValueError("unions: both needs cadiff under generators and exemplars under synthesizers")
        return self


class Params(Section):
    """All of ``params.yaml``. ``products`` maps each product to its own overrides of any section below.

    ``variants`` maps names to overrides too: the ablations (``benchmarks/ablations.py``). The pipeline runs none.

    ``cluster`` says where the parts of generation and the detectors of each seed are computed, not what comes out: it is
    left out of every dump and digest, and dvc.yaml does not name it, so that changing it makes no result out of date.
    """

    seed: int = 0
    dataset: DatasetParams = DatasetParams()
    draw: DrawParams = DrawParams()
    products: dict[str, dict[str, Any]] = Field(min_length=1)
    variants: dict[str, dict[str, Any]] = {}
    methods: list[str] = Field(["cadiff", "exemplars"], min_length=1)
    external: ExternalParams = ExternalParams()
    ship: ShipParams = ShipParams()
    base: BaseParams = BaseParams()
    window: WindowParams = WindowParams()
    adapt: AdaptParams = AdaptParams()
    prompt: PromptParams = PromptParams()
    control: ControlParams = ControlParams()
    train: TrainParams = TrainParams()
    masks: MaskParams = MaskParams()
    intensity: IntensityParams = IntensityParams()
    generate: GenerateParams = GenerateParams()
    perturbed: PerturbedParams = PerturbedParams()
    filter: FilterParams = FilterParams()
    detector: DetectorParams = DetectorParams()
    classifier: ClassifierParams = ClassifierParams()
    peers: PeerParams = PeerParams()
    metrics: MetricParams = MetricParams()
    cluster: str | None = Field(
        None,
        exclude=True,
        description="null: this process; local:N: N Dask workers here; tcp://...: the scheduler of a running Dask cluster",
    )

    @field_validator("cluster")
    @classmethod
    def _cluster_is_known(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"local:[1-9]\d*|(tcp|tls)://\S+", value):
            raise ValueError(f"expected null, local:N (N workers on this machine) or tcp://HOST:PORT, found {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _flatten_methods(cls, values: Any) -> Any:
        """``methods``: those of all groups, then the external ones."""
        methods = values.get("methods", ["cadiff", "exemplars"])
        if isinstance(methods, dict):
            groups = checked(MethodGroups, "methods", methods)
            methods = [*groups.generators, *groups.synthesizers, *groups.unions, *groups.detectors]
        external = checked(ExternalParams, "external", values.get("external", {}))
        names = [*external.images.methods, *external.maps.methods]
        for name in names:
            if name in BUILT_IN or names.count(name) > 1 or not METHOD_NAME.fullmatch(name):
                raise ValueError(
                    f"external: {name!r} cannot name a method; expected letters, digits, _ and . only, each name once, "
                    f"and none of {', '.join(BUILT_IN)}"
                )
        return {**values, "methods": [*methods, *(name for name in names if name not in methods)]}

    @model_validator(mode="after")
    def _methods_are_known(self) -> Params:
        for name in self.methods:
            self.kind_of(name)
        trained = [name for name in self.methods if self.kind_of(name) not in ("detector", "maps")]
        for name in self.ship.methods:
            if name not in trained:
                raise ValueError(f"ship.methods: expected methods that a detector is trained for ({', '.join(trained)}), found {name!r}")
        return self

    def kind_of(self, method: str) -> Kind:
        """Which group a method is of, and so which stages it has and which artefacts.

        Raises:
            ValueError: if there is no such method.
        """
        if method in BUILT_IN:
            return BUILT_IN[method]
        if method in self.external.images.methods:
            return "images"
        if method in self.external.maps.methods:
            return "maps"
        raise ValueError(f"methods: {method!r} is not known; expected one of {', '.join(BUILT_IN)}, or one under external")

    @field_validator("products", mode="before")
    @classmethod
    def _products_are_named(cls, values: Any) -> Any:
        for name, own in values.items() if isinstance(values, dict) else ():
            if not isinstance(name, str):
                raise ValueError(f"expected names, found {name!r}, which YAML reads as {type(name).__name__}; put it in quotes")
            names.check_product(name)
            if own is None:
                raise ValueError(f"{name}: expected its own settings, found nothing; write `{name}: {{}}` if it has none")
        return values

    @model_validator(mode="after")
    def _sections_go_together(self) -> Params:
        if self.draw.products and self.dataset.layout != "demo":
            raise ValueError(
                f"draw.products: expected [] with dataset.layout: {self.dataset.layout}, whose images are on disk, "
                f"found {self.draw.products}"
            )
        check_table(self.dataset)
        names.check_products(list(self.products), self.methods)
        check_filter(self.filter, self.detector)
        check_in_place(self.masks, self.generate)
        check_sizes(self.dataset, self.base, self.window, self.generate)
        check_generators(self.methods, self.masks, self.generate)
        return self

    @model_validator(mode="after")
    def _overrides_fit(self) -> Params:
        """Each by itself, and every variant over every product: two that are valid alone may not go together."""
        for product, own in self.products.items():
            self._check_overrides(f"products.{product}", own)
        for variant, changes in self.variants.items():
            self._check_overrides(f"variants.{variant}", changes)
            for product, own in self.products.items():
                self._check_overrides(f"variants.{variant} over products.{product}", layered(own, changes))
        return self

    def _check_overrides(self, name: str, overrides: dict[str, Any]) -> None:
        """A ValueError unless these overrides of sections fit the parameters."""
        for section, values in overrides.items():
            if section not in SECTIONS:
                raise ValueError(f"{name}.{section}: not a section; one of {', '.join(SECTIONS)}")
            if not isinstance(values, dict):
                raise ValueError(f"{name}.{section}: expected a mapping of keys to values")
            if section == "masks" and "folder" in values:
                raise ValueError(f"{name}.masks.folder: one folder has them all, by product; set masks.folder")
            try:
                SECTIONS[section](**{**getattr(self, section).model_dump(), **values})
            except ValidationError as error:
                raise ValueError(f"{name}.{section}: {first_problem(error)}") from None
        try:
            check_filter(
                FilterParams(**{**self.filter.model_dump(), **overrides.get("filter", {})}),
                DetectorParams(**{**self.detector.model_dump(), **overrides.get("detector", {})}),
            )
            generate = GenerateParams(**{**self.generate.model_dump(), **overrides.get("generate", {})})
            masks = MaskParams(**{**self.masks.model_dump(), **overrides.get("masks", {})})
            check_in_place(masks, generate)
            if name.startswith("products."):  # the pipeline's generators; a variant is CADiff's
                check_generators(self.methods, masks, generate)
            check_sizes(
                self.dataset, BaseParams(**{**self.base.model_dump(), **overrides.get("base", {})}),
                WindowParams(**{**self.window.model_dump(), **overrides.get("window", {})}), generate,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def for_product(self, product: str) -> Params:
        """These parameters with the product's own overrides applied, and no other product in them.

        Raises:
            UsageError: if the product is not under ``products``.
        """
        if product not in self.products:
            raise UsageError(f"products.{product}: not in the parameters; products are {', '.join(self.products)}")
        values = self.model_dump()
        for section, overrides in self.products[product].items():
            values[section] = {**values[section], **overrides}
        return Params(**{**values, "products": {product: {}}, "cluster": self.cluster})

    def for_variant(self, name: str) -> Params:
        """These parameters with a variant's overrides applied, over a product's own too, and no variant in them.

        Raises:
            UsageError: if the variant is not under ``variants``.
        """
        if name not in self.variants:
            raise UsageError(f"variants.{name}: not in the parameters; variants are {', '.join(self.variants) or 'none'}")
        values, overrides = self.model_dump(), self.variants[name]
        values |= layered({section: values[section] for section in overrides}, overrides)
        products = {product: layered(own, overrides) for product, own in self.products.items()}
        # the other variants need not fit on top of this one
        return Params(**{**values, "products": products, "variants": {}, "cluster": self.cluster})

    def with_variants(self, variants: dict[str, dict[str, Any]]) -> Params:
        """These parameters with other variants in place of their own.

        Raises:
            UsageError: if a variant does not fit the parameters or a product's own.
        """
        try:
            return Params(**{**self.model_dump(), "variants": variants, "cluster": self.cluster})
        except ValidationError as error:
            raise UsageError(first_problem(error)) from None

    def digest_of(self, *sections: str) -> str:
        """16 hex digits that change when one of these top-level keys does."""
        values = self.model_dump(mode="json")
        return digest({name: values[name] for name in sections})


def layered(below: dict[str, dict[str, Any]], above: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Overrides of sections, key by key: ``above`` goes over ``below``."""
    return {section: {**below.get(section, {}), **above.get(section, {})} for section in {**below, **above}}


SectionType = TypeVar("SectionType", bound=Section)


def checked(section: type[SectionType], name: str, values: Any) -> SectionType:
    """A section from its values; a ValueError names the key below ``name``."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{name}.{first_problem(error)}") from None


def check_table(dataset: DatasetParams) -> None:
    """A ValueError where a layout's table is not the one that DVC is told to watch."""
    expected = TABLES.get(dataset.layout, ".")
    if dataset.table != expected:
        raise ValueError(
            f"dataset.table: expected {expected} with layout: {dataset.layout}, found {dataset.table}; DVC watches it beside each "
            f"product's folder, so set table: {expected}"
        )


def check_in_place(masks: MaskParams, generate: GenerateParams) -> None:
    """A ValueError where masks stay in a picture that is then not kept."""
    if masks.placement == "in_place" and generate.background != "real":
        raise ValueError(
            f"masks.placement: expected auto or anywhere with generate.background: {generate.background}, which keeps no picture, "
            "found in_place"
        )


def check_generators(methods: Sequence[str], masks: MaskParams, generate: GenerateParams) -> None:
    """A ValueError where a generator lacks what it starts from: a real picture, or an exemplar's pixels."""
    for method, why in (("perturbed", "which perturbs real normals"), ("pasted", "which sets exemplars into real pictures")):
        if method in methods and generate.background != "real":
            raise ValueError(
                f"generate.background: expected real with the generator {method}, {why}, found {generate.background}; or leave {method} "
                "out of methods.generators"
            )
    if "pasted" in methods and masks.source != "exemplars":
        raise ValueError(
            f"masks.source: expected exemplars with the generator pasted, whose pixels it takes, found {masks.source}; or leave pasted out "
            "of methods.generators"
        )


def check_sizes(dataset: DatasetParams, base: BaseParams, window: WindowParams, generate: GenerateParams) -> None:
    """A ValueError where the base draws more than there is, or a window has nothing to be set into."""
    if isinstance(dataset.size, int) and dataset.size < base.size:
        raise ValueError(
            f"dataset.size: expected at least base.size ({base.size}), which is what the base draws, found {dataset.size}; "
            f"set dataset.size: {base.size} or more, or native"
        )
    if window.cut == "around" and generate.background != "real":
        raise ValueError(
            f"window.cut: expected whole with generate.background: {generate.background}, as there is no picture to set a window into, "
            "found around"
        )
    if window.cut == "around" and generate.blend is None:
        raise ValueError(
            "generate.blend: expected a number of px with window.cut: around, or each window would show its border, found null; "
            "set blend: 2, or window.cut: whole"
        )


def check_legacy(params: Params) -> None:
    """A ValueError where the published evaluation is asked for by name and is not what would be done."""
    for product in params.products:
        own = params.for_product(product)
        if own.detector.protocol != "legacy":
            continue
        if own.detector.published:
            raise ValueError(
                f"{product}: detector.published: expected false with protocol: legacy, the published evaluation itself, found true"
            )
        for section, values in LEGACY.items():
            for key, value in values.items():
                if (found := getattr(getattr(own, section), key)) != value:
                    raise ValueError(
                        f"{product}: {section}.{key}: expected {value} with detector.protocol: legacy, the published evaluation, found "
                        f"{found}; or set detector.published: true beside protocol: strict"
                    )


def check_filter(settings: FilterParams, detector: DetectorParams) -> None:
    """A ValueError unless rules and ``protocol: filtered`` come together: a row's protocol must say that images were left out."""
    if settings.rules and detector.protocol != "filtered":
        rule = f"min_{next(iter(settings.rules))}"
        raise ValueError(
            f"filter.{rule}: the {detector.protocol} protocol leaves no image out; set detector.protocol: filtered, or {rule}: null"
        )
    if detector.protocol == "filtered" and not settings.rules:
        raise ValueError(
            f"detector.protocol: filtered needs a rule; expected a number for one of {', '.join(FilterParams.model_fields)} "
            "under filter, found null for all"
        )


# All top-level keys that a result of the pipeline depends on.
RESULT_KEYS = tuple(name for name, field in Params.model_fields.items() if not field.exclude and name != "variants")


def first_problem(error: ValidationError) -> str:
    """One line of a validation error: the key, what was expected, what came."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or correct its spelling"
    if problem["type"] == "value_error":
        return f"{where}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
    return f"{where}: {problem['msg']}, found {problem['input']!r}"


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is given twice is an error, and not the last one's, and numbers are also those of YAML 1.2, which DVC reads:
    a name such as 08 or 1e3 that is not in quotes would be one here and a number there."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        text = str(node.value)
        return int(text, 0) if text.startswith("0o") else int(text) if re.fullmatch(r"[-+]?0\d+", text) else self.construct_yaml_int(node)


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what ``_Loader`` would not read as text."""


INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(INT, re.compile(r"[-+]?[0-9]+$|0o[0-7]+$"), list("-+0123456789"))
    _kind.add_implicit_resolver(FLOAT, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+.0123456789"))
_Loader.add_constructor(INT, _Loader.construct_whole_number)


def as_written(values: dict[str, Any]) -> list[str]:
    """Values as the lines of a parameters' file."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return text.splitlines()


def read_mapping(path: Path) -> dict[Any, Any]:
    """A YAML file's mapping that is none of parameters, such as the classes' names beside YOLO's labels.

    Raises:
        UsageError: if it does not read, or holds no mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: expected YAML, but it does not read ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected keys with values, found {type(values).__name__}")
    return values


def load_params(path: str | Path = "params.yaml") -> Params:
    """The parameters in a YAML file.

    Raises:
        UsageError: names the file, the key, what was expected and what came.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; copy one of presets/*.yaml to params.yaml") from None
    except OSError as error:
        raise UsageError(f"{path}: expected a YAML file, but it does not open ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: expected UTF-8 text; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
    if odd := [key for key in values if not isinstance(key, str)]:
        raise UsageError(f"{path}: {odd[0]}: unknown key; remove it or correct its spelling")
    if not isinstance(values.get("methods", {}), dict):
        raise UsageError(
            f"{path}: methods: expected the lists {', '.join(MethodGroups.model_fields)} (each may be empty, "
            f"as in presets/demo.yaml), found {values['methods']!r}"
        )
    try:
        params = Params(**values)
    except ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error)}") from None
    try:
        check_legacy(params)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return params
