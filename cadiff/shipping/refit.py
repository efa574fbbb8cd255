"""Training once more, on all labelled pictures, when there is nothing left to measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cadiff.detection import filter_shards, train_seed
from cadiff.params import EXEMPLARS
from cadiff.records import Role
from cadiff.synthesis import synthesize
from cadiff.task import Task

LEARNT_FROM: dict[Role, Role] = {"held_out": "exemplar", "test_good": "normal"}  # calibration normals stay what they are


def refit(task: Task, seed: int, sources: Mapping[str, Path], out: Path, work: Path) -> None:
    """Trains the seed's detector and classifier as the evaluated ones were, with held-out anomalies as exemplars and good test pictures
    as normals; writes their files into ``out`` (``cadiff.detection.train_seed``).

    ``sources`` are the shard folders of the evaluated one by method. What the exemplars' method drew from a third of the anomalies is
    drawn anew from all of them, and stands beside the other methods' shards as they are. Calibration normals stay out of training and
    calibrate the new detector. Nothing is left to choose an epoch by: the last one's weights are taken, whatever ``detector.protocol``
    says. ``work`` keeps what a stopped run goes on from.

    Raises:
        UsageError, CADiffError: as ``filter_shards``, ``synthesize`` and ``train_seed``.
    """
    labelled = [replace(row, role=LEARNT_FROM.get(row.role, row.role)) for row in task.samples]
    synthesize(replace(task, method=EXEMPLARS, samples=labelled), work / EXEMPLARS)
    kept, _ = filter_shards(task, sources, work / "kept")
    generated = [work / EXEMPLARS, *(folder for source, folder in kept.items() if source != EXEMPLARS)]
    last = task.params.model_copy(update={"detector": task.params.detector.model_copy(update={"protocol": "strict"})})
    train_seed(replace(task, params=last, samples=labelled), generated, seed, out, work)
