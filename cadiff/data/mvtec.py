"""MVTec AD's layout, which the demo data set shares, and what MVTec AD 2 and MVTec LOCO AD have beside it.

``ROOT/PRODUCT/train/good``, ``ROOT/PRODUCT/test/good``, ``ROOT/PRODUCT/test/<type>``, and in ``ROOT/PRODUCT/ground_truth/<type>`` for the
image ``<stem>`` of a type ``<stem>_mask.png`` (or ``<stem>.png``), or several masks whose union counts: ``<stem>_mask_<number>.png``, or a
folder ``<stem>`` of them.

MVTec AD 2 has ``test_public`` in place of ``test``, ``ground_truth`` within it, and tests without labels, which are not read.
MVTec LOCO AD has a folder of masks for each image, one a defect. Both keep ``validation/good`` for choices that are made on normal
images. Nothing is chosen on them here, so they are train normals, named ``validation/<stem>``; nothing is ever scored on them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cadiff.data.listing import Entry, Listing, Reader, alike, folders, misspelt, unread
from cadiff.names import GOOD, composed
from cadiff.storage import image_files
from cadiff.visible import twin, visible

TRAINING, TESTS, TRUTH = ("train", "validation"), ("test", "test_public"), "ground_truth"
PARTS = (*TRAINING, *TESTS, TRUTH)
MASK_NAME = re.compile(r"(.+)_mask(?:[_-]?\d+)?")


def products(root: Path) -> list[str]:
    return [p.name for p in folders(root) if any(os.path.isdir(p / name) for name in ("train", *TESTS))]


def list_files(root: Path, product: str) -> Listing:
    """Pairs each test image with its masks by name; a mask or folder that pairs with nothing is a problem."""
    base = root / product
    test = next((base / name for name in TESTS if (base / name).is_dir()), base / TESTS[0])
    truth = test / TRUTH if (test / TRUTH).is_dir() and not (base / TRUTH).is_dir() else base / TRUTH
    listing = Listing(problems=misspelt(base, PARTS))
    for split in TRAINING:
        _list_normals(base / split, "" if split == "train" else f"{split}/", listing)
    listing.problems += _astray(test, f"a folder of {test.name}/")
    listing.problems += _astray(truth, f"a folder of {truth.relative_to(base).as_posix()}/")
    kinds = [folder for folder in folders(test) if folder != truth]
    misnamed = not truth.is_dir() and any(alike(folder.name) == alike(TRUTH) for folder in folders(base))  # told once, above
    for folder in kinds:
        if folder.name == GOOD:
            listing.entries += [Entry("test", None, p.stem, p) for p in image_files(folder)]
            listing.problems += unread(folder, image_files(folder))
        elif not misnamed:
            _list_type(folder, truth / folder.name, listing)
    known = {composed(folder.name) for folder in kinds}
    for masks in folders(truth):
        if composed(masks.name) not in known:
            listing.problems += _without_images(masks, test, kinds)
    return listing


def _list_normals(split: Path, prefix: str, listing: Listing) -> None:
    """A training folder: its images are in ``good``, and it has no other."""
    listing.problems += _astray(split, f"{split / GOOD} if they are normal")
    for folder in folders(split):
        if folder.name == GOOD:
            listing.entries += [Entry("train", None, prefix + p.stem, p) for p in image_files(folder)]
            listing.problems += unread(folder, image_files(folder))
        elif visible(folder):
            renamed = "move its images to" if (split / GOOD).is_dir() else "rename it to"
            listing.problems.append(
                f"{folder}: not read; expected only {split.name}/{GOOD} here. If its images are normal, {renamed} {split / GOOD}; "
                f"anomalies go to test/<type>, their masks to {TRUTH}/<type>"
            )
        else:
            listing.problems.append(f"{folder}: expected only {split.name}/{GOOD} here, found an empty folder: remove it")


def _astray(folder: Path, where: str) -> list[str]:
    return [f"{path}: not read; move it into {where}" for path in image_files(folder)]


def _list_type(images: Path, masks: Path, listing: Listing) -> None:
    """Adds a type's images with their masks. Names are compared in one Unicode form."""
    found = image_files(images)
    listing.problems += unread(images, found)
    masks = twin(masks)
    if not found:
        if not visible(masks):
            listing.problems.append(f"{images}: no image of this type; remove the folder, or put some there")
        else:
            listing.problems += [mask_alone(path, images) for path in visible(masks)]
        return
    if not visible(masks):
        good = images.with_name(GOOD)
        advice = f"move them to {good}" if good.is_dir() else f"rename the folder to {good}"
        listing.problems.append(
            f"{images}: {len(found)} images without a mask; expected one for each, such as {masks / found[0].stem}_mask.png"
            f"{_misnamed(masks)}. If they are normal, {advice}"
        )
        return
    listing.problems += unread(masks, [*image_files(masks), *folders(masks)])
    by_image = _masks_by_image(masks, {composed(path.stem) for path in found}, listing)
    for image in found:
        if own := by_image.pop(composed(image.stem), None):
            listing.entries.append(Entry("test", composed(images.name), image.stem, image, own))
        else:
            listing.problems.append(f"{image}: image without a mask; expected {masks / image.stem}_mask.png")
    listing.problems += [mask_alone(path, images) for left in by_image.values() for path in left]


