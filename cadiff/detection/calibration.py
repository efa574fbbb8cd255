"""From which score on a picture is called defective, set by good pictures that nothing was trained on (role ``calibration``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from cadiff.detection.batches import GOOD, shard_rows
from cadiff.detection.measuring import Detector, Take, batches
from cadiff.detection.segmenter import Segmenter
from cadiff.errors import CADiffError
from cadiff.pictures import fitted, resize_picture
from cadiff.seeds import numpy_generator
from cadiff.storage import decode_image, read_table
from cadiff.task import Task
from cadiff.thresholds import Thresholds, between, conformal

Rule = Literal["good", "generated"]
GENERATED = 64  # anomalies of the shards that the rule ``generated`` looks at, at most
UNCALIBRATED = (
    "no threshold, since no good picture was kept to set one: set dataset.calibration, such as 0.2 of at least three train normals, and "
    "run `dvc repro`"
)


def calibrate(
    task: Task, detector: Segmenter, generated: Sequence[Path], rule: Rule, take: Take = lambda rows, scores: None
) -> Thresholds | None:
    """The thresholds by ``rule``, for ``detector.false_alarms``; None where there are no calibration normals.

    ``good``: the conformal thresholds of the calibration normals' scores. ``generated``: the image threshold is then moved towards the
    scores of the training shards' anomalies (``between``). ``generated`` are the folders of these shards; ``take`` sees each batch of
    calibration normals.

    Raises:
        CADiffError: if a calibration normal or a shard is broken, or there is no generated anomaly where the rule needs one.
    """
    found = calibrate_good(task, detector, take)
    if found is None or rule == "good":
        return found
    return replace(found, image=between(found.image, generated_scores(detector, generated, task.params.seed)))


def calibrate_good(task: Task, detector: Detector, take: Take = lambda rows, scores: None) -> Thresholds | None:
    """The conformal thresholds, of any detector; None where there are no calibration normals. A pixel's is that of the largest pixel of
    each calibration normal's map: what is promised of it is that of a whole good picture no pixel lies above. ``take`` sees each batch."""
    rows = [row for row in task.samples if row.product == task.product and row.role == "calibration"]
    if not rows:
        return None
    images, pixels = [], []
    for batch in batches(rows):
        scores = detector.score(batch)
        take(batch, scores)
        images += scores.images.tolist()
        pixels += [float(map_.max()) for map_ in scores.maps]
    false_alarms = task.params.detector.false_alarms
    return Thresholds(conformal(np.array(images), false_alarms), conformal(np.array(pixels), false_alarms))


def generated_scores(detector: Segmenter, generated: Sequence[Path], seed: int) -> Float[np.ndarray, " n"]:
    """Image scores of ``GENERATED`` anomalies of the shards, or all if there are fewer; which ones depends on the seed alone.

    Raises:
        CADiffError: if there is none, or a shard is broken.
    """
    shards = sorted(path for folder in generated for path in Path(folder).glob("*.parquet") if path.name != GOOD)
    counts = [read_table(path, columns=["sample_id"]).num_rows for path in shards]
    if not sum(counts):
        raise CADiffError(f"{', '.join(map(str, generated))}: expected shards of anomalies (*.parquet), found none. Generate them.")
    chosen = numpy_generator(seed, "calibration", "generated").permutation(sum(counts))[:GENERATED]
    wanted, scores, index = set(chosen.tolist()), [], 0
    for path in shards:
        for row in shard_rows(path):
            if index in wanted:
                image = decode_image(row["image"]["bytes"], "RGB", f"{path}: {row['sample_id']}")
                height, width, _ = image.shape
                shown = resize_picture(image, fitted(height, width, detector.view.seen))
                scores.append(float(detector.score_images([shown]).images[0]))
            index += 1
    return np.array(scores)
