"""COCO's JSON: ``images``, ``annotations`` and ``categories``, with polygons, runs or boxes.

One file holds a whole data set, and its annotations lie in any order. It is streamed three times, and the annotations wait in a temporary
database for their pictures' turn, so that a file of any length takes the memory of one picture's objects.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cadiff.errors import UsageError
from cadiff.labels.model import Box, Format, Labelled, LabelObject
from cadiff.labels.pictures import PictureFolder
from cadiff.labels.reading import ring, start, stream, told
from cadiff.labels.rle import runs, unpack_coco


def holds(path: Path) -> bool:
    text = start(path) if path.is_file() else ""
    known = ('"annotations"', '"images"', '"categories"')
    return text.startswith("{") and '"shapes"' not in text and any(key in text for key in known)


def read(path: Path, pictures: PictureFolder) -> Iterator[Labelled]:
    """The file's pictures in its order, each with all of its objects.

    Raises:
        UsageError: if the file does not parse, or something in it is not as COCO has it.
    """
    with told(path, "categories"):
        names = {one["id"]: str(one["name"]) for one in stream(path, "categories.item")}
    known = {one["id"] for one in _images(path)}
    with (
        tempfile.TemporaryDirectory(prefix="cadiff-labels-") as folder,
        contextlib.closing(sqlite3.connect(Path(folder) / "annotations")) as spool,
    ):
        _spool(path, spool, known)
        for image in _images(path):
            found = spool.execute("select said from annotations where image = ? order by rowid", (_spooled(image["id"]),))
            objects = []
            for one in (json.loads(said) for (said,) in found):
                with told(path, f"annotation {one.get('id', '')} of {image['file_name']}"):
                    objects.append(_object(one, names))
            yield Labelled(image["file_name"], image.get("width"), image.get("height"), objects, origin=path)


def _images(path: Path) -> Iterator[dict[str, Any]]:
    seen = set()
    for index, one in enumerate(stream(path, "images.item")):
        with told(path, f"image {index}"):
            if one["id"] in seen:
                raise ValueError(f"the id {one['id']} is there twice")
            if not isinstance(one["file_name"], str):
                raise ValueError(f"expected a file_name, found {one['file_name']!r}")
            seen.add(one["id"])
        yield one


def _spool(path: Path, spool: sqlite3.Connection, known: set[Any]) -> None:
    """The annotations in a table with an index of their pictures."""
    spool.execute("pragma journal_mode = off")
    spool.execute("create table annotations (image text, said text)")
    for one in stream(path, "annotations.item"):
        with told(path, f"annotation {one.get('id', '') if isinstance(one, dict) else one}"):
            if one["image_id"] not in known:
                raise UsageError(f"{path}: annotation {one.get('id', '')}: image_id {one['image_id']} is none of its images")
            kept = {key: one[key] for key in ("id", "category_id", "segmentation", "bbox") if key in one}
            spool.execute("insert into annotations values (?, ?)", (_spooled(one["image_id"]), json.dumps(kept)))
    spool.execute("create index of_image on annotations (image)")


def _spooled(number: Any) -> str:
    """A picture's id as the table has it: tools that keep their ids in columns of real numbers write 7 as 7.0."""
    return json.dumps(int(number) if isinstance(number, float) and number.is_integer() else number)


def _object(one: dict[str, Any], names: dict[Any, str]) -> LabelObject:
    """An annotation: its polygons or runs; where it has neither, its box."""
    if one["category_id"] not in names:
        raise ValueError(f"category_id {one['category_id']} is none of the categories")
    name, shape = names[one["category_id"]], one.get("segmentation")
    if isinstance(shape, dict):
        height, width = (int(side) for side in shape["size"])
        counts = shape["counts"]
        numbers = unpack_coco(counts) if isinstance(counts, str) else [int(count) for count in counts]
        return LabelObject(name, mask=runs(numbers, height, width, by_columns=True))
    if shape:
        return LabelObject(name, polygons=tuple(ring(part) for part in shape))
    left, top, across, down = (float(number) for number in one["bbox"])
    return LabelObject(name, box=Box(left, top, left + across, top + down))


FORMAT = Format("COCO", holds, read)
