"""What is not the base's: where masks lie, signals of quality, PNG and Parquet in and out."""

from __future__ import annotations

import numpy as np

from cadiff.masks import make_scenes
from cadiff.metrics.quality import assess
from cadiff.pictures import read_picture
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, to_table
from cadiff.storage import decode_image, encode_png, read_table, write_table
from cadiff.task import Task

from .place import METHOD, PRODUCT, Setting
from .rows import Row, per_second, rounds, row

PART = "files"


def rates(setting: Setting, _: object) -> list[Row]:
    """Each as its stage does it, beginning to end: masks and quality with what they find out of the real pictures first."""
    params, scale = setting.params(), setting.scale
    samples = setting.samples(params)
    shards, task = setting.shards(params, samples), Task(params, PRODUCT, METHOD, samples)
    shard, copy = next(iter(sorted(shards.glob("*.parquet")))), setting.folder / "copy.parquet"
    rows = [GeneratedRow(**values) for values in read_table(shard, GENERATED_SCHEMA).to_pylist()]
    pictures = [read_picture(sample, params.dataset.size).image for sample in samples]
    scenes = make_scenes(task)
    judged = len(assess(task, shards))

    def read() -> None:
        for values in read_table(shard, GENERATED_SCHEMA).to_pylist():
            for part, mode in (("image", "RGB"), ("mask", "L")):
                decode_image(values[part]["bytes"], mode, values["sample_id"])

    found = rounds(
        setting.repeat,
        {
            "scenes made, masks placed": per_second(len(scenes), lambda: make_scenes(task)),
            "quality signals": per_second(judged, lambda: assess(task, shards)),
            "pictures read from the data set": per_second(
                len(samples), lambda: [read_picture(sample, params.dataset.size) for sample in samples]
            ),
            "pictures encoded as PNG": per_second(len(pictures), lambda: [encode_png(picture) for picture in pictures]),
            "shard written": per_second(len(rows), lambda: write_table(copy, to_table(rows, GENERATED_SCHEMA))),
            "shard read and decoded": per_second(len(rows), read),
        },
    )
    note = f"{scale.canvas} px"
    told = [row(PART, what, values, "images/s", note) for what, values in found.items()]
    sizes = [len(encode_png(picture)) / 2**10 for picture in pictures]
    return [*told, row(PART, "PNG of a picture", [float(np.median(sizes))], "KiB", note)]
