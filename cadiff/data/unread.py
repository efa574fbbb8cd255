"""What lies under a root and is not read: nothing is passed over without a word, but for what is hidden or litter."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from cadiff.data import approximate, folder, pieces, visa
from cadiff.data.listing import Reader
from cadiff.data.problems import MORE, printable
from cadiff.errors import UsageError
from cadiff.params import Layout
from cadiff.visible import visible

SHOWN = 8  # names in one line


def told_paths(problems: Iterable[str]) -> set[Path]:
    """The files and folders that problems are about; of one that stands for more of its folder, that folder."""
    paths = [(Path(problem.partition(": ")[0]), MORE in problem) for problem in problems]
    return {path.parent if several and path.name != folder.TABLE else path for path, several in paths}


def left_in_product(base: Path, layout: Layout, read: Iterable[Path]) -> str:
    """A line of what is in a product's folder and neither read nor told; empty: nothing is."""
    known = {*read, base / approximate.TABLE, base / pieces.TABLE} | ({base / folder.TABLE} if layout == "folder" else set())
    left = _names(_beside(base, known, _above(known)), base)
    return f"  not read: {left}" if left else ""


def left_in_root(root: Path, layout: Layout, products: Collection[str], told: Iterable[Path], readers: dict[Layout, Reader]) -> list[str]:
    """Lines of what is in the root beside its products, and which layout would read it."""
    known = {*told, *(root / product for product in products)} | ({visa.split_table(root)} if layout == "visa" else set())
    left = list(_beside(root, known, _above(known)))
    beside = [path for path in left if path.is_dir()]
    lines = []
    if absent := [name for name in visa.listed(root) if name not in products] if layout == "visa" else []:
        lines.append(f"Not here, though {visa.split_table(root)} names them: {', '.join(map(printable, absent))}")
    if beside:
        lines.append(f"Not read, as layout {layout} takes folders with {readers[layout].marks}: {_names(beside, root)}")
    for other in ("mvtec", "folder"):
        names = [path.name for path in beside if path.name in readers[other].products(root)] if other != layout else []
        if names:
            shown = ", ".join(map(printable, names))
            lines.append(f"  layout {other} reads {shown}: cadiff inspect {root} --layout {other}, or a root of their own")
    files = _names((path for path in left if path not in beside), root)
    return lines + ([f"Not read: {files}"] if files else [])


def _above(paths: Iterable[Path]) -> set[Path]:
    return {parent for path in paths for parent in path.parents}


def _beside(place: Path, known: Collection[Path], above: Collection[Path]) -> Iterator[Path]:
    """The largest folders below ``place`` in which nothing is known, and the files that are not where something is."""
    for path in visible(place):
        if path in known:
            continue
        if path in above:
            yield from _beside(path, known, above)
        else:
            yield path


def _names(paths: Iterable[Path], base: Path) -> str:
    names = [printable(str(path.relative_to(base))) + _counted(path) for path in paths]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _counted(path: Path) -> str:
    """Of a folder how many files it holds; nothing of a file."""
    if not os.path.isdir(path):
        return ""
    try:
        count = sum(1 for _ in _files(path))
    except UsageError:
        return "/ (does not open)"
    return f"/ ({count} file{'' if count == 1 else 's'})"


def _files(path: Path) -> Iterator[Path]:
    for one in visible(path):
        if one.is_dir() and not one.is_symlink():
            yield from _files(one)
        else:
            yield one

