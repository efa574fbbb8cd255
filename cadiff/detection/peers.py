"""Detectors to compare with: those that learn from normal images alone, and those whose maps were made elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cadiff.detection.anomalib_peers import fit_anomalib, load_anomalib
from cadiff.detection.calibration import calibrate_good
from cadiff.detection.folder import open_maps
from cadiff.detection.measuring import Detector, Keep, measure, rows_to_score
from cadiff.detection.patchcore import fit_patchcore, load_patchcore
from cadiff.detection.published import published
from cadiff.records import MetricRow, ProtocolName
from cadiff.task import Task

Fit = Callable[[Task, int, Path, Path], None]
Load = Callable[[Task, int, Path], Detector]
PEERS: dict[str, tuple[Fit, Load]] = {
    "patchcore": (fit_patchcore, load_patchcore),
    **dict.fromkeys(("draem", "sspcab", "rd4ad", "cfa"), (fit_anomalib, load_anomalib)),
}


def fit_peer(task: Task, seed: int, out: Path, work: Path) -> None:
    """Fits one of ``PEERS`` on the product's train normals and writes ``out/seed-<seed>.safetensors``.

    ``work`` keeps the checkpoint from which a stopped run goes on, and must be another folder for other inputs.

    Raises:
        UsageError: if what the peer needs is not there (anomalib, weights), or pictures are too small for it.
        CADiffError: if there are no train normals, training diverges, or the checkpoint is broken.
    """
    PEERS[task.method][0](task, seed, out, work)


def score_peer(task: Task, seed: int, out: Path, keep: Keep | None = None, as_published: bool = False) -> list[MetricRow]:
    """Pixel and image metrics of a fitted peer (cadiff.detection.measuring), and what comes of the threshold that calibration normals set;
    ``as_published``: the metrics by the published evaluation's rules.

    Raises:
        CADiffError: if there is nothing to score, or what lies in ``out`` is not the peer that is asked for.
    """
    detector = PEERS[task.method][1](task, seed, out)
    if as_published:
        return measure(replace(task, params=published(task.params)), seed, detector, keep)
    thresholds = calibrate_good(task, detector)
    threshold = None if thresholds is None else thresholds.image
    protocol: ProtocolName = "legacy" if task.params.detector.protocol == "legacy" else "strict"  # nothing of theirs is chosen or left out
    return measure(task, seed, detector, keep, protocol, threshold)


def score_maps(task: Task, folder: Path, keep: Keep | None = None) -> list[MetricRow]:
    """The same metrics of the anomaly maps below ``folder/PRODUCT`` (cadiff.detection.folder); the seed is the parameters'.

    How that detector was trained, and whether it saw test images, is its maker's to say: their protocol is ``unknown``.

    Raises:
        CADiffError: if there is nothing to score, or a map is missing or none.
    """
    detector = open_maps(task.params, rows_to_score(task.samples, task.product), folder)
    return measure(task, task.params.seed, detector, keep, "unknown")
