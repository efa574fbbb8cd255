"""How long a shipped detector takes for a picture, on the machine that made it ready."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TypedDict

import onnxruntime

import cadiff.shipping.run as script
from cadiff.errors import CADiffError
from cadiff.records import SampleRow
from cadiff.storage import SEAL, read_sealed

TIMED = 10  # pictures at most: a native one of many tiles takes seconds


class Pace(TypedDict):
    """``seconds``: the median of so many ``pictures``; ``detector``: the digest of itself that the timed ``detector.json`` has."""

    detector: str
    seconds: float
    pictures: int


def pace_of(folder: Path, product: str, samples: Sequence[SampleRow]) -> Pace | None:
    """What ``run.py`` takes for a picture on one thread, from its file to its verdict: the median of ``TIMED`` calibration normals at
    most. None where there are none on this machine. ``folder`` is a shipped one; nothing is written into it, since its bytes must not
    depend on the machine.

    Raises:
        CADiffError: if the folder was changed, or its ``run.py`` does not read a picture that the detector was calibrated on.
    """
    rows = [row for row in samples if row.product == product and row.role == "calibration"]
    paths = [path for path in (Path(row.image_path) for row in rows) if path.is_file()][:TIMED]
    if not paths:
        return None
    said, options = read_sealed(folder / "detector.json"), onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    networks = {path.name: onnxruntime.InferenceSession(path, options) for path in folder.glob("*.onnx")}
    taken = [_seconds(path, said, networks) for path in (paths[0], *paths)][1:]  # the first run of a graph also sets it up
    return Pace(detector=said[SEAL], seconds=median(taken), pictures=len(taken))


def _seconds(path: Path, said: dict[str, object], networks: dict[str, onnxruntime.InferenceSession]) -> float:
    started = time.perf_counter()
    try:
        script.verdict(path, said, networks)
    except Exception as error:  # what a broken file makes of a decoder is of any type
        raise CADiffError(
            f"{path}: expected a picture that the shipped run.py reads, as the detector was calibrated on it, but it does not ({error}). "
            "If the picture has changed, run `dvc repro`."
        ) from None
    return time.perf_counter() - started
