"""The report alone: ``python -m flows.report [--partial]``.

Without ``--partial`` this is DVC's stage ``report``. With it the page is written from whatever is there
now, outside DVC (``reports/partial``), so that a run under way, or one that failed, can be looked at.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prefect import flow

from cadiff.errors import CADiffError, exit_code
from flows.artifacts import publish_report
from flows.glimpse import PARTIAL
from flows.pipeline import resolve_and_plan
from flows.stage import in_run, run_stage, server_answers


@flow(name="cadiff-report")
def report(partial: bool = False, root: Path = Path()) -> None:
    """Writes the report, and shows its summary on the flow run's page.

    Raises:
        CADiffError: if it would show figures of other parameters or data than these, and ``partial`` is not asked for.
    """
    folder = root / (PARTIAL if partial else PARTIAL.parent)
    if partial:
        from cadiff.params import load_params
        from cadiff.reporting import write_report

        write_report(load_params(root / "params.yaml"), root, folder, partial=True)
    else:
        if stale := [node.address for node in resolve_and_plan(root) if node.address != "report"]:
            raise CADiffError(
                f"report: {len(stale)} stages that it rests on are out of date ({', '.join(stale[:3])}{', ...' if stale[3:] else ''}). "
                "Run `dvc repro`, or name --partial for what there is."
            )
        run_stage("report", root)
    if in_run():
        publish_report(root, folder)
    print(f"report: {folder / 'index.html'}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.report", description="Write the report.")
    parser.add_argument("--partial", action="store_true", help="from what there is, to reports/partial")
    given = parser.parse_args()
    return exit_code(lambda: (report if server_answers() else report.fn)(given.partial))


if __name__ == "__main__":
    sys.exit(main())
