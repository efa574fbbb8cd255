"""Another generator's folder of images and masks, read into the same shards."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from cadiff.data import mvtec
from cadiff.data.approximate import approximate_masks
from cadiff.data.listing import Entry, Listing, folders, unread
from cadiff.data.readers import verify_entry
from cadiff.data.resaved import find_pairs
from cadiff.errors import UsageError
from cadiff.names import UNKNOWN
from cadiff.pictures import Size, fitted, resize_picture
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, Levels, SampleRow, to_table
from cadiff.storage import digest, encode_png, image_files, read_image, sha256_bytes, table_writer

GOOD = "good"
MASK_END = "_mask"
ROWS = 16  # in memory at a time
TOLD = ("rows.parquet", "scenes.json", "masks")  # what `cadiff generate` tells of its images, beside them


def import_folder(folder: Path, product: str, samples: Sequence[SampleRow], size: Size, out: Path) -> None:
    """Writes ``out/<type>.parquet`` from ``folder/PRODUCT``, images and masks of any size brought to their canvas.

    ``size`` is ``dataset.size``: px of the shorter side, the aspect ratio kept, or ``native``.

    ``folder`` holds ``PRODUCT/<type>/*`` with ``<stem>_mask.png`` beside each image, or MVTec AD's
    ``PRODUCT/test/<type>`` and ``PRODUCT/ground_truth/<type>``; ``good`` holds normal images that took the
    generator's path, for the detector's normals. A type ``hole+scratch`` is an image with both. Beside MVTec AD's folders a table may say
    which masks are approximate (``cadiff.data.approximate``).

    Raises:
        UsageError: if a folder, image or mask is not as it should be, or an image is a held-out one.
    """
    entries = list_generated(folder, product)
    approximate, untrue = approximate_masks(folder / product)
    if untrue:
        raise UsageError(untrue[0])
    write_shards(entries, samples, product, size, out, approximate)


def list_generated(folder: Path, product: str) -> list[Entry]:
    """The product's generated images with their masks, in whichever of the two layouts they are.

    Raises:
        UsageError: the first problem, or that there is no anomaly.
    """
    base = folder / product
    if (base / "test").is_dir():
        listing = mvtec.list_files(folder, product)
        listing.entries = [entry for entry in listing.entries if entry.split == "test"]
        beside = [path for path in folders(base) if path.name not in mvtec.PARTS]
        listing.problems += [f"{path}: not read beside {base}/test; move it there" for path in beside]
    else:
        listing = _list_plain(base)
    if listing.problems:
        others = f" (and {len(listing.problems) - 1} more)" if len(listing.problems) > 1 else ""
        raise UsageError(listing.problems[0] + others)
    if not any(entry.anomaly_type for entry in listing.entries):
        raise UsageError(f"{base}: expected anomalies in {base}/<type>/ or {base}/test/<type>/, found none")
    return listing.entries


def _list_plain(base: Path) -> Listing:
    """``base/<type>/<stem>.*`` with ``<stem>_mask.*`` beside it; ``base/good`` has no masks."""
    listing = Listing()
    listing.problems += [f"{path}: not read; move it into the folder of its type" for path in image_files(base)]
    for folder in folders(base):
        told = [folder / name for name in TOLD] if (folder / TOLD[0]).is_file() else []
        listing.problems += unread(folder, [*image_files(folder), *told])
        if not image_files(folder):
            listing.problems.append(f"{folder}: no image of this type; remove the folder, or put some there")
        files = {path.stem: path for path in image_files(folder)}
        twice = (path for path in image_files(folder) if files[path.stem] != path)
        listing.problems += [f"{path}: a second image named {path.stem}; names are compared without suffix" for path in twice]
        masks = {stem: path for stem, path in files.items() if stem.endswith(MASK_END)}
        kind = None if folder.name == GOOD else folder.name
        for stem, path in files.items():
            if stem in masks:
                if kind is None or stem.removesuffix(MASK_END) not in files:
                    listing.problems.append(f"{path}: mask without an image; expected one in {folder}")
            elif kind and stem + MASK_END not in masks:
                listing.problems.append(f"{path}: image without a mask; expected {path.with_name(stem + MASK_END)}.png")
            else:
                listing.entries.append(Entry("test", kind, stem, path, (masks[stem + MASK_END],) if kind else ()))
    return listing


def write_shards(
    entries: Sequence[Entry], samples: Sequence[SampleRow], product: str, size: Size, out: Path, approximate: Collection[Path] = ()
) -> None:
    """``out/<type>.parquet`` (GENERATED_SCHEMA), images and masks brought to the canvas, ``ROWS`` in memory at a time. ``approximate``: the
    masks that stem from boxes.

    Raises:
        UsageError: if a pair is not whole, or an image is one that the detector is scored on or calibrated with.
    """
    check_types(entries, samples)
    levels = samples[0].levels if samples else None
    by_type: dict[str, list[Entry]] = {}
    made: list[tuple[str, str]] = []
    digests = [verify_entry(entry, levels, made=True)[2] for entry in entries]
    _refuse_kept_apart(entries, samples)
    for entry, sha256 in zip(entries, digests, strict=True):
        made.append((entry.key, sha256))
        by_type.setdefault(entry.anomaly_type or GOOD, []).append(entry)
    maker = digest(sorted(made))
    for stale in (path for path in out.glob("*.parquet") if path.stem not in by_type):
        stale.unlink()  # of a type that there was: a detector is trained on all shards
    for kind, members in sorted(by_type.items()):
        with table_writer(out / f"{kind}.parquet", GENERATED_SCHEMA) as write:
            for start in range(0, len(members), ROWS):
                rows = [_row(entry, product, size, maker, levels, approximate) for entry in members[start : start + ROWS]]
                write(to_table(rows, GENERATED_SCHEMA))


def _refuse_kept_apart(entries: Sequence[Entry], samples: Sequence[SampleRow]) -> None:
    """Raises UsageError where an image is one that the detector is scored on or calibrated with, whatever its format; tells on standard
    error which are nearly one."""
    told = {"held_out": "scored on", "test_good": "scored on", "calibration": "calibrated with"}
    kept = [row for row in samples if row.role in told]
    paths: list[str | Path] = [*(entry.image for entry in entries), *(row.image_path for row in kept)]
    levels = samples[0].levels if samples else None

    def matters(first: int, second: int) -> bool:
        return first < len(entries) <= second

    for pair in find_pairs(len(paths), lambda place: read_image(paths[place], levels=levels), matters):
        row = kept[pair.second - len(entries)]
        what = f"{row.image_path}, which the detector is {told[row.role]}"
        if pair.equal:
            raise UsageError(f"{paths[pair.first]}: this is {what}; remove it")
        print(f"{paths[pair.first]}: this is nearly {what}; remove it if it was saved again", file=sys.stderr)


def check_types(entries: Sequence[Entry], samples: Sequence[SampleRow]) -> None:
    """Types that the data set does not have would be classes of their own, which nothing real belongs to; ``anomaly`` is of no known type.

    Raises:
        UsageError: names the first such type and the one that it may be meant for.
    """
    known = {row.anomaly_type for row in samples if row.anomaly_type}
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in known}
    for entry in entries:
        for kind in (entry.anomaly_type or "").split("+"):
            meant = plain.get(re.sub(r"[^a-z0-9]", "", kind.lower()))
            if not kind or kind in known:
                continue
            if meant and kind.isascii():
                raise UsageError(f"{entry.image.parent}: the data set spells this type {meant!r}, found {kind!r}; rename the folder")
            if known and kind != UNKNOWN:
                types = ", ".join(sorted(known))
                raise UsageError(
                    f"{entry.image.parent}: the data set has no type {kind!r}, its types are {types}; rename the folder to the one that is "
                    f"meant, or to {UNKNOWN} if it is of none of them"
                )


def _row(
    entry: Entry, product: str, size: Size, maker: str, levels: Levels | None, approximate: Collection[Path]
) -> GeneratedRow:
    whole = read_image(entry.image, "RGB", levels=levels)
    canvas = fitted(whole.shape[0], whole.shape[1], size)
    image = encode_png(resize_picture(whole, canvas))
    mask = encode_png(read_image(entry.mask_path, "L", canvas) if entry.mask_path else np.zeros(canvas, np.uint8))
    types = entry.anomaly_type.split("+") if entry.anomaly_type else []
    return GeneratedRow(
        sample_id=f"{product}/{entry.key}", product=product, anomaly_types=types,
        image={"bytes": image, "path": entry.image.name}, mask={"bytes": mask, "path": f"{entry.name}{MASK_END}.png"},
        mask_source="folder", prompt=None, intensity=None, seed=0, steps=None, guidance_scale=None, focus_step=None, normal_id=None,
        exemplar_ids=[None] * len(types), base_digest=None, generator_digest=maker, params_digest="", image_sha256=sha256_bytes(image),
        approximate=any(mask in approximate for mask in entry.masks),
    )  # fmt: skip
