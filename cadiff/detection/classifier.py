"""The classifier: which anomaly is it? Trained on generated images, its accuracy measured on held-out ones.

Protocol (AnomalyDiffusion's, AAAI 2024, which the paper follows): ResNet-34, Adam 1e-4, batch 8, 30 epochs, the learning
rate times 0.2 at 80 % and 90 %, the last weights; classes are the product's anomaly types in sorted order. It sees the whole of a
picture stretched to a square, whose side is the canvas's shorter one or 256 px, whichever is less. What more there is in published code,
``detector.protocol: legacy`` has (cadiff.detection.published).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from cadiff.checkpoint import Steps
from cadiff.data.images import to_tensor
from cadiff.detection.batches import in_turn, jitter, maker, shard_rows
from cadiff.detection.published import MOST, PASSES
from cadiff.detection.trained import ClassifierCard, Network
from cadiff.detection.training import dropped, precision
from cadiff.detection.unet import place
from cadiff.devices import autocast, pick_device
from cadiff.errors import CADiffError
from cadiff.metrics import imagenet
from cadiff.metrics.networks import Weights, find_networks, load_weights
from cadiff.metrics.ranking import accuracy
from cadiff.params import Params
from cadiff.pictures import Size, read_picture, resize_picture
from cadiff.records import MetricRow, ProtocolName, SampleRow
from cadiff.seeds import derive_seed, torch_generator
from cadiff.storage import Spill, Stored, decode_image, digest, read_tensors, write_tensors
from cadiff.task import Task

METRIC = "classification_accuracy"
LEAST_SIDE = 128  # EfficientNet-Lite0 sees smaller images enlarged to this: of 64 px its last map has 2 x 2 cells, too few for a crack
MOST_SIDE = 256
PLAIN = ",plain"  # of a variant, without ImageNet's normalisation
_BATCH = 32
# ImageNet's channel means and deviations for values in [-1, 1]
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 2 - 1
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 2


class Classifier(nn.Module):
    """Logits of the classes from images in [-1, 1]."""

    def __init__(self, network: Network, classes: int, weights: Weights | None = None, plain: bool = False) -> None:
        """``weights`` are those that resnet34 starts from; without, it starts from scratch. EfficientNet-Lite0 has its own. ``plain``:
        resnet34 sees values from 0 to 1, without ImageNet's normalisation, as published code has it."""
        super().__init__()
        self.network, self.plain = network, plain and network == "resnet34"
        self.model = imagenet.build() if self.network == "efficientnet-lite0" else _resnet(weights.path if weights else None)
        last = "_fc" if self.network == "efficientnet-lite0" else "fc"
        setattr(self.model, last, nn.Linear(getattr(self.model, last).in_features, classes))
        if self.network == "efficientnet-lite0":
            imagenet.freeze(self.model)
        started = "imagenet" if self.network != "resnet34" else f"imagenet{weights.tag}" if weights else "scratch"
        self.variant = f"{self.network}({started}{PLAIN if self.plain else ''})"

    def train(self, mode: bool = True) -> Classifier:
        """EfficientNet-Lite0 keeps ImageNet's batch statistics: its own move by 1 % a step, too slowly for a short run."""
        super().train(mode)
        if self.network == "efficientnet-lite0":
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        if self.plain:
            seen = (image + 1) / 2
        elif self.network == "resnet34":
            seen = (image - _MEAN.to(image)) / _STD.to(image)
        else:
            side = max(LEAST_SIDE, image.shape[-1])
            if image.shape[-1] != side:
                image = F.interpolate(image, (side, side), mode="bilinear", align_corners=False)
            seen = image * (127.5 / 128) + 0.5 / 128  # (x - 127) / 128 of 8-bit x
        logits: Tensor = self.model(seen)
        return logits


def _resnet(weights: Path | None) -> nn.Module:
    from torchvision.models import resnet34

    model: nn.Module = resnet34(weights=None)
    if weights is not None:
        load_weights(weights, model)
    return model


def classify(task: Task, generated: Sequence[Path], seed: int, work: Path) -> list[MetricRow]:
    """Trains a classifier (``train_classifier``) and measures it (``score_classifier``); no rows where there is nothing to learn.

    Raises:
        CADiffError: if training diverges, or a checkpoint or shard is broken.
    """
    found = train_classifier(task, generated, seed, work)
    return [] if found is None else score_classifier(task, seed, found)


