"""From a call to a stage that has run: which stage of what, checked; ``python -m cadiff.stages STAGE``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from cadiff.errors import UsageError, exit_code
from cadiff.params import Params, kinds_of, load_params
from cadiff.progress import be_quiet, speaking
from cadiff.stages.left import kept, prune_work, record_times
from cadiff.stages.run import Run
from cadiff.stages.work import STAGES
from cadiff.unchanged import check_unchanged


def run_stage(stage: str, params: Params, product: str = "", method: str = "") -> None:
    """Runs one stage here and now, whether or not its result is up to date.

    Raises:
        UsageError: if the stage is unknown, or the product or method that it needs is missing or superfluous.
        CADiffError: if an input is absent or broken, or the work fails.
    """
    run = resolve(stage, params, product, method)
    started = time.monotonic()
    try:
        with speaking(" ".join(part for part in (stage, product, method) if part)):
            STAGES[stage](run)
            check_unchanged(run.seen, stage, run.used)
    except (KeyboardInterrupt, SystemExit):
        print(kept(run), file=sys.stderr, flush=True)
        raise
    record_times(run, time.monotonic() - started)
    prune_work(run)


def resolve(stage: str, params: Params, product: str = "", method: str = "") -> Run:
    """The run that a call names, checked."""
    if stage not in STAGES:
        raise UsageError(f"{stage}: no such stage; one of {', '.join(STAGES)}")
    if stage in ("settings", "report"):
        if product or method:
            raise UsageError(f"{stage}: takes neither --product nor --method; it covers all of the parameters")
        return Run(stage, params)
    if not product:
        raise UsageError(f"{stage}: needs --product; products are {', '.join(params.products)}")
    if stage == "draw":
        return Run(stage, params, product)
    params_of_product = params.for_product(product)
    if kinds := kinds_of(stage):
        known = params.taking(stage)
        if method not in known:
            expected = f"one of {', '.join(known)}" if known else f"but the parameters have no {' or '.join(kinds)}"
            raise UsageError(f"{stage}: needs --method, {expected}; found {method!r}")
        return Run(stage, params_of_product, product, method)
    if method:
        raise UsageError(f"{stage}: is of the product, whatever the method; expected no --method, found {method}")
    return Run(stage, params_of_product, product)


def on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cadiff.stages", description="Run one stage.")
    parser.add_argument("stage", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--product", default="")
    parser.add_argument("--method", default="")
    parser.add_argument("--params", default="params.yaml", type=Path)
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    given = parser.parse_args(arguments)
    if given.quiet:
        be_quiet()
    signal.signal(signal.SIGTERM, on_sigterm)  # so that temporary files go, and what is kept is said
    return exit_code(
        lambda: run_stage(given.stage, load_params(given.params), given.product, given.method), given.debug
    )