def _masks_by_image(folder: Path, stems: set[str], listing: Listing) -> dict[str, tuple[Path, ...]]:
    """The masks in a folder by the image that they are of, each image's of one kind: a second kind or a second suffix is a problem."""
    kinds: dict[str, dict[str, dict[str, Path]]] = {}
    for path in [*image_files(folder), *folders(folder)]:
        name = composed(path.name if path.is_dir() else path.stem)
        named = None if name in stems or path.is_dir() else MASK_NAME.fullmatch(name)
        if path.is_dir():
            listing.problems += unread(path, image_files(path))
            if not visible(path):
                listing.problems.append(f"{path}: no mask in this folder; remove it, or put some there")
                continue
        kind = "folder" if path.is_dir() else "marked" if named else "bare"
        of_kind = kinds.setdefault(named[1] if named else name, {}).setdefault(kind, {})
        if of_kind.setdefault(name, path) != path:
            listing.problems.append(f"{path}: a second mask named {path.stem}; names are compared without suffix, so remove one")
    for stem, found in kinds.items():
        for path in [path for kind in ("marked", "bare", "folder") if kind in found for path in found[kind].values()]:
            if path not in _first_kind(found):
                several = f"several of one image are {stem}_mask_1, {stem}_mask_2, ... or a folder {stem}"
                listing.problems.append(f"{path}: a second mask of {stem}; {several}: remove one")
    return {stem: _first_kind(found) for stem, found in kinds.items()}


def _first_kind(found: dict[str, dict[str, Path]]) -> tuple[Path, ...]:
    return tuple(next(found[kind] for kind in ("marked", "bare", "folder") if kind in found).values())


def _misnamed(masks: Path) -> str:
    """A hint where the folder of masks is there under a like name."""
    like = [path.name for path in folders(masks.parent) if path != masks and alike(path.name) == alike(masks.name)]
    return f" (found {masks.parent / like[0]}: rename it)" if like else ""


def _without_images(masks: Path, test: Path, kinds: list[Path]) -> list[str]:
    """Of a folder of masks that no type has: nothing, where `_misnamed` has said it; black masks of good images mark nothing."""
    if any(alike(kind.name) == alike(masks.name) for kind in kinds):
        return []
    return [mask_alone(path, test / masks.name) for path in visible(masks)]


def mask_alone(mask: Path, images: Path) -> str:
    """The problem of a mask (a file or a folder of them) that no image in ``images`` has."""
    return f"{mask}: mask without an image; expected one in {images}"


READER = Reader(products, list_files, "train and test")
