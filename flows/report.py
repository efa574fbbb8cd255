"""The report alone: ``python -m flows.report [--partial]``.

Without ``--partial`` this is DVC's stage ``report``. With it the page is written from whatever is there
now, outside DVC (``reports/partial``), so that a run under way, or one that failed, can be looked at.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from cadiff.errors import exit_code
from flows.stage import in_run, run_stage

PARTIAL = Path("reports/partial")


@flow(name="cadiff-report")
def report(partial: bool = False, root: Path = Path()) -> None:
    """Writes the report, and shows its summary on the flow run's page."""
    folder = root / (PARTIAL if partial else PARTIAL.parent)
    if partial:
        from cadiff.params import load_params
        from cadiff.reporting import write_report

        write_report(load_params(root / "params.yaml"), root, folder, partial=True)
    else:
        run_stage("report", root)
    summary = folder / "summary.md"
    if in_run() and summary.is_file():
        create_markdown_artifact(summary.read_text(), key="report", description="key figures of the report")
    print(f"report: {folder / 'index.html'}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.report", description="Write the report.")
    parser.add_argument("--partial", action="store_true", help="from what there is, to reports/partial")
    given = parser.parse_args()
    return exit_code(lambda: report.fn(given.partial))


if __name__ == "__main__":
    sys.exit(main())
