"""Pascal VOC's XML: a file a picture with boxes; where ``SegmentationObject`` lies beside ``Annotations``, masks of its objects.

The numbers of a box are taken as its edges, as today's tools write them; the devkit of 2012 counts pixels from 1, which is one px aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cadiff.decoding import decode_numbers
from cadiff.labels.model import Box, Format, Labelled, LabelObject
from cadiff.labels.pictures import PictureFolder
from cadiff.labels.reading import files_of, ring, start, told, xml_elements
from cadiff.labels.rle import to_runs
from cadiff.opening import read_file

INSTANCES = "SegmentationObject"  # the folder of pictures whose pixels hold the object's number in the file, from 1; 255: unclear


def holds(path: Path) -> bool:
    files = [path] if path.is_file() else files_of(path, ".xml")[:1]
    return any("<annotation>" in start(file) or "<annotation " in start(file) for file in files)


def read(path: Path, pictures: PictureFolder) -> Iterator[Labelled]:
    """One picture a file, in the order of their names.

    Raises:
        UsageError: if a file does not parse, or lacks what a box needs.
    """
    for file in files_of(path, ".xml"):
        for root in xml_elements(file, frozenset({"annotation"})):
            with told(file, "the file"):
                name = _text(root, "filename")
                sized = root.find("size") is not None
                width, height = (int(_text(root, f"size/{side}")) if sized else None for side in ("width", "height"))
            instances = _instances(file)
            objects = []
            for number, one in enumerate(root.iterfind("object"), 1):
                with told(file, f"object {number}"):
                    objects.append(_object(one, number, instances))
            yield Labelled(name.replace("\\", "/"), width, height, objects, origin=file)


def _object(one: Any, number: int, instances: np.ndarray | None) -> LabelObject:
    """An object: its pixels among ``instances``, else its polygon (as Roboflow writes it), else its box."""
    name = _text(one, "name")
    if instances is not None and (mask := instances == number).any():
        return LabelObject(name, mask=to_runs(mask))
    if (corners := one.find("polygon")) is not None:
        return LabelObject(name, polygons=(ring([float(corner.text) for corner in corners]),))
    edges = (float(_text(one, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    return LabelObject(name, box=Box(*edges))


def _instances(file: Path) -> np.ndarray | None:
    path = file.parent.parent / INSTANCES / f"{file.stem}.png"
    if not path.is_file():
        return None
    return decode_numbers(read_file(path, "a mask of numbers"), str(path))


def _text(element: Any, place: str) -> str:
    text = element.findtext(place)
    if text is None or not text.strip():
        raise ValueError(f"expected <{place}>, but it is not there")
    return str(text).strip()


FORMAT = Format("Pascal VOC", holds, read)
