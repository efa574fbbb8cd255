"""The folder that leaves the house: its files, their digests, all of them or none."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cadiff.data.readers import LONGEST, SMALLEST
from cadiff.decoding import FORMATS
from cadiff.detection import load_detector
from cadiff.detection.measuring import PAPER_SIDE
from cadiff.detection.tiles import OVERLAP
from cadiff.detection.trained import Trained
from cadiff.detection.unet import STRIDE
from cadiff.errors import UsageError
from cadiff.records import METRIC_SCHEMA, MetricRow, SampleRow, from_table
from cadiff.shipping.card import model_card
from cadiff.shipping.graphs import classifier_graph, detector_graph
from cadiff.storage import read_table, sealed, sha256_bytes, write_bytes, write_json

FORMAT = 3  # of detector.json: a number that grows when run.py of an earlier one could not read it
RUN = Path(__file__).with_name("run.py")


def ship_detector(
    product: str, samples: Sequence[SampleRow], seed: int, detector: Path, evaluated: Path, out: Path, refitted: bool = False
) -> dict[str, Any]:
    """Writes ``out`` whole or not at all, the same bytes for the same detector, and returns its ``detector.json``.

    - ``detector.onnx``: uint8 ``n s s 3`` to float32 ``n s s``, the probability of anomaly of each pixel
    - ``classifier.onnx``, where there is one: uint8 ``n side side 3`` to float32 ``n classes``
    - ``detector.json``: ``seed-<s>.json``, how pictures are resized, cut into tiles and scored, the SHA-256 of every other file, and its
      own (``cadiff.storage.sealed``)
    - ``run.py``: the same verdicts on numpy, pillow and onnxruntime
    - ``README.md``: the model card

    ``detector`` is the folder of the trained one (``cadiff.detection.train_seed``), ``evaluated`` that of its figures. ``refitted``: it
    was trained on the held-out pictures too, and the figures are those of the one that was not.

    Raises:
        UsageError: if there is no such detector, or ``out`` holds something already.
        CADiffError: if a file is broken, or a graph does not say what its network says.
    """
    check_out(out)
    inspector = load_detector(detector, seed, "cpu")
    trained = inspector.trained
    metrics = from_table(read_table(evaluated / "metrics.parquet", METRIC_SCHEMA), MetricRow)
    files = {"detector.onnx": detector_graph(inspector.segmenter.model, trained.view.square()), "run.py": RUN.read_bytes()}
    if inspector.classifier is not None and trained.classifier is not None:
        files["classifier.onnx"] = classifier_graph(inspector.classifier, trained.classifier.side)
    said = {**trained.as_json(), **rules(trained), "format": FORMAT, "refitted": refitted}
    own = [row for row in samples if row.product == product]
    megabytes = sum(map(len, files.values())) / 1e6
    files["README.md"] = model_card(said, own, metrics, megabytes).encode()
    said = sealed({**said, "sha256": {name: sha256_bytes(data) for name, data in files.items()}})
    with new_folder(out) as folder:
        for name, data in files.items():
            write_bytes(folder / name, data)
        write_json(folder / "detector.json", said)
    return said


def rules(trained: Trained) -> dict[str, Any]:
    """What ``run.py`` has to know of this package to see pictures as it does; lengths in px."""
    smallest = max(SMALLEST, STRIDE) if trained.view.seen == "native" else SMALLEST
    depth = "8 bits" if trained.levels is None else "more than 8 bits"
    return {
        "shapes": [[trained.height[k], trained.width[k]] for k in (0, 1)],  # the least and the largest of its normals
        "overlap": OVERLAP, "stride": STRIDE, "pooling_at": PAPER_SIDE, "smallest": smallest, "longest": LONGEST, "formats": list(FORMATS),
        "pictures": f"one opaque, upright picture, grey or RGB, with {depth} a channel, at least {smallest} px of the shorter side, and "
        f"sides of {LONGEST} to 1 at most",
        "resampling": {"canvas": "lanczos", "size": "lanczos", "classifier": "lanczos", "heat": "bilinear"},
    }  # fmt: skip


def check_out(out: Path) -> None:
    """Raises UsageError where ``out`` is no new or empty folder."""
    if out.resolve() == Path.cwd():
        raise UsageError(f"{out}: expected a folder that takes its place when it is whole, found the one that you are in; name one in it")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out}: expected a new or empty folder, found files; remove it, or name another")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place when the block ends well, and is removed when not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as name:
        folder = Path(name) / out.name
        folder.mkdir()
        yield folder
        os.replace(folder, out)  # also in place of an empty folder
