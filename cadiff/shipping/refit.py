"""Training once more, on all labelled pictures, when there is nothing left to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cadiff.detection import filter_shards, train_seed
from cadiff.params import EXEMPLARS, Params
from cadiff.records import Role, SampleRow
from cadiff.synthesis import synthesize

LEARNT_FROM: dict[Role, Role] = {"held_out": "exemplar", "test_good": "normal"}  # calibration normals stay what they are


def refit(
    params: Params, method: str, product: str, seed: int, samples: Sequence[SampleRow], sources: Mapping[str, Path], out: Path, work: Path
) -> None:
    """Trains the seed's detector and classifier as the evaluated ones were, with held-out anomalies as exemplars and good test pictures
    as normals; writes their files into ``out`` (``cadiff.detection.train_seed``).

    ``sources`` are the shard folders of the evaluated one by method. What the exemplars' method drew from a third of the anomalies is
    drawn anew from all of them, and stands beside the other methods' shards as they are. Calibration normals stay out of training and
    calibrate the new detector. Nothing is left to choose an epoch by: the last one's weights are taken, whatever ``detector.protocol``
    says. ``params`` are the product's; ``work`` keeps what a stopped run goes on from.

    Raises:
        UsageError, CADiffError: as ``filter_shards``, ``synthesize`` and ``train_seed``.
    """
    labelled = [replace(row, role=LEARNT_FROM.get(row.role, row.role)) for row in samples]
    synthesize(EXEMPLARS, params, product, labelled, work / EXEMPLARS)
    kept, _ = filter_shards(params, method, product, samples, sources, work / "kept")
    generated = [work / EXEMPLARS, *(folder for source, folder in kept.items() if source != EXEMPLARS)]
    last = params.model_copy(update={"detector": params.detector.model_copy(update={"protocol": "strict"})})
    train_seed(last, method, product, generated, labelled, seed, out, work)
