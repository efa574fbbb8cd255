"""YOLO: a text file a picture; a line is a class's number and, as shares of the picture, a polygon (``-seg``) or a box.

The classes' names are in ``data.yaml`` (``names``), ``classes.txt`` or ``obj.names`` in the folder or above the labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cadiff.errors import UsageError
from cadiff.labels.model import Box, Format, Labelled, LabelObject
from cadiff.labels.pictures import PictureFolder
from cadiff.labels.reading import files_of, read_text, ring, told
from cadiff.params import read_mapping

LISTS = ("classes.txt", "obj.names")
TABLES = ("data.yaml", "dataset.yaml", "data.yml")
NOT_LABELS = frozenset({"classes.txt", "train.txt", "val.txt", "test.txt", "notes.txt"})


def holds(path: Path) -> bool:
    return path.is_dir() and _table(path) is not None and bool(_label_files(path))


def read(path: Path, pictures: PictureFolder) -> Iterator[Labelled]:
    """One picture a text file, found by its name without suffix; an empty file marks nothing.

    Raises:
        UsageError: if the classes' names are not there, or a line is none of YOLO's.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: expected a folder of YOLO's text files; name the folder that it lies in")
    names = _names(path)
    for file in _label_files(path):
        stem = file.relative_to(path).with_suffix("").as_posix()
        key = pictures.with_stem("/".join("images" if part == "labels" else part for part in stem.split("/")))
        if key is None:
            yield Labelled(stem, origin=file)
            continue
        width, height = pictures.size(key)
        objects = []
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if line.strip():
                with told(file, f"line {number}"):
                    objects.append(_object(line.split(), names, width, height))
        yield Labelled(key, width, height, objects, origin=file)


def _object(words: list[str], names: dict[int, str], width: int, height: int) -> LabelObject:
    number, values = int(words[0]), [float(word) for word in words[1:]]
    if number not in names:
        raise ValueError(f"class {number} has no name; there are {len(names)}")
    if not all(-0.01 <= value <= 1.01 for value in values):
        raise ValueError(f"expected shares of the picture, from 0 to 1, found {min(values)} to {max(values)}")
    if len(values) == 4:
        x, y, across, down = values
        return LabelObject(names[number], box=Box(*_edges(x, y, across, down, width, height)))
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"expected four numbers (a box) or at least three pairs (a polygon), found {len(values)}")
    return LabelObject(names[number], polygons=(ring(values) * (width, height),))


def _edges(x: float, y: float, across: float, down: float, width: int, height: int) -> tuple[float, float, float, float]:
    return (x - across / 2) * width, (y - down / 2) * height, (x + across / 2) * width, (y + down / 2) * height


def _label_files(path: Path) -> list[Path]:
    """The text files that are no lists and no notes (Roboflow leaves README.roboflow.txt)."""
    files = [(file, file.name.lower()) for file in files_of(path, ".txt")]
    return [file for file, name in files if name not in NOT_LABELS and not name.startswith("readme")]


def _table(path: Path) -> Path | None:
    """Where the classes' names are: in the folder itself, or in one of the two above."""
    places = [folder / name for folder in (path, *path.resolve().parents[:2]) for name in (*TABLES, *LISTS)]
    return next((place for place in places if place.is_file()), None)


def _names(path: Path) -> dict[int, str]:
    table = _table(path)
    if table is None:
        raise UsageError(f"{path}: expected the classes' names in {', '.join((*TABLES[:1], *LISTS))} there or above; put one there")
    if table.name in LISTS:
        return {number: line.strip() for number, line in enumerate(read_text(table).splitlines()) if line.strip()}
    with told(table, "names"):
        names = read_mapping(table)["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}


FORMAT = Format("YOLO", holds, read)
