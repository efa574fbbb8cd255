"""What ``benchmarks/claims.py`` has measured of the paper's other claims, as tables."""

from __future__ import annotations

import pandas as pd

from cadiff.reporting.comparing import ABSENT, counted
from cadiff.reporting.tables import Cell, Row, Table


def claims_tables(frame: pd.DataFrame) -> list[Table]:
    """A table for each part: its settings by its figures, mean over products and seeds with the deviation over seeds. ``frame`` is of
    METRIC_SCHEMA, its variants called ``PART: SETTING``."""
    if frame.empty:
        return []
    named = frame["variant"].str.split(": ", n=1, expand=True)
    frame = frame.assign(part=named[0], setting=named[1])
    return [_of_part(str(part), own) for part, own in frame.groupby("part", sort=False)]


def _of_part(part: str, frame: pd.DataFrame) -> Table:
    metrics = list(dict.fromkeys(frame["metric"]))
    rows = [
        Row([str(setting)], [_cell(own[own["metric"] == metric]) for metric in metrics], here=True)
        for setting, own in frame.groupby("setting", sort=False)
    ]
    products, seeds = (int(frame[column].nunique()) for column in ("product", "seed"))
    caption = (
        f"Part {part} of benchmarks/claims.py, whose head says what each figure is: {counted(products, 'product')}, "
        f"{counted(seeds, 'seed')} of the generator; mean ± deviation over seeds."
    )
    return Table(caption, ["Setting", *metrics], rows, title=f"Claims: {part}")


def _cell(rows: pd.DataFrame) -> Cell:
    by_seed = rows.groupby("seed")["value"].mean().dropna()
    if by_seed.empty:
        return Cell(ABSENT)
    spread = "" if len(by_seed) < 2 else f" ± {by_seed.std(ddof=1):.2g}"
    return Cell(f"{by_seed.mean():.3g}{spread}", float(by_seed.mean()))
