"""From a data set's root to verified rows, whatever its layout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cadiff import names
from cadiff.data import folder, loco, mvtec, visa
from cadiff.data.approximate import approximate_masks
from cadiff.data.levels import levels_of
from cadiff.data.listing import Entry, Listing, Reader
from cadiff.data.pieces import whole_pictures
from cadiff.data.problems import printable, said_once
from cadiff.data.split import assign_roles
from cadiff.decoding import CUT, check_depth
from cadiff.errors import CADiffError, UsageError
from cadiff.params import DatasetParams, Layout
from cadiff.progress import Progress
from cadiff.records import Levels, SampleRow
from cadiff.storage import check_anomaly, decode_values, mask_files, read_file, read_image, sha256_bytes, sha256_file
from cadiff.visible import link_problem, linked_folders

SMALLEST, LONGEST = 16, 8  # px of a picture's shorter side, at least; its longer side by its shorter, at most

READERS: dict[Layout, Reader] = {
    "demo": mvtec.READER, "mvtec": mvtec.READER, "visa": visa.READER, "loco": loco.READER,
    "folder": folder.READER,
}  # fmt: skip


def list_products(dataset: DatasetParams) -> list[str]:
    """The products under ``dataset.root``, by name.

    Raises:
        UsageError: if the root is not there, or holds no product in this layout.
    """
    root = Path(dataset.root)
    if not os.path.isdir(root):
        raise UsageError(f"{root}: expected a folder (dataset.root), but it is not there")
    reader = READERS[dataset.layout]
    found = reader.products(root)
    if found:
        return found
    if os.path.isdir(root / "train") or os.path.isfile(root / folder.TABLE):
        raise UsageError(f"{root}: this is one product's folder; set dataset.root to {root.parent}")
    raise UsageError(f"{root}: no {dataset.layout} product here, which has {reader.marks}; check dataset.root and dataset.layout")


def read_samples(dataset: DatasetParams, product: str) -> list[SampleRow]:
    """A product's images, each opened and checked against its mask, ordered by ``sample_id``.

    ``sample_id`` is ``<product>/<train|test>/<type>/<name>``; paths are ``dataset.root`` joined with what is
    below it. Of the train normals, the first ``dataset.max_normals`` by name are read, and of these ``dataset.calibration`` are kept
    apart (role ``calibration``).

    Raises:
        UsageError: the first problem of the data, in one line that names its file.
    """
    rows, problems = scan_product(dataset, product)
    if problems:
        others = len(problems) - 1
        more = f" (and {others} more; `cadiff inspect {dataset.root}` lists all)" if others else ""
        raise UsageError(problems[0] + more)
    return rows


def scan_product(dataset: DatasetParams, product: str) -> tuple[list[SampleRow], list[str]]:
    """The rows of all images that are whole, and every problem found, each starting with its file.

    Raises:
        UsageError: if the root, its table or the product is not there at all.
    """
    there = list_products(dataset)
    if product not in there:
        raise UsageError(f"{dataset.root}: no product {product!r} here; products are {', '.join(there)}")
    listing = READERS[dataset.layout].list_files(Path(dataset.root), product)
    base = Path(dataset.root) / product
    problems = listing.problems + _listing_problems(listing, base) + _name_problems(listing, base) + _place_problems(listing.entries, base)
    approximate, untrue = approximate_masks(base)
    wholes, astray = whole_pictures(base, listing.entries)
    problems += untrue + astray
    rows: list[SampleRow] = []
    entries = _first_normals(listing.entries, dataset.max_normals)
    bar = Progress(f"read {product}", len(entries))
    with_roles = assign_roles(entries, dataset.calibration, wholes)
    levels = levels_of(dataset, [entry.image for entry, role in with_roles if role == "normal"])
    for entry, role in with_roles:
        bar.advance()
        try:
            width, height, digest = verify_entry(entry, levels)
        except CADiffError as error:
            problems.append(str(error))
            continue
        rows.append(
            SampleRow(
                sample_id=f"{product}/{entry.key}", dataset=dataset.name, product=product,
                anomaly_type=entry.anomaly_type, role=role, image_path=entry.image.as_posix(), mask_path=entry.mask_path,
                width=width, height=height, image_sha256=digest, mask_sha256=mask_digest(entry),
                low=levels and levels.low, high=levels and levels.high, approximate=not approximate.isdisjoint(entry.masks),
            )
        )  # fmt: skip
    return rows, said_once(problems or _too_little(listing.entries, base, wholes))


def _first_normals(entries: list[Entry], most: int | None) -> list[Entry]:
    """The entries without the train normals beyond the first ``most`` by name."""
    normals = sorted((entry for entry in entries if entry.split == "train" and entry.anomaly_type is None), key=lambda entry: entry.key)
    beyond = set() if most is None else {entry.key for entry in normals[most:]}
    return [entry for entry in entries if not (entry.split == "train" and entry.key in beyond)]


def _listing_problems(listing: Listing, base: Path) -> list[str]:
    problems = [
        f"{entry.image}: a second image named {entry.key}; names are compared without suffix, so rename one"
        for entry, count in _repeats(listing.entries)
        if count > 1
    ]
    if not listing.problems and not any(e.split == "train" and e.anomaly_type is None for e in listing.entries):
        problems.append(f"{base}: no train normals; expected at least one normal image in its train split")
    return problems


def _too_little(entries: Sequence[Entry], base: Path, wholes: Mapping[Path, str]) -> list[str]:
    """What no stage could make anything of, hours after the first one: no anomaly, or nothing to score a detector on."""
    pictures = {(entry.anomaly_type, wholes.get(entry.image, entry.key)) for entry in entries if entry.anomaly_type}
    types = Counter(kind for kind, _ in pictures)
    if not types:
        return [
            f"{base}: no anomaly of any type, so that nothing can be generated or scored; put images of one with their masks there, or "
            f"leave {base.name} out of products in params.yaml"
        ]
    if max(types.values()) == 1 and not any(entry.split == "test" and entry.anomaly_type is None for entry in entries):
        lacking = f"add more of {min(types)}, or normal images to test on"
        return [f"{base}: nothing to score on, as the one image of a type is learned from; {lacking}"]
    return []


def _name_problems(listing: Listing, base: Path) -> list[str]:
    """Names that no stage could be called with, or that the learned tokens could not tell apart."""
    product, problems = base.name, []
    try:
        names.check_product(product)
    except ValueError as error:
        problems.append(f"{base}: {error}")
    tokens = {names.placeholder(printable(product), names.CONTEXT): names.CONTEXT}
    for name in sorted({entry.anomaly_type for entry in listing.entries if entry.anomaly_type}):
        try:
            names.check_type(name)
        except ValueError as error:
            problems.append(f"{base}: {error}")
            continue
        other = tokens.setdefault(names.placeholder(printable(product), name), name)
        if other != name:
            problems.append(f"{base}: the anomaly types {other!r} and {name!r} differ in case or signs alone; rename one")
    return problems


def _place_problems(entries: Sequence[Entry], base: Path) -> list[str]:
    """Files that a row cannot name, and such as DVC does not watch."""
    files = [path for entry in entries for path in (entry.image, *entry.masks)]
    problems = [link_problem(link, base) for link in linked_folders(base, files)]
    for path in files:
        if "\n" in str(path) or printable(str(path)) != str(path):
            told = str(path).replace("\n", "\\n")
            problems.append(f"{told}: expected a name in UTF-8 without line breaks; rename it")
    return problems


def _repeats(entries: list[Entry]) -> list[tuple[Entry, int]]:
    """Each entry with how often its key has come up so far."""
    seen: Counter[str] = Counter()
    counted = []
    for entry in entries:
        seen[entry.key] += 1
        counted.append((entry, seen[entry.key]))
    return counted


def check_shape(path: Path | str, width: int, height: int) -> None:
    """Raises UsageError where a picture is too small or too long for any window."""
    short, long = sorted((width, height))
    if short < SMALLEST:
        raise UsageError(f"{path}: {width}x{height}; expected at least {SMALLEST} px of the shorter side: remove it")
    if long > LONGEST * short:
        told = f"expected sides of at most {LONGEST} to 1, found {long / short:.3g}"
        raise UsageError(f"{path}: {width}x{height}; {told}: cut it in pieces, as `{CUT}` does")


def verify_entry(entry: Entry, levels: Levels | None = None, made: bool = False) -> tuple[int, int, str]:
    """Width, height and SHA-256 of an image that decodes, fits its mask and has the depth that ``levels`` are for
    (``cadiff.decoding.check_depth``).

    Raises:
        CADiffError: names the image or mask that is missing, unreadable, empty, lossy or of another size, or an image that is too
            small or too long for any window.
    """
    masks = mask_files(entry.mask_path) if entry.mask_path else []
    for path in (entry.image, *masks):
        if not os.path.isfile(path):
            raise UsageError(f"{path}: listed, but there is no such file")
    data = read_file(entry.image, "an image")
    height, width = check_depth(decode_values(data, str(entry.image)), levels, str(entry.image), made).shape[:2]
    check_shape(entry.image, width, height)
    if entry.mask_path is not None:
        mask, first = read_image(entry.mask_path, "L"), entry.masks[0]
        if mask.shape != (height, width):
            found = f"{mask.shape[1]}x{mask.shape[0]}"
            raise UsageError(f"{first}: expected {width}x{height} as {entry.image}, found {found}; save both at one size")
        check_anomaly(entry.mask_path, mask)
    return width, height, sha256_bytes(data)


def mask_digest(entry: Entry) -> str | None:
    """A digest of all files that an entry's mask is made of, with their order; None: a normal."""
    if entry.mask_path is None:
        return None
    digests = [sha256_file(path) for path in mask_files(entry.mask_path)]
    return digests[0] if len(digests) == 1 else sha256_bytes("".join(digests).encode())
