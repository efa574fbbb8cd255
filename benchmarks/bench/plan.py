"""Which parts there are, and a process of its own for each piece of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from cadiff.errors import CADiffError

from .peak import own_peak
from .place import FULL, QUICK, ROOT, Scale, Setting
from .rows import Row, growth, row

PARTS = ("sampling", "training", "detector", "files", "growth", "canvas")


@dataclass(frozen=True)
class Work:
    """A function ``module:name`` of this package, and what it is given beside the setting. ``memory``: the name of its process's peak in
    the table, "" for none; ``grows``: what the argument counts, where it is one size of several."""

    function: str
    argument: int | str | None = None
    memory: str = ""
    grows: str = ""


def works(part: str, scale: Scale) -> list[Work]:
    if part == "sampling":
        batches = [Work("sampling:memory", which, f"a batch of {scale.images} drawn by {which}") for which in ("ours", "stock")]
        return [Work("sampling:rates"), *batches]
    if part == "growth":
        sizes = {
            "written": (scale.counts, "images"), "loaded": (scale.counts, "images"), "ranked": (scale.counts, "images"),
            "judged": (scale.judged, "images"), "beside_exemplars": (scale.exemplars, "exemplars a type"),
            "of_products": (scale.products, "products"),
        }  # fmt: skip
        return [Work(f"growing:{name}", count, name, noun) for name, (counts, noun) in sizes.items() for count in counts]
    if part == "canvas":
        return [Work("growing:on_canvases")]
    return [Work(f"{part}:rates", memory="the whole part")]


def measured(part: str, setting: Setting, threads: int) -> list[Row]:
    """All figures of a part."""
    rows: list[Row] = []
    grown: dict[str, list[tuple[int, list[Row]]]] = {}
    for work in works(part, setting.scale):
        found, peak = in_process(work, setting, threads)
        if work.grows:
            assert isinstance(work.argument, int)
            found.append(row(found[0].part, f"{found[0].what}: peak memory", [peak], "MiB"))
            grown.setdefault(work.function, []).append((work.argument, found))
            found = [named(one, work.argument, work.grows) for one in found]
        elif work.memory:
            found.append(row(part, f"peak memory, {work.memory}", [peak], "MiB"))
        rows += found
    return rows + [one for sizes in grown.values() for one in over_sizes(sizes)]


def named(one: Row, count: int, noun: str) -> Row:
    return Row(**{**asdict(one), "what": f"{one.what}, {count:,} {noun}"})


def over_sizes(sizes: list[tuple[int, list[Row]]]) -> list[Row]:
    """Of each figure what it is at the largest size over what it is at the smallest."""
    (least, first), (most, last) = sizes[0], sizes[-1]
    return [growth(a.part, a.what, (least, a.value), (most, b.value), a.unit) for a, b in zip(first, last, strict=True)]


def in_process(work: Work, setting: Setting, threads: int) -> tuple[list[Row], float]:
    """What a piece of work measured in a process of its own, with so many threads, and that process's peak memory in MiB."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        call = [sys.executable, "-m", "benchmarks.bench", "--repeat", str(setting.repeat), "--threads", str(threads)]
        call += ["--work", work.function, "--given", json.dumps(work.argument), "--folder", str(setting.folder), "--result", result.name]
        call += ["--quick"] if setting.scale == QUICK else []
        own = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}  # torch reads them when it is imported
        done = subprocess.run(call, cwd=ROOT, env={**os.environ, **own, "CADIFF_QUIET": "1"}, check=False)
        if done.returncode:
            raise CADiffError(f"{' '.join(call)}: ended with exit code {done.returncode}; its own message is above.")
        values = json.loads(Path(result.name).read_text())
    return [Row(**one) for one in values["rows"]], values["peak"]


def do(function: str, argument: object, setting: Setting) -> list[Row]:
    """Calls a piece of work here."""
    module, _, name = function.partition(":")
    return list(getattr(import_module(f".{module}", __package__), name)(setting, argument))


def report(function: str, argument: object, setting: Setting, result: Path) -> None:
    """What a process of ``in_process`` does."""
    rows = do(function, argument, setting)
    result.write_text(json.dumps({"rows": [asdict(one) for one in rows], "peak": own_peak()}))


__all__ = ["FULL", "PARTS", "QUICK", "Work", "do", "in_process", "measured", "report", "works"]
