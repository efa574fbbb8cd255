"""A product's detectors and classifiers: one of each per seed, trained and scored here or on the cluster, all written here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from cadiff.cluster import run_parts
from cadiff.detection.calibration import calibrate
from cadiff.detection.classifier import TrainedClassifier, score_classifier, train_classifier, write_classifier
from cadiff.detection.measuring import Keep, keeping
from cadiff.detection.published import published
from cadiff.detection.scoring import load_segmenter, score
from cadiff.detection.trained import Trained, describe, write_trained
from cadiff.detection.training import train_detector
from cadiff.metrics.generated import score_generated
from cadiff.progress import Progress
from cadiff.records import METRIC_SCHEMA, MetricRow, from_table, to_table
from cadiff.storage import write_bytes
from cadiff.task import Task

FILES_SCHEMA = pa.schema([("name", pa.string()), ("data", pa.large_binary())])


class Detected(NamedTuple):
    """One seed's result: the detector's files (FILES_SCHEMA), METRIC_SCHEMA, and SCORED_SCHEMA as it was scored."""

    files: pa.Table
    metrics: pa.Table
    scored: list[pa.Table]


def detect_seeds(task: Task, generated: Sequence[Path], out: Path, work: Path, keep: Keep) -> list[MetricRow]:
    """Trains and scores a detector and a classifier for each of ``detector.seeds``, where ``cluster`` says.

    Writes the detectors' files into ``out``, gives ``keep`` the scored images and returns the metrics, in the order of
    the seeds.

    Raises:
        UsageError, CADiffError: as ``train_seed`` and ``score``.
    """
    seeds = task.params.detector.seeds
    waiting: dict[int, Detected] = {}
    metrics: list[MetricRow] = []
    bar, written = Progress(f"detectors {task.method} {task.product}", len(seeds)), 0
    shared = (task, list(generated), work)
    # in this process the scored images go where they are kept, a batch at a time; a worker elsewhere can only send them back
    part = partial(detect_seed, keep=keep) if task.params.cluster is None else detect_seed
    for index, detected in run_parts(task.params.cluster, part, shared, [(seed,) for seed in seeds]):
        for row in detected.files.to_pylist():
            write_bytes(out / row["name"], row["data"])
        waiting[index] = detected
        bar.advance()
        while written in waiting:  # a cluster's results come in any order
            ready = waiting.pop(written)
            for table in ready.scored:
                keep(table)
            metrics += from_table(ready.metrics, MetricRow)
            written += 1
    return metrics


def detect_published(task: Task, generated: Mapping[str, Path], out: Path, work: Path) -> list[MetricRow]:
    """The published evaluation beside ``detect_seeds``: on all images, whatever a filter leaves out elsewhere, with detectors of its own.

    ``generated`` are the sources by their names; a union's images are its parts', scored there.
    """
    own = replace(task, params=published(task.params))
    rows = score_generated(own, generated[task.method]) if task.method in generated else []
    return rows + detect_seeds(own, list(generated.values()), out, work, keep=lambda scored: None)


def detect_seed(task: Task, generated: Sequence[Path], work: Path, seed: int, keep: Keep | None = None) -> Detected:
    """One seed; only its checkpoints, in ``work``, outlive the call. ``keep`` is given the scored images, those of the calibration
    normals first; without, they are returned, all of the seed's at once."""
    scored: list[pa.Table] = []
    with tempfile.TemporaryDirectory(prefix="cadiff-") as name:
        folder = Path(name)
        trained, classifier = train_seed(task, generated, seed, folder, work, keep or scored.append)
        threshold = None if trained.thresholds is None else trained.thresholds.image
        metrics = score(task, seed, folder, keep or scored.append, threshold)
        if classifier is not None:
            metrics += score_classifier(task, seed, classifier)
        files = [{"name": path.name, "data": path.read_bytes()} for path in sorted(folder.iterdir())]
    return Detected(pa.Table.from_pylist(files, schema=FILES_SCHEMA), to_table(metrics, METRIC_SCHEMA), scored)


def train_seed(
    task: Task, generated: Sequence[Path], seed: int, out: Path, work: Path, keep: Keep | None = None
) -> tuple[Trained, TrainedClassifier | None]:
    """Trains and calibrates a detector, trains a classifier where there is anything to learn, and writes all of their files into ``out``:
    ``seed-<s>.safetensors``, ``curve-<s>.parquet``, ``classifier-<s>.safetensors`` and ``seed-<s>.json``. ``keep`` is given what the
    detector said of the calibration normals.

    Raises:
        UsageError, CADiffError: as ``train_detector``, ``calibrate`` and ``train_classifier``.
    """
    train_detector(task, generated, seed, out, work)
    segmenter, made_by = load_segmenter(task, seed, out)
    thresholds = calibrate(task, segmenter, generated, task.params.detector.threshold, keeping(task, seed, segmenter, keep))
    classifier = train_classifier(task, generated, seed, work)
    if classifier is not None:
        write_classifier(classifier, out, seed)
    trained = describe(task, seed, made_by, thresholds, classifier.card if classifier else None)
    write_trained(trained, out)
    return trained, classifier
