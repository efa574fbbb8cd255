"""MVTec LOCO AD's layout: logical anomalies (a wrong number of parts, a wrong place) beside structural ones.

``ROOT/PRODUCT/{train,validation}/good``, ``ROOT/PRODUCT/test/{good,logical_anomalies,structural_anomalies}``, and
for the image ``<stem>`` of a type all files in ``ROOT/PRODUCT/ground_truth/<type>/<stem>/``, one a defect
(``000.png``, ``001.png``, ...): the image's mask is their union, and its row's ``mask_path`` is that folder.

The benchmark keeps ``validation/good`` for choices that are made on normal images. Nothing is chosen on them here,
so they are train normals, named ``validation/<stem>``; nothing is ever scored on them.
"""

from __future__ import annotations

from pathlib import Path

from cadiff.data import mvtec
from cadiff.data.listing import Entry, Listing, Reader, folders, image_files, list_product, mask_alone

TYPES = ("logical_anomalies", "structural_anomalies")


def is_product(path: Path) -> bool:
    return any((path / "test" / name).is_dir() for name in TYPES)


def list_files(root: Path, product: str) -> Listing:
    """Pairs each test image with its folder of masks; a folder or file that pairs with nothing is a problem."""
    return list_product(root / product, ["train", "validation"], folders, _pair)


def _pair(images: Path, truths: Path, listing: Listing) -> None:
    unpaired = {p.name: p for p in folders(truths)}
    for image in image_files(images):
        masks = unpaired.pop(image.stem, None)
        if masks is None or not image_files(masks):
            listing.problems.append(f"{image}: image without a mask; expected {truths / image.stem}/000.png")
        else:
            listing.entries.append(Entry("test", images.name, image.stem, image, masks))
    listing.problems += [mask_alone(masks, images) for masks in unpaired.values()]
    listing.problems += [f"{mask}: expected in a folder named as its image, {truths}/<stem>/" for mask in image_files(truths)]


READER = Reader(mvtec.products, list_files)
