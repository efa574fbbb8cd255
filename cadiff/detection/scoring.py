"""Scoring a trained detector on real images that nothing was trained on: held-out anomalies and test/good."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cadiff.detection.measuring import Keep, measure
from cadiff.detection.networks import network_of
from cadiff.detection.segmenter import Segmenter
from cadiff.detection.tiles import View
from cadiff.detection.trained import read_weights
from cadiff.detection.training import identity
from cadiff.detection.unet import place
from cadiff.devices import pick_device
from cadiff.records import MetricRow
from cadiff.storage import digest
from cadiff.task import Task
from cadiff.thresholds import Threshold


def score(task: Task, seed: int, detector: Path, keep: Keep | None = None, threshold: Threshold | None = None) -> list[MetricRow]:
    """Pixel and image metrics of the detector that ``train_detector`` left in the folder (cadiff.detection.measuring), and with a
    ``threshold`` of an image's score what comes of it.

    Raises:
        UsageError: if a picture is too small for the network.
        CADiffError: if there is nothing to score, or the detector is not one of this product, method, seed and sizes.
    """
    segmenter = load_segmenter(task, seed, Path(detector))[0]
    return measure(task, seed, segmenter, keep, threshold=threshold)


def load_segmenter(task: Task, seed: int, folder: Path) -> tuple[Segmenter, str]:
    """The detector that ``train_detector`` left in the folder, and the digest of what its training images were generated with.

    Raises:
        CADiffError: as ``load_model``.
    """
    settings, dataset = task.params.detector, task.params.dataset
    model, made_by = load_model(task, seed, folder / f"seed-{seed}.safetensors")
    made = digest([task.params.digest_of("filter", "detector"), dataset.size, dataset.calibration, made_by])
    return Segmenter(model, View.of(task.params), settings.pooling, settings.network, made), made_by


def load_model(task: Task, seed: int, path: Path) -> tuple[nn.Module, str]:
    """A trained detector, and the digest of what its training images were generated with.

    Raises:
        CADiffError: if the file is not there, not whole, or not the detector that is asked for.
    """
    tensors, metadata = read_weights(path, identity(task, seed), "Train again.")
    model = network_of(task.params.detector.network).build(task.params.detector, False)
    model.load_state_dict(tensors)
    return place(model, pick_device(task.params.base.device)).eval(), metadata["made_by"]
