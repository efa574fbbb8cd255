"""What the formats of labels are called."""

from typing import Literal

FormatName = Literal["coco", "labelme", "yolo", "voc", "cvat", "label-studio", "ground-truth"]
