"""One product's pictures, each as it is or as its pages and pieces, with the masks that they have then."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Bool, Num

from cadiff.cutting.backgrounds import Colour, colour_around, laid_on
from cadiff.cutting.scans import places, that_show
from cadiff.data.approximate import approximate_masks, write_approximate
from cadiff.data.listing import Entry
from cadiff.data.pieces import whole_pictures, write_pieces
from cadiff.decoding import Page, decode_pages, mask_values
from cadiff.errors import CADiffError, UsageError
from cadiff.marking import marked
from cadiff.names import GOOD
from cadiff.opening import read_file
from cadiff.storage import LOSSY_SUFFIXES, mask_files, replacing, write_image

Values = Num[np.ndarray, "h w *c"]
Mask = Bool[np.ndarray, "h w"]
BLACK: Colour = (0.0, 0.0, 0.0)  # what transparent masks are laid on: what is not there is not marked
WHOLE, PIECES, PAGES, LAID = "as they were", "pieces", "pages", "laid on a background"
LEFT = "left out, as the anomaly is not in them, or is all of them"


class ProductCut:
    """One product under way from ``base`` to the new folder ``out``. ``given``: what transparent pictures are to be laid on, else ``laid``
    is as their product has it, once one needs it; ``counts``: pictures by what became of them; ``paged``: some were pages of one file."""

    def __init__(self, base: Path, out: Path, entries: Sequence[Entry], given: Colour | None) -> None:
        self.base, self.out, self.entries, self.given = base, out, entries, given
        self.laid: Colour | None = None
        self.paged = False
        self.counts: Counter[str] = Counter()
        self.taken: set[str] = set()
        self.wholes: dict[str, str] = {}
        self.approximated: dict[str, str] = {}
        self.before, astray = whole_pictures(base, entries)
        self.approximate, untrue = approximate_masks(base)
        self.problems = astray + untrue

    def add(self, entry: Entry) -> None:
        """Places one picture; what is wrong with it is a problem."""
        try:
            self._add(entry)
        except CADiffError as error:
            self.problems.append(str(error))

    def _add(self, entry: Entry) -> None:
        masks = {file: list(decode_pages(read_file(file, "an image"), str(file))) for file in self._mask_files(entry)}
        pages = list(decode_pages(read_file(entry.image, "an image"), str(entry.image)))
        plain = _is_plain(pages) and len(places(*pages[0].values.shape[:2])) == 1
        if plain and all(map(_is_plain, masks.values())):
            self._copy(entry, list(masks))
            return
        digits = len(str(len(pages)))
        for number, (page, mask) in enumerate(zip(pages, _page_masks(entry, pages, masks), strict=True), start=1):
            if plain:
                self._show(entry, "", page.values, mask, None)
            elif len(pages) == 1:
                self._write(entry, "", self._opaque(page), mask, LAID)
            else:
                self._write(entry, f"_page{number:0{digits}}", self._opaque(page), mask, PAGES)
                self.paged = True

    def _mask_files(self, entry: Entry) -> list[Path]:
        files = mask_files(entry.mask_path) if entry.mask_path else []
        if lossy := [file for file in files if file.suffix.lower() in LOSSY_SUFFIXES]:
            raise UsageError(f"{lossy[0]}: JPEG blurs a mask's edge; expected a lossless mask, such as PNG")
        return files

    def _opaque(self, page: Page) -> Values:
        if page.alpha is None:
            return page.values
        if self.laid is None:
            normals = [entry.image for entry in self.entries if entry.split == "train" and entry.anomaly_type is None]
            self.laid = self.given or colour_around(normals, self.base)
        return laid_on(page.values, page.alpha, self.laid)

    def _write(self, entry: Entry, name: str, values: Values, mask: Mask | None, what: str) -> None:
        """One page, whole or in pieces, where its anomaly is to be seen."""
        cuts = places(*values.shape[:2])
        shown = cuts if mask is None else that_show(mask, cuts)
        if left := len(cuts) - len(shown):
            self.counts[LEFT] += left
        for number, piece in enumerate(cuts, start=1):
            if piece in shown:
                own = f"{name}_piece{number:0{len(str(len(cuts)))}}" if len(cuts) > 1 else name
                self._show(entry, own, values[piece], None if mask is None else mask[piece], PIECES if len(cuts) > 1 else what)

    def _show(self, entry: Entry, name: str, values: Values, mask: Mask | None, what: str | None) -> None:
        """One picture with its mask; ``what`` became of it, None: nothing, so that it is copied."""
        place = self._place(entry, name, entry.image.suffix if what is None else ".png" if values.dtype == np.uint8 else ".tif")
        if what is None:
            _copied(entry.image, self.out / place)
        else:
            write_values(self.out / place, values)
        self.counts[what or WHOLE] += 1
        if mask is not None:
            truth = Path("ground_truth", place.parent.name, f"{place.stem}_mask.png")
            write_image(self.out / truth, np.where(mask, 255, 0).astype(np.uint8))
            self._keep_how(entry, truth)
        self._keep_whole(entry, place, cut=bool(name))

    def _copy(self, entry: Entry, masks: list[Path]) -> None:
        """A picture and its masks byte for byte."""
        place = self._place(entry, "", entry.image.suffix)
        _copied(entry.image, self.out / place)
        self.counts[WHOLE] += 1
        self._keep_whole(entry, place, cut=False)
        for number, mask in enumerate(masks, start=1):
            counted = f"_{number:0{len(str(len(masks)))}}" if len(masks) > 1 else ""
            truth = Path("ground_truth", place.parent.name, f"{place.stem}_mask{counted}{mask.suffix}")
            _copied(mask, self.out / truth)
            self._keep_how(entry, truth)

    def _place(self, entry: Entry, name: str, suffix: str) -> Path:
        place = Path(entry.split, entry.anomaly_type or GOOD, f"{entry.name.replace('/', '_')}{name}{suffix}")
        if place.with_suffix("").as_posix() in self.taken:
            raise UsageError(f"{entry.image}: a second picture would be {self.base.name}/{place.as_posix()}; rename one")
        self.taken.add(place.with_suffix("").as_posix())
        return place

    def _keep_whole(self, entry: Entry, place: Path, cut: bool) -> None:
        if cut or entry.image in self.before:
            self.wholes[place.as_posix()] = self.before.get(entry.image, entry.key)

    def _keep_how(self, entry: Entry, truth: Path) -> None:
        if not self.approximate.isdisjoint(entry.masks):
            self.approximated[truth.relative_to("ground_truth").as_posix()] = "as before it was cut"

    def finish(self) -> list[str]:
        """Writes the tables beside the pictures; returns every problem."""
        if self.wholes:
            write_pieces(self.out, self.wholes)
        if self.approximated:
            write_approximate(self.out, self.approximated)
        return self.problems


def _is_plain(pages: Sequence[Page]) -> bool:
    return len(pages) == 1 and pages[0].alpha is None


def _page_masks(entry: Entry, pages: Sequence[Page], masks: Mapping[Path, list[Page]]) -> list[Mask] | list[None]:
    """What is marked in each page; None: nothing can be, in a normal. Pages of a mask are those of its picture, or several instances in
    the one page that this has; a mask of one page holds for all."""
    if not masks:
        return [None] * len(pages)
    found = [np.zeros(page.values.shape[:2], bool) for page in pages]
    for file, own in masks.items():
        if len(pages) > 1 and len(own) not in (1, len(pages)):
            expected = f"expected one page or {len(pages)}, as {entry.image} has"
            raise UsageError(f"{file}: {expected}, found {len(own)}; save a mask for each page")
        for index in range(max(len(pages), len(own))):
            mask, of_page = _marked(own[index % len(own)], file), found[index % len(pages)]
            if mask.shape != of_page.shape:
                sizes = [f"{shape[1]}x{shape[0]}" for shape in (of_page.shape, mask.shape)]
                raise UsageError(f"{file}: expected {sizes[0]} as {entry.image}, found {sizes[1]}; save both at one size")
            of_page |= mask
    if not any(mask.any() for mask in found):
        raise UsageError(f"{entry.masks[0]}: empty mask; mark the anomaly, or remove the mask and its image")
    return found


def _marked(page: Page, file: Path) -> Mask:
    values = page.values if page.alpha is None else laid_on(page.values, page.alpha, BLACK)
    return marked(mask_values(values), str(file))


def write_values(path: Path, values: Values) -> None:
    """A picture at its own depth, grey where it has no colours."""
    grey = values[..., 0] if values.ndim == 3 and (values == values[..., :1]).all() else values
    if values.dtype == np.uint8:
        write_image(path, grey)
        return
    with replacing(path) as temporary:
        tifffile.imwrite(temporary, grey, photometric="rgb" if grey.ndim == 3 else "minisblack")


def _copied(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
