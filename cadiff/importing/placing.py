"""Where each labelled picture goes, with its mask."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool

from cadiff.data.approximate import write_approximate
from cadiff.decoding import shown
from cadiff.errors import CADiffError, UsageError
from cadiff.importing.order import COMBINED, Imported, Order, product_of
from cadiff.labels.boxes import box_mask
from cadiff.labels.classes import FOLDER, Meaning, proposed
from cadiff.labels.model import Labelled, LabelObject, object_mask
from cadiff.labels.pictures import PictureFolder
from cadiff.names import GOOD, check_product
from cadiff.records import Levels
from cadiff.storage import IMAGE_SUFFIXES, read_values, write_image

TEST_GOOD = 5  # every so many normals, one is for test/good
SHOWN = 20  # problems that are told one by one


class Placing:
    """One import under way, into the folder ``staged``: what was placed so far, and every problem met. ``given``: the user's table of
    classes."""

    def __init__(self, order: Order, pictures: PictureFolder, staged: Path, given: dict[str, Meaning] | None, done: Imported) -> None:
        self.order, self.pictures, self.staged, self.given, self.done = order, pictures, staged, given, done
        self.product = product_of(order)
        self.problems: list[str] = []
        self.missing: list[str] = []
        self.seen: dict[str, Path] = {}
        self.marked: set[str] = set()
        self.how: dict[str, dict[str, str]] = defaultdict(dict)

    def add(self, labelled: Labelled) -> None:
        """Places a picture in which an anomaly is marked, or that is called normal; the others wait for ``add_normals``."""
        key = self.pictures.find(labelled.image, labelled.origin)
        if key is None:
            self.missing.append(f"{labelled.origin}: {labelled.image}")
            return
        if key in self.seen:
            self.problems.append(f"{labelled.origin}: {key} is labelled twice, first in {self.seen[key]}; join the two, or remove one")
            return
        self.seen[key] = labelled.origin
        self.done.counts.update([*(one.name for one in labelled.objects), *labelled.classes])
        try:
            self._place(key, labelled)
        except ValueError as error:
            self._refuse(key, f"{labelled.origin}: {key}: {error}")
        except CADiffError as error:  # of the picture itself
            self._refuse(key, str(error))

    def _refuse(self, key: str, problem: str) -> None:
        self.marked.add(key)
        self.problems.append(problem)

    def _place(self, key: str, labelled: Labelled) -> None:
        anomalies = [(one, meaning) for one in labelled.objects if (meaning := self._meaning(one.name)).anomaly_type not in ("", GOOD)]
        called = [meaning for name in labelled.classes if (meaning := self._meaning(name)).anomaly_type]
        ignored = [one.name for one in labelled.objects if not self._meaning(one.name).anomaly_type]
        self.done.ignored.update(ignored)
        if not anomalies:
            if wrong := [meaning.anomaly_type for meaning in called if meaning.anomaly_type != GOOD]:
                raise ValueError(f"is called {wrong[0]}, but nothing is marked in it; mark it, or leave the class out (--classes)")
            if called:
                self._add_normal(key, self._in_product(called[0], key))
            elif ignored:
                self.marked.add(key)  # with a defect of another kind, perhaps
            return
        if any(meaning.anomaly_type == GOOD for meaning in called):
            raise ValueError(f"is called {GOOD}, but {anomalies[0][0].name} is marked in it; remove one of the two")
        products = sorted({self._in_product(meaning, key) for _, meaning in anomalies})
        if len(products) > 1:
            both = f"{products[0]} and {products[1]}"
            raise ValueError(f"its classes are of the products {both}; give them one product in the table of classes")
        kinds = {meaning.anomaly_type for _, meaning in anomalies}
        kind = kinds.pop() if len(kinds) == 1 else COMBINED
        mask, how = self._mask(key, labelled, [one for one, _ in anomalies])
        self.marked.add(key)
        name = self.pictures.short_name(key)
        self._copy(key, Path(products[0], "test", kind, name))
        file = f"{kind}/{PurePosixPath(name).stem}_mask.png"
        write_image(self.staged / products[0] / "ground_truth" / file, np.where(mask, 255, 0).astype(np.uint8))
        self.done.placed[products[0], kind] += 1
        if how:
            self.how[products[0]][file] = how
            self.done.approximate[how] += 1

    def _meaning(self, name: str) -> Meaning:
        if self.given is None:
            return self.done.meanings.setdefault(name, proposed(name, self.product))
        if name not in self.given:
            raise ValueError(f"the class {name!r} is not in {self.order.classes}; add it (with no anomaly_type to leave it out)")
        return self.given[name]

    def _in_product(self, meaning: Meaning, key: str) -> str:
        return self._folder(key) if meaning.product == FOLDER else meaning.product

    def _folder(self, key: str) -> str:
        parts = PurePosixPath(key).parts
        if len(parts) < 2:
            raise ValueError(f"lies in no folder below {self.order.images}, which {FOLDER} in the table of classes takes the product from")
        check_product(parts[0])
        return parts[0]

    def _mask(self, key: str, labelled: Labelled, objects: Sequence[LabelObject]) -> tuple[Bool[np.ndarray, "h w"], str]:
        """The union of the objects at the picture's size, and how those that stem from boxes were made (empty: none does)."""
        width, height = self.pictures.size(key)
        if (labelled.width, labelled.height) not in ((None, None), (width, height)):
            said = f"{labelled.width}x{labelled.height}"
            raise ValueError(f"its labels are of {said}, the picture is of {width}x{height}; take the picture that was labelled")
        found, hows = np.zeros((height, width), bool), set[str]()
        picture = self._picture(key) if any(one.box for one in objects) else None
        for one in objects:
            if one.box is not None and picture is not None:
                mask, how = box_mask(picture, one.box)
                hows.add(how)
            else:
                mask = object_mask(one, height, width)
                hows |= {"ellipse"} if one.approximate else set()
            if not mask.any():
                raise ValueError(f"{one.name} lies outside of the picture or marks no pixel; remove it, or draw it anew")
            found |= mask
        if found.all():
            raise ValueError("every pixel is marked; expected the anomaly's alone")
        return found, " and ".join(sorted(hows))

    def _picture(self, key: str) -> np.ndarray:
        """As 8 bits; of more, between its own extremes: boxes are looked into, nothing is learned from it."""
        path = self.pictures.files[key]
        values = read_values(path)
        low, high = (float(value) for value in np.percentile(values, (0.1, 99.9)))
        return shown(values, Levels(low, max(high, low + 1e-6)), str(path))

    def add_normals(self) -> None:
        """The pictures in which nothing is marked: normals where a pattern says so, else left out."""
        for key in self.pictures.files:
            if key in self.marked:
                continue
            if not any(fnmatchcase(key, pattern) for pattern in self.order.normals):
                self.done.unlabelled.append(key)
                continue
            try:
                self._add_normal(key, self._product_of_normal(key))
            except ValueError as error:
                self._refuse(key, f"{self.pictures.files[key]}: {error}")
            except CADiffError as error:
                self._refuse(key, str(error))

    def _product_of_normal(self, key: str) -> str:
        products = {meaning.product for meaning in (self.given or self.done.meanings).values() if meaning.anomaly_type}
        if len(products) > 1:
            raise ValueError(f"normal, but of which of the products {', '.join(sorted(products))}? Import one at a time, or write {FOLDER}")
        product = products.pop() if products else self.product
        return self._folder(key) if product == FOLDER else product

    def _add_normal(self, key: str, product: str) -> None:
        self.marked.add(key)
        count = self.done.placed[product, GOOD]
        split = "test" if count % TEST_GOOD == TEST_GOOD - 1 else "train"
        self._copy(key, Path(product, split, GOOD, self.pictures.short_name(key)))
        self.done.placed[product, GOOD] += 1

    def _copy(self, key: str, place: Path) -> None:
        """The picture byte for byte."""
        target, source = self.staged / place, self.pictures.files[key]
        if os.path.lexists(target):
            raise ValueError(f"a second picture would be {place.as_posix()}; rename one")
        self.pictures.size(key)  # one that does not open is found now
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self.order.link:
            shutil.copyfile(source, target)
            return
        try:
            os.link(source.resolve(), target)
        except OSError as error:
            raise UsageError(f"--link: {source} cannot be linked into {self.order.out} ({error.strerror}): leave --link out") from None

    def finish(self) -> None:
        """The table of approximate masks; or every problem as one error."""
        if self.missing:
            said = self.missing[0] + (f" (and {len(self.missing) - 1} more)" if len(self.missing) > 1 else "")
            expected = f"expected it below {self.order.images}, as a file of {', '.join(sorted(IMAGE_SUFFIXES))}"
            self.problems.insert(0, f"{said}: {expected}; copy it there, convert it, or name its folder (--images)")
        if self.problems:
            more = [f"and {len(self.problems) - SHOWN} more"] if len(self.problems) > SHOWN else []
            first = f"{self.order.labels}: {len(self.problems)} problems, nothing is written"
            raise UsageError("\n  ".join([first, *self.problems[:SHOWN], *more]))
        if not self.done.placed:
            raise UsageError(f"{self.order.labels}: nothing to import: no picture with an anomaly marked, and no --normals")
        for product, how in self.how.items():
            write_approximate(self.staged / product, how)
