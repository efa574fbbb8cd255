"""Pascal VOC: ``JPEGImages/*.png`` (lossless, despite the folder's name), ``Annotations/*.xml``, ``SegmentationClass``,
``SegmentationObject`` and ``ImageSets/Segmentation/train.txt``; each region of a mask is an object. Images whose masks' shapes stem from
boxes are a set of their own beside it, ``approximate.txt``.

A box's numbers are its edges in px, as today's tools write them; the devkit of 2012 counts pixels from 1.
"""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cadiff.errors import UsageError
from cadiff.export.items import Item, Items
from cadiff.export.outlines import Region, regions
from cadiff.storage import write_bytes, write_text

MOST = 254  # classes, and objects of an image: a byte a pixel, of which 0 is background and 255 unclear
UNWRITABLE = {chr(code) for code in range(32)} - {"\t", "\n", "\r"} | {"\ufffe", "\uffff"}  # characters that XML cannot hold


def write(items: Items, product: str, out: Path) -> None:
    if len(items.kinds) > MOST:
        raise UsageError(f"{product}: {len(items.kinds)} types; VOC's masks number {MOST} at most: export as coco")
    for kind in items.kinds:
        if UNWRITABLE & set(kind):
            raise UsageError(f"{product}: the type {kind!r} has a character that XML cannot hold; rename it, or export as coco")
    numbers = {kind: number for number, kind in enumerate(items.kinds, start=1)}
    stems, approximate = [], []
    for item in items:
        mask = item.mask
        found = regions(mask)
        if len(found) > MOST:
            raise UsageError(f"{item.name}: a mask of {len(found)} regions; VOC numbers {MOST} at most: export as coco")
        objects = np.zeros(mask.shape, np.uint8)
        for number, region in enumerate(found, start=1):
            left, top, right, bottom = region.box
            objects[top:bottom, left:right][region.pixels] = number
        write_bytes(out / "JPEGImages" / f"{item.stem}.png", item.row.image["bytes"])
        write_bytes(out / "SegmentationObject" / f"{item.stem}.png", _numbered(objects))
        write_bytes(out / "SegmentationClass" / f"{item.stem}.png", _numbered((mask * numbers.get(item.kind or "", 0)).astype(np.uint8)))
        write_text(out / "Annotations" / f"{item.stem}.xml", _annotation(item, product, mask.shape, found))
        stems.append(item.stem)
        approximate += [item.stem] if item.approximate else []
    for name, chosen in {"train": stems, "approximate": approximate}.items():
        if chosen:
            write_text(out / "ImageSets" / "Segmentation" / f"{name}.txt", "".join(f"{stem}\n" for stem in chosen))
    write_text(out / "labels.txt", "".join(f"{kind}\n" for kind in ["background", *items.kinds]))


def _annotation(item: Item, product: str, shape: tuple[int, ...], found: list[Region]) -> str:
    root = ElementTree.Element("annotation")
    for name, text in (("folder", "JPEGImages"), ("filename", f"{item.stem}.png")):
        ElementTree.SubElement(root, name).text = text
    ElementTree.SubElement(ElementTree.SubElement(root, "source"), "database").text = f"{product}: generated anomalies"
    size = ElementTree.SubElement(root, "size")
    for name, number in (("width", shape[1]), ("height", shape[0]), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(number)
    ElementTree.SubElement(root, "segmented").text = "1"
    for region in found:
        one = ElementTree.SubElement(root, "object")
        for name, text in (("name", item.kind or ""), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            ElementTree.SubElement(one, name).text = text
        box = ElementTree.SubElement(one, "bndbox")
        for name, edge in zip(("xmin", "ymin", "xmax", "ymax"), region.box, strict=True):
            ElementTree.SubElement(box, name).text = str(edge)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _numbered(numbers: UInt8[np.ndarray, "h w"]) -> bytes:
    """A PNG whose pixels are numbers, with VOC's colours beside them."""
    image, buffer = Image.fromarray(numbers), io.BytesIO()
    image.putpalette(COLOURS.tobytes())
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _colours() -> UInt8[np.ndarray, "256 3"]:
    """VOC's colours (``VOClabelcolormap`` of its devkit): a number's bits 0, 1, 2 are the topmost of red, green, blue, 3, 4, 5 the next."""
    numbers, colours = np.arange(256), np.zeros((256, 3), np.int64)
    for bit in range(8):
        colours[:, bit % 3] |= (numbers >> bit & 1) << (7 - bit // 3)
    return colours.astype(np.uint8)


COLOURS = _colours()
