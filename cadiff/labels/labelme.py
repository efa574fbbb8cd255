"""LabelMe's JSON: a file a picture, with polygons, rectangles, circles, and masks as small pictures in text."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cadiff.labels.model import Box, Format, Labelled, LabelObject, ellipse
from cadiff.labels.pictures import PictureFolder
from cadiff.labels.reading import files_of, read_object, ring, start, told
from cadiff.labels.rle import to_runs
from cadiff.storage import decode_image

SHAPES = "polygon, rectangle, circle or mask"


def holds(path: Path) -> bool:
    """A file with ``shapes``, or a folder whose first JSON file is one."""
    files = [path] if path.is_file() else files_of(path, ".json")[:1]
    return any(start(file).startswith("{") and '"shapes"' in start(file, 2**24) for file in files)


def read(path: Path, pictures: PictureFolder) -> Iterator[Labelled]:
    """One picture a file; ``imagePath`` is relative to the file.

    Raises:
        UsageError: if a file does not parse, or a shape in it is none that has an area.
    """
    for file in files_of(path, ".json"):
        said = read_object(file)
        with told(file, "the file"):
            name, shapes = str(said["imagePath"]), list(said["shapes"])
            flags = said.get("flags") or {}
            classes = tuple(str(flag) for flag, on in flags.items() if on is True)
        objects = []
        for index, shape in enumerate(shapes, 1):
            with told(file, f"shape {index}"):
                objects.append(_object(shape))
        yield Labelled(name.replace("\\", "/"), said.get("imageWidth"), said.get("imageHeight"), objects, classes, file)


def _object(shape: dict[str, Any]) -> LabelObject:
    name, kind, points = str(shape["label"]), shape.get("shape_type") or "polygon", ring(shape["points"])
    if kind == "polygon":
        return LabelObject(name, polygons=(points,))
    if kind == "rectangle" and len(points) in (2, 4):
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return LabelObject(name, box=Box(float(left), float(top), float(right), float(bottom)))
    if kind == "circle" and len(points) == 2:
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        return LabelObject(name, polygons=(ellipse((x, y), (radius, radius)),))
    if kind == "mask" and len(points) == 2:
        pixels = decode_image(base64.b64decode(shape["mask"]), "L", f"the mask of {name}") > 0
        left, top = (round(float(number)) for number in points[0])
        return LabelObject(name, mask=to_runs(pixels, corner=(top, left)))
    raise ValueError(f"a {kind} of {len(points)} points has no area that can be known; expected {SHAPES}: draw it so")


FORMAT = Format("LabelMe", holds, read)
