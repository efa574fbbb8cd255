"""MVTec AD's layout, which the demo data set shares.

``ROOT/PRODUCT/train/good``, ``ROOT/PRODUCT/test/<type>``, ``ROOT/PRODUCT/test/good``, and the masks in
``ROOT/PRODUCT/ground_truth/<type>/<stem>_mask.png`` (or ``<stem>.png``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cadiff.data.listing import Entry, Listing, Reader, folders, image_files


def products(root: Path) -> list[str]:
    return [p.name for p in folders(root) if (p / "train").is_dir() or (p / "test").is_dir()]


def list_files(root: Path, product: str) -> Listing:
    """Pairs each test image with its mask by stem; a mask or folder that pairs with nothing is a problem."""
    base = root / product
    listing = Listing()
    for folder in folders(base / "train"):
        if folder.name == "good":
            listing.entries += [Entry("train", None, p.stem, p, None) for p in image_files(folder)]
        else:
            listing.problems.append(f"{folder}: expected only train/good; move anomalies to test/<type>")
    for folder in folders(base / "test"):
        if folder.name == "good":
            listing.entries += [Entry("test", None, p.stem, p, None) for p in image_files(folder)]
        else:
            _pair(folder, base / "ground_truth" / folder.name, listing)
    for folder in folders(base / "ground_truth"):
        images = base / "test" / folder.name
        if not images.is_dir():
            listing.problems += _alone(image_files(folder), images)
    return listing


def _pair(images: Path, masks: Path, listing: Listing) -> None:
    unpaired = {p.stem: p for p in image_files(masks)}
    for image in image_files(images):
        name = next((n for n in (f"{image.stem}_mask", image.stem) if n in unpaired), None)
        if name is None:
            listing.problems.append(f"{image}: image without a mask; expected {masks / image.stem}_mask.png")
        else:
            listing.entries.append(Entry("test", images.name, image.stem, image, unpaired.pop(name)))
    listing.problems += _alone(unpaired.values(), images)


def _alone(masks: Iterable[Path], images: Path) -> list[str]:
    return [f"{mask}: mask without an image; expected one in {images}" for mask in masks]


READER = Reader(products, list_files)