class TrainedClassifier(NamedTuple):
    """A classifier in evaluation mode, and a digest of what its images were generated with."""

    model: Classifier
    card: ClassifierCard
    made_by: str


def train_classifier(task: Task, generated: Sequence[Path], seed: int, work: Path) -> TrainedClassifier | None:
    """A classifier of the product's types, trained on the generated shards.

    None where there is nothing to learn: a product of one type, or a method whose shards have fewer than two of the
    product's types (cut-paste knows none). Images with several anomalies are left out, as is what lies in other types.
    ``work`` keeps the checkpoint from which a stopped run goes on.

    Raises:
        CADiffError: if training diverges, or a checkpoint or shard is broken.
    """
    classes = sorted({row.anomaly_type for row in task.samples if row.product == task.product and row.anomaly_type})
    shards = _shards(generated, classes)
    if len(classes) < 2 or len(shards) < 2:
        return None
    side = square(task.params)
    images, labels, made_by = load_labelled(shards, classes, side, MOST if task.params.detector.protocol == "legacy" else None)
    model = _trained(task.params, (images, labels), len(classes), (seed, "classifier", task.method, task.product), work)
    return TrainedClassifier(model, ClassifierCard(model.network, side, model.variant, tuple(classes)), made_by)


def score_classifier(task: Task, seed: int, trained: TrainedClassifier) -> list[MetricRow]:
    """``classification_accuracy`` on the product's held-out anomalies, and ``.../<type>``, the share of that type's images that were
    recognised; no rows where none is held out.

    Raises:
        CADiffError: if a picture is broken.
    """
    rows = [row for row in task.samples if row.product == task.product and row.role == "held_out"]
    if not rows:
        return []
    model, (_, side, variant, classes) = trained.model, astuple(trained.card)
    truth = np.array([classes.index(str(row.anomaly_type)) for row in rows])
    found = _predict(model, rows, side, task.params.dataset.size)
    # never the best epoch, also by the published evaluation
    protocol: ProtocolName = "legacy" if task.params.detector.protocol == "legacy" else "filtered" if task.params.filter.rules else "strict"
    made = digest([task.params.digest_of("filter", "classifier"), task.params.dataset.size, trained.made_by])

    def row(name: str, value: float, n: int) -> MetricRow:
        return MetricRow(task.params.dataset.name, task.product, task.method, variant, name, value, seed, n, protocol, None, made)

    result = [row(METRIC, accuracy(truth, found, len(classes)), len(rows))]
    for index, name in enumerate(classes):
        own = truth == index
        if own.any():
            result.append(row(f"{METRIC}/{name}", accuracy(truth[own], found[own], len(classes)), int(own.sum())))
    return result


def write_classifier(trained: TrainedClassifier, folder: Path, seed: int) -> None:
    """Writes ``folder/classifier-<seed>.safetensors``; what it takes to read it is in ``seed-<seed>.json``."""
    write_tensors(folder / f"classifier-{seed}.safetensors", trained.model.state_dict(), {"variant": trained.card.variant})


def load_classifier(card: ClassifierCard, path: Path, device: torch.device) -> Classifier:
    """What ``write_classifier`` wrote, in evaluation mode.

    Raises:
        CADiffError: if the file is not there, not whole, or not the card's.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("variant") != card.variant:
        raise CADiffError(f"{path}: expected a classifier {card.variant}, found {metadata.get('variant')}. Train again (dvc repro).")
    model = Classifier(card.network, len(card.classes), plain=card.variant.endswith(f"{PLAIN})"))
    model.load_state_dict(tensors)
    return model.to(device).eval()


def _shards(generated: Sequence[Path], classes: Sequence[str]) -> dict[str, list[Path]]:
    """The shards of each class that has any."""
    found = {name: [Path(folder) / f"{name}.parquet" for folder in generated] for name in classes}
    there = {name: [path for path in paths if path.is_file()] for name, paths in found.items()}
    return {name: paths for name, paths in there.items() if paths}


def square(params: Params) -> int:
    """The side of the square that a picture is stretched to: the detector's scale, at most ``MOST_SIDE``."""
    size = params.detector.size or params.dataset.size
    return min(MOST_SIDE, size) if isinstance(size, int) else MOST_SIDE


