"""From a data set's root to verified rows, whatever its layout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cadiff import names
from cadiff.data import folder, loco, mvtec, visa
from cadiff.data.listing import Entry, Listing, Reader, image_files
from cadiff.data.split import assign_roles
from cadiff.errors import CADiffError, UsageError
from cadiff.params import DatasetParams, Layout
from cadiff.progress import Progress
from cadiff.records import SampleRow
from cadiff.storage import check_anomaly, decode_image, read_image, sha256_bytes

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
    if not root.is_dir():
        raise UsageError(f"{root}: expected a folder (dataset.root), but it is not there")
    found = READERS[dataset.layout].products(root)
    if found:
        return found
    if (root / "train").is_dir() or (root / folder.TABLE).is_file():
        raise UsageError(f"{root}: this is one product's folder; set dataset.root to {root.parent}")
    raise UsageError(f"{root}: no {dataset.layout} product here; check dataset.root and dataset.layout")


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
    problems = listing.problems + _listing_problems(listing, Path(dataset.root) / product) + _name_problems(listing, dataset, product)
    rows: list[SampleRow] = []
    entries = _first_normals(listing.entries, dataset.max_normals)
    bar = Progress(f"read {product}", len(entries))
    for entry, role in assign_roles(entries, dataset.calibration):
        bar.advance()
        try:
            width, height, digest = verify_entry(entry)
        except CADiffError as error:
            problems.append(str(error))
            continue
        mask = entry.mask.as_posix() if entry.mask else None
        rows.append(
            SampleRow(
                sample_id=f"{product}/{entry.key}", dataset=dataset.name, product=product,
                anomaly_type=entry.anomaly_type, role=role, image_path=entry.image.as_posix(), mask_path=mask,
                width=width, height=height, image_sha256=digest,
            )
        )  # fmt: skip
    return rows, problems


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
    paths = Counter(entry.image for entry in listing.entries)
    problems += [f"{path}: listed {count} times; what is learned from must not be scored on" for path, count in paths.items() if count > 1]
    if not any(e.split == "train" and e.anomaly_type is None for e in listing.entries):
        problems.append(f"{base}: no train normals; expected at least one normal image in its train split")
    return problems


def _name_problems(listing: Listing, dataset: DatasetParams, product: str) -> list[str]:
    """Names that no stage could be called with, or that the learned tokens could not tell apart."""
    base, problems = Path(dataset.root) / product, []
    try:
        names.check_product(product)
    except ValueError as error:
        problems.append(f"{base}: {error}")
    tokens = {names.placeholder(product, names.CONTEXT): names.CONTEXT}
    for name in sorted({entry.anomaly_type for entry in listing.entries if entry.anomaly_type}):
        other = tokens.setdefault(names.placeholder(product, name), name)
        if other != name:
            problems.append(f"{base}: the anomaly types {other!r} and {name!r} differ in case or signs alone; rename one")
        elif name == names.CONTEXT:
            problems.append(f"{base}: an anomaly type cannot be named {name!r}, as the product's own token is; rename it")
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
        raise UsageError(f"{path}: {width}x{height}; expected sides of at most {LONGEST} to 1, found {long / short:.3g}: cut it in pieces")


def verify_entry(entry: Entry) -> tuple[int, int, str]:
    """Width, height and SHA-256 of an image that decodes and fits its mask.

    Raises:
        CADiffError: names the image or mask that is missing, unreadable, empty, lossy or of another size, or an image that is too
            small or too long for any window.
    """
    masks = image_files(entry.mask) if entry.mask and entry.mask.is_dir() else [entry.mask]
    for path in filter(None, (entry.image, *masks)):
        if not path.is_file():
            raise UsageError(f"{path}: listed, but there is no such file")
    data = entry.image.read_bytes()
    height, width = decode_image(data, "RGB", str(entry.image)).shape[:2]
    check_shape(entry.image, width, height)
    if entry.mask is not None:
        mask = read_image(entry.mask, "L")
        if mask.shape != (height, width):
            found = f"{mask.shape[1]}x{mask.shape[0]}"
            raise UsageError(f"{entry.mask}: expected {width}x{height} as {entry.image}, found {found}")
        check_anomaly(entry.mask, mask)
    return width, height, sha256_bytes(data)
