"""SageMaker Ground Truth's manifests: a line of JSON a picture, with boxes, a mask in colours, or a class of the whole picture.

Masks are files of their own, in a bucket. Copied below the manifest's folder, they are found there by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import ImageColor

from cadiff.errors import UsageError
from cadiff.labels.model import Box, Format, Labelled, LabelObject
from cadiff.labels.pictures import PictureFolder
from cadiff.labels.reading import WHOLE, parse_object, start, told
from cadiff.labels.rle import to_runs
from cadiff.opening import opened, read_file
from cadiff.storage import decode_image

NOTHING = "background"  # the class of pixels that are none, in any letters
META = "-metadata"


def holds(path: Path) -> bool:
    return path.is_file() and start(path).startswith("{") and '"source-ref"' in start(path)


def read(path: Path, pictures: PictureFolder) -> Iterator[Labelled]:
    """One picture a line.

    Raises:
        UsageError: if a line does not parse, or a mask that it names is not there.
    """
    masks = {file.name: file for file in sorted(path.parent.rglob("*.png")) if not file.name.startswith(".")}
    with opened(path, "a manifest") as file:
        for number, line in enumerate(iter(lambda: file.readline(WHOLE), b""), 1):
            if line.strip():
                yield _labelled(line.decode("utf-8-sig", "replace"), path, number, masks)


def _labelled(line: str, path: Path, number: int, masks: dict[str, Path]) -> Labelled:
    said = parse_object(line, path, f"line {number}: ")
    objects: list[LabelObject] = []
    classes: list[str] = []
    width = height = None
    with told(path, f"line {number}"):
        for key, meta in ((key, said[key + META]) for key in said if key + META in said):
            value = said[key]
            if isinstance(value, dict) and "annotations" in value:
                width, height = (value["image_size"][0][side] for side in ("width", "height"))
                objects += [_box(one, meta["class-map"]) for one in value["annotations"]]
            elif "internal-color-map" in meta:
                objects += _coloured(_mask(str(value), masks, path), meta["internal-color-map"])
            elif "class-name" in meta:
                classes.append(str(meta["class-name"]))
            else:
                raise ValueError(f"{key!r} has no boxes, mask or class; expected one of these kinds of labels")
        return Labelled(said["source-ref"], width, height, objects, tuple(classes), path)


def _box(one: dict[str, Any], names: dict[str, str]) -> LabelObject:
    left, top, width, height = (float(one[key]) for key in ("left", "top", "width", "height"))
    return LabelObject(str(names[str(one["class_id"])]), box=Box(left, top, left + width, top + height))


def _mask(name: str, masks: dict[str, Path], path: Path) -> np.ndarray:
    file = masks.get(PurePosixPath(urlsplit(name).path).name)
    if file is None:
        raise UsageError(f"{path}: the mask {name!r} is not below {path.parent}; copy it there from its bucket")
    return decode_image(read_file(file, "a mask"), "RGB", str(file))


def _coloured(pixels: np.ndarray, colours: dict[str, dict[str, str]]) -> list[LabelObject]:
    """The classes whose colour is in the mask."""
    found = []
    for said in colours.values():
        mask = (pixels == np.array(ImageColor.getrgb(said["hex-color"]), np.uint8)).all(axis=2)
        if said["class-name"].lower() != NOTHING and mask.any():
            found.append(LabelObject(said["class-name"], mask=to_runs(mask)))
    return found


FORMAT = Format("SageMaker Ground Truth", holds, read)
