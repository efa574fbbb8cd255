"""How fast the machine is used, and how cost grows: ``python -m benchmarks.bench [--parts P ...] [--repeat 3] [--threads 1]``.

Prints a table in Markdown and writes its rows to ``.cadiff/bench.parquet``. On the CPU; every piece runs in a process of its own.

| part | what is measured |
| --- | --- |
| sampling | images a second with all parts on, beside ``StableDiffusionControlNetPipeline``; the share of the matrix peak; memory |
| training | steps a second with all losses, beside a plain ControlNet + textual inversion step; the share of the matrix peak |
| detector | steps of its training and pictures judged a second |
| files | masks placed, quality signals, pictures and shards read and written, images a second |
| growth | the same work at growing numbers of images, exemplars and products: time and memory at the largest over the smallest |
| canvas | benchmarks/canvas.py: time and memory at growing canvases |

Rates that are compared are taken in turn, ``--repeat`` times; a ratio is one of the same round, and has its least and largest beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from cadiff.errors import exit_code
from cadiff.progress import be_quiet
from cadiff.storage import write_table

from .place import FULL, QUICK, ROOT, Setting
from .plan import PARTS, measured, report
from .rows import Row, to_table, told


def machine(threads: int, load: float) -> dict[str, str]:
    """What the figures depend on beside the code."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = {name: version(name) for name in ("torch", "diffusers")}
    return {
        "processor": names[0] if names else platform.processor(), "cores": str(os.cpu_count()), "threads": str(threads),
        "load before": f"{load:.1f}", **packages,
    }  # fmt: skip


def bench(parts: list[str], repeat: int, threads: int, quick: bool, out: Path) -> None:
    load, started, rows = os.getloadavg()[0], time.monotonic(), list[Row]()
    about = machine(threads, load)
    print(", ".join(f"{name} {value}" for name, value in about.items()) + (" (busy: figures say little)" if load > 0.5 else ""), flush=True)
    with tempfile.TemporaryDirectory(prefix="cadiff-bench-") as name:
        for part in parts:
            begun = time.monotonic()
            rows += measured(part, Setting(QUICK if quick else FULL, repeat, Path(name)), threads)
            print(f"{part}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    write_table(out, to_table(rows, about))
    print("\n".join(["", *told(rows), "", f"{time.monotonic() - started:.0f} s; the same rows in {out}"]))


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__, formatter_class=plain)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeat", type=int, default=3, help="rounds in which what is compared is measured in turn")
    parser.add_argument("--threads", type=int, default=1, help="of every process that measures; benchmarks/canvas.py has one")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes: whether it works, not how fast")
    parser.add_argument("--out", type=Path, default=ROOT / ".cadiff" / "bench.parquet")
    for name in ("--work", "--given", "--folder", "--result"):  # what a process of its own is told
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args()
    be_quiet()

    def work() -> None:
        if given.work:
            setting = Setting(QUICK if given.quick else FULL, given.repeat, Path(given.folder))
            report(given.work, json.loads(given.given), setting, Path(given.result))
        else:
            bench(given.parts, given.repeat, given.threads, given.quick, given.out)

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
