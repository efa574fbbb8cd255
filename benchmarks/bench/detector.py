"""The detector: steps of its training a second, pictures that it judges a second."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cadiff.detection import Inspector, train_detector
from cadiff.detection.scoring import load_segmenter
from cadiff.detection.trained import describe
from cadiff.params import Params
from cadiff.pictures import read_picture
from cadiff.task import Task

from .place import METHOD, PRODUCT, Setting
from .rows import Row, per_second, rounds, row, seconds_of

PART = "detector"


def rates(setting: Setting, _: object) -> list[Row]:
    """A step is what a training of three times as many steps takes longer: what a training begins and ends with is in neither."""
    params, scale = setting.params(), setting.scale
    samples = setting.samples(params)
    shards, count, out = setting.shards(params, samples), scale.detector_steps, setting.folder / "detector"

    def trained(steps: int) -> float:
        own = {"epochs": 1, "samples_per_epoch": steps * params.detector.batch}
        asked = params.model_copy(update={"detector": params.detector.model_copy(update=own)})
        with tempfile.TemporaryDirectory() as work:  # of its own each time: else it would go on from the last checkpoint
            return seconds_of(lambda: train_detector(Task(asked, PRODUCT, METHOD, samples), [shards], 0, out, Path(work)))

    def steps_a_second() -> float:
        few, more = (trained(steps) for steps in (count, 3 * count))
        return 2 * count / (more - few)

    trained(1)
    inspector = inspector_of(params, setting, out)
    pictures = [read_picture(sample, params.dataset.size).image for sample in samples]
    pictures = [pictures[index % len(pictures)] for index in range(scale.pictures)]
    found = rounds(
        setting.repeat,
        {
            "training": steps_a_second,
            "together": per_second(len(pictures), lambda: inspector.predict_all(pictures)),
            "alone": per_second(len(pictures), lambda: [inspector.predict(picture) for picture in pictures]),
        },
    )  # fmt: skip
    seen = f"{params.detector.network}, {scale.detector_size} px"
    return [
        row(PART, f"training ({seen}, batch {params.detector.batch})", found["training"], "steps/s"),
        row(PART, f"prediction, {len(pictures)} together ({seen})", found["together"], "pictures/s"),
        row(PART, f"prediction, one at a time ({seen})", found["alone"], "pictures/s"),
    ]


def inspector_of(params: Params, setting: Setting, out: Path) -> Inspector:
    """What ``load_detector`` gives, without a threshold and a classifier."""
    segmenter, made_by = load_segmenter(Task(params, PRODUCT, METHOD), 0, out)
    return Inspector(describe(Task(params, PRODUCT, METHOD, setting.samples(params)), 0, made_by, None, None), segmenter, None)
