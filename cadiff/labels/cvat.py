"""CVAT's XML for images (1.1): polygons, boxes, ellipses and masks of all pictures in one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cadiff.errors import UsageError
from cadiff.labels.model import Box, Format, Labelled, LabelObject, ellipse
from cadiff.labels.pictures import PictureFolder
from cadiff.labels.reading import ring, start, told, xml_elements
from cadiff.labels.rle import runs


def holds(path: Path) -> bool:
    return path.is_file() and "<annotations" in start(path)


def read(path: Path, pictures: PictureFolder) -> Iterator[Labelled]:
    """The file's pictures in its order; a ``tag`` names the whole picture.

    Raises:
        UsageError: if it does not parse, is of a video, or a shape in it is none that has an area.
    """
    for element in xml_elements(path, frozenset({"image", "track"})):
        if element.tag == "track":
            raise UsageError(f"{path}: labels of a video (<track>); expected those of pictures: export as CVAT for images 1.1")
        with told(path, "image"):
            name, width, height = element.attrib["name"], int(element.attrib["width"]), int(element.attrib["height"])
        objects, classes = [], []
        for number, shape in enumerate(element, 1):
            with told(path, f"{name}, shape {number}"):
                if shape.tag == "tag":
                    classes.append(shape.attrib["label"])
                else:
                    objects.append(_object(shape.tag, shape.attrib))
        yield Labelled(name.replace("\\", "/"), width, height, objects, tuple(classes), path)


def _object(kind: str, said: dict[str, Any]) -> LabelObject:
    name, degrees = said["label"], float(said.get("rotation", 0))
    if kind == "polygon":
        return LabelObject(name, polygons=(ring([pair.split(",") for pair in said["points"].split(";")]),))
    if kind == "box":
        box = Box(*(float(said[edge]) for edge in ("xtl", "ytl", "xbr", "ybr")))
        if not degrees:
            return LabelObject(name, box=box)
        centre, radii = ((box.left + box.right) / 2, (box.top + box.bottom) / 2), ((box.right - box.left) / 2, (box.bottom - box.top) / 2)
        return LabelObject(name, polygons=(ellipse(centre, radii, degrees),), approximate=True)
    if kind == "ellipse":
        centre, radii = (float(said["cx"]), float(said["cy"])), (float(said["rx"]), float(said["ry"]))
        return LabelObject(name, polygons=(ellipse(centre, radii, degrees),))
    if kind == "mask":
        counts = (int(count) for count in said["rle"].split(","))
        left, top, width, height = (int(float(said[key])) for key in ("left", "top", "width", "height"))
        return LabelObject(name, mask=runs(counts, height, width, corner=(top, left)))
    raise ValueError(f"a {kind} has no area that can be known; expected polygon, mask, ellipse or box: draw it so")


FORMAT = Format("CVAT for images", holds, read)
