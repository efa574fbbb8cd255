"""What all of a preset's products take together, in floating-point operations and bytes: trainings, images, detectors, classifiers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from cadiff.data.readers import READERS, list_products
from cadiff.data.split import assign_roles
from cadiff.detection.classifier import Classifier, square
from cadiff.detection.networks import network_of
from cadiff.detection.published import MOST, PASSES, published
from cadiff.detection.training import total_steps
from cadiff.errors import CADiffError
from cadiff.needs.counting import Step, flops_of
from cadiff.params import METHODS, Params, parts_of, those_that_learn

BACKWARD = 3  # a step's operations over its forward pass's: backward takes twice as many


class Content(NamedTuple):
    """What a product has: exemplars, and types of them."""

    exemplars: int
    types: int


USUAL = Content(26, 5)  # a product of MVTec AD on average, by this split: 390 exemplars of 73 types in 15 products


def content_of(params: Params, product: str) -> Content | None:
    """As ``dataset.root`` has it; no image is opened. None: it is not there, or cannot be read (`cadiff inspect` says why)."""
    try:
        if product not in list_products(params.dataset):
            return None
        entries = READERS[params.dataset.layout].list_files(Path(params.dataset.root), product).entries
    except (CADiffError, OSError):
        return None
    exemplars = Counter(entry.anomaly_type for entry, role in assign_roles(entries) if role == "exemplar")
    return Content(exemplars.total(), len(exemplars)) if exemplars else None


@dataclass(frozen=True)
class Load:
    """So many ``steps`` or images, and their floating-point operations: in ``base.dtype`` (``narrow``), in float32 (``exact``)."""

    steps: int = 0
    narrow: float = 0.0
    exact: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(self.steps + other.steps, self.narrow + other.narrow, self.exact + other.exact)

    def times(self, count: int) -> Load:
        return Load(self.steps * count, self.narrow * count, self.exact * count)


def training_step(params: Params, step: Step) -> Load:
    """Of ``train.batch`` pictures, each encoded."""
    return Load(1, params.train.accumulate * (step.learning + step.pictures * step.encoding))


def image(params: Params, step: Step) -> Load:
    """Denoised, twice a step with guidance, and decoded in float32."""
    settings = params.generate
    taken = max(1, round(settings.taken * settings.steps)) * (2 if settings.guidance_scale > 1 else 1)
    return Load(1, taken * step.denoising, step.decoding)


def loads(params: Params, content: Content, step: Step) -> dict[str, Load]:
    """What one product takes (``params`` are its own). Adaptation counts as training; what is drawn again, read, scored or fitted without
    gradients is left out, and so are peers."""
    images = params.generate.per_type * content.types
    learnt = len(set(those_that_learn("tokens", params.methods)) | set(those_that_learn("control", params.methods)))
    drawing = sum("exemplar" not in METHODS[name].needs for name in params.taking("generate"))
    adapted = ceil(params.adapt.steps * params.adapt.batch / params.train.batch) if params.taking("generate") else 0
    found = {
        "training": training_step(params, step).times(learnt * params.train.steps_for(content.exemplars) + adapted),
        "drawing": image(params, step).times(drawing * images),
        "detectors": detectors(params, content),
        "classifiers": classifiers(params, content),
    }
    if params.detector.published:
        as_published = published(params)
        found["detectors"] += detectors(as_published, content)
        found["classifiers"] += classifiers(as_published, content)
    return found


def detectors(params: Params, content: Content) -> Load:
    """Of every method that one is trained for and every seed, forward and backward."""
    settings, side = params.detector, params.detector.tile
    if isinstance(shorter := settings.size or params.dataset.size, int):
        side = min(side, shorter)
    forward = _forward(network_of(settings.network).build(settings, False), side // 32 * 32)
    count = total_steps(settings.settled(content.exemplars)) * len(settings.seeds) * len(params.taking("detect"))
    return _in_precision(params, count, BACKWARD * settings.batch * forward)


def classifiers(params: Params, content: Content) -> Load:
    """Of every method whose images have the product's types, and every seed."""
    if content.types < 2:
        return Load()
    settings, legacy = params.classifier, params.detector.protocol == "legacy"
    count = 0
    for name in params.taking("detect"):
        if name not in METHODS or METHODS[name].typed:
            of_type = params.generate.per_type * len(parts_of(name))
            seen = settings.epochs * content.types * (min(of_type, MOST) * PASSES if legacy else of_type)
            count += ceil(seen / settings.batch)
    forward = _forward(Classifier(settings.network, content.types, plain=legacy), square(params))
    return _in_precision(params, count * len(params.detector.seeds), BACKWARD * settings.batch * forward)


def _in_precision(params: Params, steps: int, each: float) -> Load:
    if params.detector.protocol == "legacy":  # trained in float32
        return Load(steps, exact=steps * each)
    return Load(steps, narrow=steps * each)


def _forward(model: nn.Module, side: int) -> int:
    """Operations of one picture's pass, on the meta device."""
    model.to("meta").eval()
    with torch.no_grad():
        return flops_of(lambda: model(torch.empty(1, 3, side, side, device="meta")))


class Disk(NamedTuple):
    """Bytes: of trained generators, of images and masks in shards as a byte a pixel, and of the checkpoint of one training."""

    generators: float
    shards: float
    checkpoint: float

    @property
    def all(self) -> float:
        return self.generators + self.shards + self.checkpoint


def disk(params: Params, contents: list[Content], step: Step) -> Disk:
    """What lies there when all is done, and while the last product is trained."""
    generators = len(params.taking("train")) * len(contents) * 4 * step.trained
    sides = params.dataset.size if isinstance(params.dataset.size, int) else params.base.size
    made = len(params.taking("quality"))
    shards = made * 2 * sides**2 * params.generate.per_type * sum(content.types for content in contents)
    return Disk(float(generators), float(shards), 12.0 * step.trained)
