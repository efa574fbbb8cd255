"""What a run leaves for people and for the next run, none of it an artefact: times and memory in ``.cadiff/times``, and in
``.cadiff/work`` what lets a stopped run go on."""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from cadiff.stages.code import CODE
from cadiff.stages.run import WORK, Run
from cadiff.storage import read_json, read_metadata, write_json

TIMES = Path(".cadiff/times")


def record_times(run: Run, seconds: float) -> None:
    """Wall time and peak memory, for people: ``cadiff times``."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "stage": run.stage,
        "product": run.product,
        "method": run.method,
        "seconds": round(seconds, 2),
        "parts": run.parts,
        "peak_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
        "device_peak_mib": device_peak_mib(),
    }
    name = "-".join(part for part in (run.stage, run.product, run.method) if part)
    write_json(TIMES / f"{name}.json", figures)


def device_peak_mib() -> int | None:
    """Peak memory that torch held on the CUDA device; None where it was not used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    held: int = torch.cuda.max_memory_allocated()
    return round(held / 2**20)


def read_times() -> list[dict[str, Any]]:
    """What ``record_times`` wrote, stages in the order of the pipeline."""
    order = list(CODE)
    found = [read_json(path) for path in sorted(TIMES.glob("*.json"))]
    return sorted(found, key=lambda row: order.index(row["stage"]))


def work_folders(run: Run) -> list[Path]:
    """The folders that ``Run.work`` made for this run, one for each fingerprint; the latest last."""
    length = len(run.name) + 1 + 16  # other runs' names may begin with this one's
    folders = [path for path in (WORK / run.stage).glob(f"{run.name}-*") if len(path.name) == length]
    return sorted(folders, key=lambda path: (path in run.used, path.stat().st_mtime))  # a clock may have been set back


def prune_work(run: Run) -> None:
    """Removes the state that earlier parameters, inputs or code of this run left; the newest stays, so that a
    rerun that changes nothing in it costs no training."""
    for folder in work_folders(run)[:-1]:
        shutil.rmtree(folder)


def kept(run: Run) -> str:
    """What a stopped run of this stage left to go on from, in one line."""
    name = " ".join(part for part in (run.stage, run.product, run.method) if part)
    folders = work_folders(run)
    files = sorted(path for path in folders[-1].iterdir() if not path.name.startswith(".")) if folders else []
    parts = [path for path in files if path.suffix == ".parquet"]
    states = {path.stem: read_metadata(path).get("step") for path in files if path.suffix == ".safetensors"}
    found = [stem if step is None else f"{stem} up to step {step}" for stem, step in states.items()]  # without a step: finished
    found += [f"{len(parts)} finished parts"] if parts else []
    if not found:
        return f"{name}: stopped; it begins anew, what other stages finished is kept"
    return f"{name}: stopped; kept in {folders[-1]}: {', '.join(found)}"
