"""Sections of the detectors, the classifier, the peers, and how they are scored."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from cadiff.params.section import Section
from cadiff.records import ChosenProtocol
from cadiff.storage import MaskRule

NETWORKS = ("unet", "efficientnet-lite0")  # of a detector
SMP = "smp:"  # before the name of an encoder of segmentation-models-pytorch
LEAST_STEPS = 150  # of a detector whose length follows its exemplars
OF_FILE = "PATH, or PATH@SHA256 where its digest is another than the published one's"


class DetectorParams(Section):
    """The segmenter, and how it is trained.

    Pictures are brought to ``size`` px of their shorter side, and seen in squares of ``tile`` px that overlap.

    ``protocol``: ``strict`` trains on every generated image and keeps the last checkpoint; ``filtered`` is strict but for the
    images that ``filter`` leaves out; ``legacy`` is the published evaluation (cadiff/detection/published.py), whose checkpoint is the best
    on the test set. ``published``: that one is run as well, beside the protocol.
    """

    RECIPE: ClassVar = frozenset({"width", "samples_per_epoch", "batch", "learning_rate", "pooling", "protocol", "published"})

    network: str = Field(
        "efficientnet-lite0",
        description="unet: DRAEM's, from scratch (paper); efficientnet-lite0: a decoder on the ImageNet encoder that a package ships; "
        "smp:ENCODER: on one of segmentation-models-pytorch, with the ImageNet weights that were fetched; smp:ENCODER:scratch: without",
    )
    size: int | None = Field(128, ge=32, description="px of the shorter side that it sees pictures at; null: the canvas (dataset.size)")
    tile: int = Field(256, ge=32, description="side in px of the squares that a larger picture is seen in")
    standardise: bool = Field(False, description="each square to mean 0 and deviation 1 first: for products under several exposures")
    epochs: int = Field(50, ge=1, description="of recipe.detector.samples_per_epoch pictures each; reading: 200")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="a detector of each; three tell a gain from chance")
    false_alarms: float = Field(0.01, gt=0, lt=1, description="share of good pictures that may be called defective")
    threshold: Literal["good", "generated"] = Field(
        "generated", description="good: from calibration normals alone; generated: half way from there to the scores of generated anomalies"
    )
    width: int = Field(16, ge=4, description="of unet: base width (reading: 64, DRAEM's)")
    samples_per_epoch: int | None = Field(
        None, ge=1, description="null: the product's exemplars and as many normals, whatever else it is trained on; reading: 500"
    )
    batch: int = Field(8, ge=1, description="reading: 8")
    learning_rate: float = Field(1e-3, gt=0, description="an encoder that knows ImageNet takes a tenth of it; reading: 1e-4")
    pooling: int = Field(
        5, ge=1, description="side of the average pooling before the maximum (image score), at 256 px; scales with size; reading: 21"
    )
    protocol: ChosenProtocol = Field("strict", description="strict, filtered or legacy: docs/method.md, Protocol")
    published: bool = Field(False, description="the published evaluation as well, in rows of their own: the time of a second detector")

    def settled(self, exemplars: int) -> DetectorParams:
        """With the length that these have for a product of so many exemplars: all methods of a product take the same steps, at least
        ``LEAST_STEPS`` of them, below which a network has not learnt what is normal."""
        if self.samples_per_epoch is not None:
            return self
        least = math.ceil(LEAST_STEPS * self.batch / self.epochs)
        return self.model_copy(update={"samples_per_epoch": max(2 * exemplars, least)})

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

    RECIPE: ClassVar = frozenset({"network", "weights", "epochs", "batch", "learning_rate"})

    network: Literal["resnet34", "efficientnet-lite0"] = Field(
        "efficientnet-lite0", description="reading: resnet34; efficientnet-lite0 starts from the ImageNet weights that a package ships"
    )
    weights: str | None = Field(
        None, description=f"of resnet34: hub (torch's cache), {OF_FILE}, or null: from scratch; nothing is downloaded"
    )
    epochs: int = Field(5, ge=1, description="reading: 30")
    batch: int = Field(8, ge=2, description="reading: 8")
    learning_rate: float = Field(1e-4, gt=0, description="reading: 1e-4; at 3e-4 several runs ended with a single class")


class PeerParams(Section):
    """Training of the detectors that anomalib implements (`draem`, `sspcab`, `rd4ad`, `cfa`); its seeds are the detector's."""

    RECIPE: ClassVar = frozenset({"batch", "backbone"})

    steps: int = Field(400, ge=1, description="of draem 700 epochs in its paper, of rd4ad 200, of cfa 30")
    weights: str | None = Field(None, description=f"of the backbone, which rd4ad and cfa need: hub (torch's cache), {OF_FILE}")
    batch: int = Field(8, ge=1, description="pictures a step")
    backbone: Literal["resnet18", "wide_resnet50_2"] = Field("wide_resnet50_2", description="of rd4ad and cfa; as their papers have it")


class MetricParams(Section):
    """How pixels are scored, and the networks behind IS and IC-LPIPS: ``hub`` (torch's cache), a file, or null for the ImageNet
    network that a package ships. Nothing is downloaded; a metric's name carries its network."""

    RECIPE: ClassVar = frozenset({"size", "mask_rule", "pixel_f1", "lpips_net"})

    inception: str | None = Field(None, description=f"torchvision's inception_v3: hub, {OF_FILE}, or null: a stand-in")
    lpips: str | None = Field(None, description=f"torchvision's weights of lpips_net: hub, {OF_FILE}, or null: a stand-in")
    size: int = Field(256, ge=16, description="px of the shorter side that maps and masks are brought to before pixels are scored")
    mask_rule: MaskRule = Field(
        "half",
        description="which pixels of a true mask count there: those of which it covers half, a quarter, any, or whose nearest it is; cut: "
        "bilinear and wholly anomaly, as published code has it",
    )
    pixel_f1: Literal["exact", "steps"] = Field(
        "exact", description="F1-max of pixels over all thresholds, or over 0, 0.05, ..., 1, as published code has it"
    )
    lpips_net: Literal["vgg", "alex"] = Field("vgg", description="the network of IC-LPIPS; the paper does not say which")


LEGACY: dict[str, dict[str, Any]] = {  # what the published evaluation sets
    "detector": {"size": 256, "tile": 256}, "metrics": {"size": 256, "mask_rule": "cut", "pixel_f1": "steps"},
}  # fmt: skip
