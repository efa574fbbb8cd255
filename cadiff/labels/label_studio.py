"""Label Studio's JSON (the full one): a list of tasks, with polygons, rectangles, ellipses, brushes and choices; lengths in per cent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cadiff.labels.model import Format, Labelled, LabelObject, ellipse, rectangle
from cadiff.labels.pictures import PictureFolder, local_path
from cadiff.labels.reading import ring, start, stream, told
from cadiff.labels.rle import unpack_brush
from cadiff.storage import IMAGE_SUFFIXES

BESIDE = frozenset({"relation", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise"})  # results that mark nothing


def holds(path: Path) -> bool:
    return path.is_file() and start(path).startswith("[")


def read(path: Path, pictures: PictureFolder) -> Iterator[Labelled]:
    """The tasks' pictures in the file's order; what was cancelled or predicted counts as nothing.

    Raises:
        UsageError: if the file does not parse, is the short export, has several annotations of one picture, or a result in it is none
            that has an area.
    """
    for index, task in enumerate(stream(path, "item"), 1):
        with told(path, f"task {index}"):
            yield _labelled(task, path)


def _labelled(task: dict[str, Any], path: Path) -> Labelled:
    if not isinstance(task, dict) or "data" not in task:
        raise ValueError("expected a task with data and annotations, as the export named JSON has them (not JSON-MIN)")
    image = _image(task["data"])
    made = [one for one in task.get("annotations", task.get("completions", [])) if not one.get("was_cancelled")]
    if len(made) > 1:
        raise ValueError(f"{len(made)} annotations of {image}; expected one: delete or cancel the others")
    results = made[0]["result"] if made else []
    objects, classes = [], []
    width = height = None
    for result in results:
        width, height = result.get("original_width", width), result.get("original_height", height)
        if result["type"] == "choices":
            classes += result["value"]["choices"]
        elif result["type"] not in BESIDE:
            objects += _objects(result)
    return Labelled(image, width, height, objects, tuple(classes), path)


def _image(data: dict[str, Any]) -> str:
    """The picture among a task's data: the one value that ends as a picture's name does."""
    texts = [value for value in data.values() if isinstance(value, str)]
    named = [text for text in texts if PurePosixPath(local_path(text)).suffix.lower() in IMAGE_SUFFIXES]
    if len(named) != 1:
        raise ValueError(f"expected one picture among the task's data, found {len(named)}")
    return named[0]


def _objects(result: dict[str, Any]) -> list[LabelObject]:
    """A region, once for each of its names."""
    value, kind = result["value"], result["type"]
    names = next((value[key] for key in value if key.endswith("labels")), None)
    if names is None and kind in ("polygon", "rectangle", "ellipse", "brush"):
        return []  # the region's shape alone; its names come in a result of their own, with the shape
    if names is None:
        raise ValueError(f"a result of the type {kind!r} has no labels")
    width, height = int(result["original_width"]), int(result["original_height"])
    return [_object(str(name), kind, value, width, height) for name in names]


def _object(name: str, kind: str, value: dict[str, Any], width: int, height: int) -> LabelObject:
    across, down, degrees = width / 100, height / 100, float(value.get("rotation") or 0)
    if "rle" in value:
        return LabelObject(name, mask=unpack_brush(value["rle"], height, width))
    if "points" in value:
        return LabelObject(name, polygons=(ring(value["points"]) * (across, down),))
    if "radiusX" in value:
        centre, radii = (value["x"] * across, value["y"] * down), (value["radiusX"] * across, value["radiusY"] * down)
        return LabelObject(name, polygons=(ellipse(centre, radii, degrees),))
    if "height" in value:
        return rectangle(name, value["x"] * across, value["y"] * down, value["width"] * across, value["height"] * down, degrees)
    raise ValueError(f"a result of the type {kind!r} has no area that can be known; expected a polygon, brush, ellipse or rectangle")


FORMAT = Format("Label Studio", holds, read)
