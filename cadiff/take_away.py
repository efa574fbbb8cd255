"""From a call to a folder that leaves the house: which trained detector, as it is or trained once more. ``cadiff ship``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cadiff.errors import UsageError
from cadiff.params import Params
from cadiff.predict import trained_detector
from cadiff.shipping import check_out, refit, ship_detector
from cadiff.stages import Run


def take_away(
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
        sources = {source.parent.name: source for source in run.sources}
        work = run.work(*sources.values())
        folder = work / "detector"
        refit(run.params, run.method, product, trained.seed, run.samples, sources, folder, work)
    return ship_detector(run.method, product, trained.seed, run.samples, folder, run.evaluated, out, again)