@dataclass(frozen=True)
class Stretched(Sequence[UInt8[np.ndarray, "s s 3"]]):
    """Images of shards, each decoded and stretched to a square when it is asked for."""

    pngs: list[Stored]
    side: int

    def __len__(self) -> int:
        return len(self.pngs)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "s s 3"]:  # type: ignore[override]
        return resize_picture(decode_image(self.pngs[index](), "RGB"), (self.side, self.side))


def load_labelled(
    shards: dict[str, list[Path]], classes: Sequence[str], side: int, most: int | None = None
) -> tuple[Stretched, Int[Tensor, " n"], str]:
    """All images of the shards, or ``most`` of each type (``in_turn``), each one's class, and a digest of what made them."""
    pngs, labels, makers, spill = [], [], set(), Spill()
    for name, paths in shards.items():
        parts = [[(spill.put(row["image"]["bytes"]), maker(row)) for row in islice(shard_rows(path), most)] for path in paths]
        for png, made_by in in_turn(parts, most):
            pngs.append(png)
            labels.append(classes.index(name))
            makers.add(made_by)
    return Stretched(pngs, side), torch.tensor(labels), digest(sorted(makers))


def _trained(
    params: Params, data: tuple[Stretched, Int[Tensor, " n"]], classes: int, stream: tuple[Any, ...], work: Path
) -> Classifier:
    """Steps from where the checkpoint is to the end."""
    settings, (images, labels), legacy = params.classifier, data, params.detector.protocol == "legacy"
    device = pick_device(params.base.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(stream[0], "classifier", "weights", stream[-1]))  # the same for every method
        model = Classifier(settings.network, classes, find_networks(params)[2], plain=legacy)
    place(model, device)
    dtype = precision(params, device)
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=settings.learning_rate)
    checkpoint = Path(work) / f"classifier-{stream[0]}.safetensors"
    seen = settings.epochs * len(images) * (PASSES if legacy else 1)
    title = f"classifier {' '.join(map(str, stream[2:]))} seed {stream[0]}"
    left = Steps(title, -(-seen // settings.batch), checkpoint, {"model": model}, optimizer)
    model.train()
    for step in left:
        generator = torch_generator(*stream, step)
        chosen = batch_indices(len(images), settings.batch, step, stream)
        pixels = to_tensor(np.stack([images[index] for index in chosen.tolist()]))
        batch = (pixels if legacy else jitter(pixels, generator)).to(device, memory_format=torch.channels_last)
        rate = dropped(settings.learning_rate, step, left.total)
        loss = _step(model, optimizer, rate, batch, labels[chosen].to(device), derive_seed(*stream, step), dtype)
        if not math.isfinite(loss):
            raise CADiffError(f"recipe.classifier.learning_rate: loss is not finite at step {step + 1}; lower it.")
        left.figures = {"loss": loss}
    return model.eval()


def _step(
    model: Classifier, optimizer: torch.optim.Adam, rate: float, image: Tensor, label: Tensor, seed: int, dtype: torch.dtype
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # drop-out
        with autocast(image.device, dtype):
            logits = model(image)
        loss = F.cross_entropy(logits.float(), label)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def batch_indices(count: int, batch: int, step: int, stream: tuple[Any, ...]) -> Int[Tensor, " batch"]:
    """The images of a step: every epoch has each once, in an order of its own; the next epoch fills the last batch."""
    positions = torch.arange(step * batch, (step + 1) * batch)
    orders = {
        epoch: torch.randperm(count, generator=torch_generator(*stream, "epoch", epoch))
        for epoch in {int(position) // count for position in positions}
    }
    return torch.stack([orders[int(position) // count][int(position) % count] for position in positions])


def _predict(model: Classifier, rows: Sequence[SampleRow], side: int, canvas: Size) -> Int[np.ndarray, " n"]:
    """The classes of real pictures, each brought to its canvas first, as what was trained on was."""
    parts = (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
    return np.concatenate([classes_of(model, [read_picture(row, canvas).image for row in part], side) for part in parts])


@torch.inference_mode()
def classes_of(model: Classifier, images: Sequence[UInt8[np.ndarray, "h w 3"]], side: int) -> Int[np.ndarray, " n"]:
    """The classes of pictures at their canvas."""
    shown = np.stack([resize_picture(image, (side, side)) for image in images])
    logits: Tensor = model(to_tensor(shown).to(next(model.parameters()).device))
    return logits.argmax(dim=1).cpu().numpy()
