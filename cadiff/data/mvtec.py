"""MVTec AD's layout, which the demo data set shares.

``ROOT/PRODUCT/train/good``, ``ROOT/PRODUCT/test/<type>``, ``ROOT/PRODUCT/test/good``, and the masks in
``ROOT/PRODUCT/ground_truth/<type>/<stem>_mask.png`` (or ``<stem>.png``).
"""

from __future__ import annotations

from pathlib import Path

from cadiff.data.listing import Entry, Listing, Reader, folders, image_files, list_product, mask_alone, unread


def products(root: Path) -> list[str]:
    return [p.name for p in folders(root) if (p / "train").is_dir() or (p / "test").is_dir()]


def list_files(root: Path, product: str) -> Listing:
    """Pairs each test image with its mask by stem; a mask or folder that pairs with nothing is a problem."""
    return list_product(root / product, ["train"], image_files, _pair)


def _pair(images: Path, masks: Path, listing: Listing) -> None:
    unpaired = {p.stem: p for p in image_files(masks)}
    listing.problems += unread(masks, image_files(masks))
    listing.problems += [f"{p}: a second mask named {p.stem}; remove one" for p in image_files(masks) if unpaired[p.stem] != p]
    for image in image_files(images):
        name = next((n for n in (f"{image.stem}_mask", image.stem) if n in unpaired), None)
        if name is None:
            listing.problems.append(f"{image}: image without a mask; expected {masks / image.stem}_mask.png")
        else:
            listing.entries.append(Entry("test", images.name, image.stem, image, unpaired.pop(name)))
    listing.problems += [mask_alone(mask, images) for mask in unpaired.values()]


READER = Reader(products, list_files)
