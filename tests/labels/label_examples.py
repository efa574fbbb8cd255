"""One small, readable export of each tool, of the pictures in plates.py. Each marks the same rectangle of ``bad/b1.png`` as exactly as
the tool can, and says that there is a box of the same edges in ``bad/b2.png``."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from plates import BOTTOM, CORNERS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, marked

from cadiff.storage import write_bytes, write_text

# Of the rectangle, from [5:12, 8:20], and another, [20:23, 30:33]: by label_studio_converter.brush.mask2rle (0.0.59)
BRUSH = base64.b64decode("AAASwDkb/wM/AMX/+bwDF//m8Axf/5vAMX/+bwDF//m8Axf/5vAMX//BccAt/+kwC3/6TALf/wR7AAA=")


def png(pixels: np.ndarray, mode: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def coco(folder: Path) -> Path:
    flat = [number for corner in CORNERS for number in corner]
    write_text(folder / "instances.json", json.dumps({
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [flat], "bbox": [LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP]},
            {"id": 2, "image_id": 8, "category_id": 2, "bbox": [LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP], "segmentation": []},
        ],
        "images": [
            {"id": 7, "file_name": "bad/b1.png", "width": WIDTH, "height": HEIGHT},
            {"id": 8, "file_name": "bad/b2.png", "width": WIDTH, "height": HEIGHT},
        ],
        "categories": [{"id": 2, "name": "Dark Spot"}],
    }))  # fmt: skip
    return folder / "instances.json"


def labelme(folder: Path) -> Path:
    shapes = {
        "b1": {"label": "Dark Spot", "points": CORNERS, "shape_type": "polygon"},
        "b2": {"label": "Dark Spot", "points": [[RIGHT, BOTTOM], [LEFT, TOP]], "shape_type": "rectangle"},
    }
    for name, shape in shapes.items():
        said = {"version": "5.4.1", "flags": {}, "shapes": [shape], "imagePath": f"bad\\{name}.png", "imageData": None}
        write_text(folder / f"{name}.json", json.dumps({**said, "imageHeight": HEIGHT, "imageWidth": WIDTH}))
    return folder


def yolo(folder: Path) -> Path:
    polygon = " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in CORNERS)
    x, y, across, down = (LEFT + RIGHT) / 2 / WIDTH, (TOP + BOTTOM) / 2 / HEIGHT, (RIGHT - LEFT) / WIDTH, (BOTTOM - TOP) / HEIGHT
    write_text(folder / "data.yaml", "path: ..\ntrain: images\nnames:\n  0: Dark Spot\n")
    write_text(folder / "labels" / "bad" / "b1.txt", f"0 {polygon}\n")
    write_text(folder / "labels" / "bad" / "b2.txt", f"0 {x} {y} {across} {down}\n")
    return folder / "labels"


def voc(folder: Path) -> Path:
    for name in ("b1", "b2"):
        write_text(folder / "Annotations" / f"{name}.xml", f"""<annotation>
            <folder>bad</folder><filename>{name}.png</filename>
            <size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>
            <object><name>Dark Spot</name>
              <bndbox><xmin>{LEFT}</xmin><ymin>{TOP}</ymin><xmax>{RIGHT}</xmax><ymax>{BOTTOM}</ymax></bndbox></object>
            </annotation>""")  # fmt: skip
    write_bytes(folder / "SegmentationObject" / "b1.png", png(marked(), "P"))
    return folder / "Annotations"


def cvat(folder: Path) -> Path:
    points = ";".join(f"{x},{y}" for x, y in CORNERS)
    write_text(folder / "annotations.xml", f"""<?xml version="1.0" encoding="utf-8"?>
        <annotations><version>1.1</version><meta><task><name>plates</name></task></meta>
        <image id="0" name="bad/b1.png" width="{WIDTH}" height="{HEIGHT}">
          <polygon label="Dark Spot" occluded="0" points="{points}" z_order="0"><attribute name="size">2</attribute></polygon>
        </image>
        <image id="1" name="bad/b2.png" width="{WIDTH}" height="{HEIGHT}">
          <box label="Dark Spot" source="manual" occluded="0" xtl="{LEFT}" ytl="{TOP}" xbr="{RIGHT}" ybr="{BOTTOM}" z_order="0"></box>
        </image></annotations>""".lstrip())  # fmt: skip
    return folder / "annotations.xml"


def label_studio(folder: Path) -> Path:
    sized = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "from_name": "label", "to_name": "image"}
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CORNERS]
    box = {"x": 100 * LEFT / WIDTH, "y": 100 * TOP / HEIGHT, "width": 100 * (RIGHT - LEFT) / WIDTH, "height": 100 * (BOTTOM - TOP) / HEIGHT}
    results = {
        "b1": {**sized, "type": "polygonlabels", "value": {"points": points, "closed": True, "polygonlabels": ["Dark Spot"]}},
        "b2": {**sized, "type": "rectanglelabels", "value": {**box, "rotation": 0, "rectanglelabels": ["Dark Spot"]}},
    }
    write_text(folder / "project.json", json.dumps([
        {"id": index, "data": {"image": f"/data/upload/3/1a2b3c4d-{name}.png"}, "annotations": [{"id": 1, "result": [result]}]}
        for index, (name, result) in enumerate(results.items())
    ]))  # fmt: skip
    return folder / "project.json"


def ground_truth(folder: Path) -> Path:
    colours = {"0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"}, "1": {"class-name": "Dark Spot", "hex-color": "#2ca02c"}}
    coloured = np.where(marked()[..., None], (0x2C, 0xA0, 0x2C), (255, 255, 255))
    write_bytes(folder / "masks" / "0_2026.png", png(coloured, "RGB"))
    mask = {
        "source-ref": "s3://bucket/plates/bad/b1.png", "spots-ref": "s3://bucket/out/0_2026.png",
        "spots-ref-metadata": {"internal-color-map": colours, "type": "groundtruth/semantic-segmentation"},
    }  # fmt: skip
    one = {"class_id": 0, "left": LEFT, "top": TOP, "width": RIGHT - LEFT, "height": BOTTOM - TOP}
    boxes = {
        "source-ref": "s3://bucket/plates/bad/b2.png",
        "spots": {"image_size": [{"width": WIDTH, "height": HEIGHT, "depth": 3}], "annotations": [one]},
        "spots-metadata": {"class-map": {"0": "Dark Spot"}, "type": "groundtruth/object-detection"},
    }
    write_text(folder / "output.manifest", "\n".join(map(json.dumps, (mask, boxes))) + "\n")
    return folder / "output.manifest"


EXAMPLES: dict[str, Callable[[Path], Path]] = {
    "coco": coco, "labelme": labelme, "yolo": yolo, "voc": voc, "cvat": cvat, "label-studio": label_studio, "ground-truth": ground_truth,
}  # fmt: skip
