"""From a call to a folder that leaves the house: which trained detector, as it is or trained once more. ``cadiff ship``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cadiff.detection.measuring import measured_with
from cadiff.detection.scoring import load_segmenter
from cadiff.errors import UsageError
from cadiff.params import Params
from cadiff.predict import trained_detector
from cadiff.records import METRIC_SCHEMA, MetricRow, from_table
from cadiff.shipping import check_out, refit, ship_detector
from cadiff.stages import Run
from cadiff.storage import read_table


def ship_product(
    params: Params, product: str, out: Path, method: str | None = None, seed: int | None = None, again: bool = False
) -> dict[str, Any]:
    """Writes the product's detector into ``out`` (``cadiff.shipping.ship_detector``) and returns its ``detector.json``; ``again``: trained
    once more on all labelled pictures (``cadiff.shipping.refit``). The method and the seed are those that ``cadiff predict`` would take.

    Raises:
        UsageError: if there is no such product, method or seed, or ``out`` is no new or empty folder outside of the data set.
        CADiffError: if the product has no trained detector, or one of its files is broken.
    """
    if out.resolve().is_relative_to(Path(params.dataset.root).resolve()):
        raise UsageError(f"--out {out}: lies in the data set (dataset.root), which is only read; name another folder")
    check_out(out)
    trained = trained_detector(params, product, method, seed).trained
    run = Run("ship", params.for_product(product), product, trained.method)
    folder = run.detector
    if again:
        check_unchanged(run, trained.seed)
        sources = {source.parent.name: source for source in run.sources}
        work = run.work(*sources.values())
        folder = work / "detector"
        refit(run.task, trained.seed, sources, folder, work)
    return ship_detector(product, run.samples, trained.seed, folder, run.evaluated, out, again)


def check_unchanged(run: Run, seed: int) -> None:
    """Raises UsageError where the parameters are no longer those that the evaluated detector was trained and measured with: what is
    trained now would be another one than its figures are of."""
    segmenter, _ = load_segmenter(run.task, seed, run.detector)
    rows = from_table(read_table(run.evaluated / "metrics.parquet", METRIC_SCHEMA), MetricRow)
    if measured_with(run.params, segmenter) not in {row.params_digest for row in rows if row.seed == seed}:
        raise UsageError(
            f"--refit: the parameters differ from those that {run.evaluated} was measured with; run `dvc repro` first, or set them back"
        )
