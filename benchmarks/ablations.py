"""Tables 4 and 5 at the scale of the parameters: ``python benchmarks/ablations.py [--seeds 0 1 2] [--products P ...]``.

For each variant under ``variants`` in the parameters (default: ``presets/ablations.yaml``, whose variants are taken where
the parameters have none), product and seed: the stages
adapt, train, masks, generate and detect, with the seed as root seed and as the detector's. Writes tidy rows
(METRIC_SCHEMA, ``variant`` the printed row that it is; what is a row of both tables is written for each) to
``data/ablations/DATASET.parquet``, where that data set's report finds them by name (``dvc repro report``), and prints both tables:
mean over products and seeds, +- standard deviation over seeds, the paper's figure beside it, and how many pairs of rows
are in the paper's order.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pandas as pd
from cells import cell_for, draw_if_demo

from cadiff.errors import UsageError, exit_code
from cadiff.params import SECTIONS, Params, load_params
from cadiff.records import METRIC_SCHEMA, MetricRow, to_table
from cadiff.reporting.artefacts import ablations_of
from cadiff.reporting.paper_measured import ROW_OF, SETTINGS_OF
from cadiff.reporting.paper_printed import PLAIN_UNITS, printed
from cadiff.storage import write_table

MEASURED = ("pixel_ap", "pixel_auroc", "image_auroc", "ic_lpips", "is")
PRESET = Path(__file__).resolve().parents[1] / "presets" / "ablations.yaml"


def measure(params: Params, products: list[str], seeds: list[int], variants: list[str], work: Path) -> list[MetricRow]:
    """All cells, seed by seed, so that an early stop leaves whole seeds."""
    refuse_filter(params, products, variants)
    draw_if_demo(params, products)
    rows: list[MetricRow] = []
    for seed, product, variant in itertools.product(seeds, products, variants):
        found = cell_for(params, product, seed, work, variant).metrics
        rows += [dataclasses.replace(row, variant=variant, seed=seed) for row in found]
        ap = next(row.value for row in found if row.metric == "pixel_ap")
        print(f"seed {seed} {product} {variant}: pixel AP {100 * ap:.1f}", flush=True)
    return rows


def refuse_filter(params: Params, products: list[str], variants: list[str]) -> None:
    for variant, product in itertools.product(variants, products):
        if params.for_variant(variant).for_product(product).filter.rules:
            raise UsageError(f"filter: {variant}, {product}: the ablations train on every image; set all of its rules to null")


def table(frame: pd.DataFrame, params: Params, number: int) -> list[str]:
    """The paper's Table 4 or 5 as Markdown lines; a row is the variant whose parameters are that row's (``rows_of``)."""
    paper = printed()[printed()["table"] == number].pivot(index="method", columns="metric", values="value")
    order = list(printed()[printed()["table"] == number]["method"].unique())
    of_row = rows_of(params, list(frame["variant"].unique()), number)
    present = [row for row in order if row in of_row]
    metrics = [metric for metric in MEASURED if metric in paper.columns]
    names = {metric: measured_name(frame, metric) for metric in metrics}
    means = {(row, m): _mean(frame, of_row[row], names[m]) for row in present for m in metrics}
    head = " | ".join(f"{names[m]}, paper" for m in metrics)
    lines = [f"Table {number}", f"| row | {head} |", "| --- " * (len(metrics) + 1) + "|"]
    for row in present:
        cells = []
        for metric in metrics:
            scale = 1 if metric in PLAIN_UNITS else 100
            mean, spread = (scale * value for value in means[row, metric])
            cells.append(f"{mean:.{2 if scale == 1 else 1}f} +- {spread:.{2 if scale == 1 else 1}f}, {paper.loc[row, metric]}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    for metric in metrics:
        agreeing, pairs = agreement({row: means[row, metric][0] for row in present}, paper[metric].to_dict())
        lines.append(f"{names[metric]}: {agreeing} of {pairs} pairs of rows in the paper's order")
    return lines


def measured_name(frame: pd.DataFrame, metric: str) -> str:
    """What the metric is called here: IS and IC-LPIPS carry the name of their network."""
    own = [name for name in frame["metric"].unique() if name.startswith(f"{metric}(") and "/" not in name]
    return own[0] if own else metric


def rows_of(params: Params, variants: Sequence[str], number: int) -> dict[str, str]:
    """Which variant each row of Table 4 or 5 is, of those that are one; a variant that changes nothing is in both, and one
    that differs from the parameters in anything else than what sets the table's rows apart is in none.

    Raises:
        UsageError: if two variants have one row's settings.
    """
    found: dict[str, str] = {}
    for name in variants:
        row = ROW_OF[number](params.for_variant(name))
        if row is None or not changed(params, name) <= SETTINGS_OF[number]:
            continue
        if row in found:
            raise UsageError(f"variants: {found[row]!r} and {name!r} both are the row {row!r} of Table {number}; choose one by --variants")
        found[row] = name
    return found


def written_names(params: Params, variants: Sequence[str]) -> dict[str, list[str]]:
    """Each variant's names in the written table, by which the report knows it: the rows that it is, one or both tables', or
    else its own with ``own:`` before it, so that no row takes it for itself.

    Raises:
        UsageError: as ``rows_of``.
    """
    rows = [rows_of(params, variants, number) for number in ROW_OF]
    found = {variant: [row for table in rows for row, name in table.items() if name == variant] for variant in variants}
    return {variant: names or [f"own: {variant}"] for variant, names in found.items()}


def changed(params: Params, name: str) -> set[str]:
    """The keys ("section.key") whose value a variant makes another one."""
    own, base = (each.model_dump() for each in (params.for_variant(name), params))
    return {f"{section}.{key}" for section in SECTIONS for key, value in own[section].items() if value != base[section][key]}


def _mean(frame: pd.DataFrame, variant: str, metric: str) -> tuple[float, float]:
    """Mean over products and seeds; standard deviation over seeds of the mean over products (nan for one seed)."""
    rows = frame[(frame["variant"] == variant) & (frame["metric"] == metric)]
    by_seed = rows.groupby("seed")["value"].mean()
    return float(by_seed.mean()), float(by_seed.std(ddof=1))


def agreement(ours: dict[str, float], theirs: dict[str, float]) -> tuple[int, int]:
    """How many pairs of rows stand in the same order here and there, of how many that the paper orders."""
    pairs = [(a, b) for a, b in itertools.combinations(ours, 2) if theirs[a] != theirs[b]]
    return sum((ours[a] < ours[b]) == (theirs[a] < theirs[b]) and ours[a] != ours[b] for a, b in pairs), len(pairs)


def chosen(wanted: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"{what} {unknown[0]}: not in the parameters; there are {', '.join(known)}")
    return list(wanted or known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=PRESET)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--products", nargs="+", default=[])
    parser.add_argument("--variants", nargs="+", default=[])
    parser.add_argument("--out", type=Path, help="default: data/ablations/DATASET.parquet")
    parser.add_argument("--work", type=Path, default=Path(".cadiff/cells"))
    options = parser.parse_args()

    def work() -> None:
        params = load_params(options.params)
        if not params.variants:
            params = params.with_variants(load_params(PRESET).variants)
        products = chosen(options.products, list(params.products), "--products")
        variants = chosen(options.variants, list(params.variants), "--variants")
        names = written_names(params, variants)  # its errors come before hours of work, not after
        rows = measure(params, products, options.seeds, variants, options.work)
        named = [dataclasses.replace(row, variant=name) for row in rows for name in names[row.variant]]
        write_table(options.out or ablations_of(params.dataset.name), to_table(named, METRIC_SCHEMA))
        frame = pd.DataFrame([dataclasses.asdict(row) for row in rows])
        for number in ROW_OF:
            print("\n".join(["", *table(frame, params, number)]))

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
