"""The formats that are read, and which of them a file or folder is."""

from __future__ import annotations

from pathlib import Path

from cadiff.errors import UsageError
from cadiff.labels import coco, cvat, ground_truth, label_studio, labelme, voc, yolo
from cadiff.labels.model import Format
from cadiff.labels.names import FormatName

# In the order in which they are asked: the more particular first.
FORMATS: dict[FormatName, Format] = {
    "ground-truth": ground_truth.FORMAT, "labelme": labelme.FORMAT, "coco": coco.FORMAT, "label-studio": label_studio.FORMAT,
    "cvat": cvat.FORMAT, "voc": voc.FORMAT, "yolo": yolo.FORMAT,
}  # fmt: skip


def recognised(path: Path) -> FormatName:
    """Which format a label file, or a folder of such, is of.

    Raises:
        UsageError: if it is of none of them.
    """
    found = next((name for name, known in FORMATS.items() if known.holds(path)), None)
    if found is None:
        titles = ", ".join(known.title for known in FORMATS.values())
        classes = " (of YOLO's text files the classes' names must lie there too: data.yaml or classes.txt)" if path.is_dir() else ""
        raise UsageError(f"{path}: no labels that are known; expected {titles}{classes}. Export them as one of these, or say --format")
    return found
