"""The paper's Tables 1-5, each printed row beside what was measured for it here."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cadiff.params import OURS, Params
from cadiff.reporting.artefacts import ablations_of
from cadiff.reporting.comparing import ABSENT
from cadiff.reporting.paper_measured import (
    ABLATION,
    SAME_PROTOCOL,
    Figure,
    Run,
    ablation_row,
    intensity_row,
    measured,
    protocols,
    run_of_variants,
)
from cadiff.reporting.paper_printed import MVTEC, NAMES, PLAIN_UNITS, VISA, names_in, plain, values_of
from cadiff.reporting.tables import Cell, Row, Table

NOT_RUN = "not run here"


def paper_tables(
    frame: pd.DataFrame, params: Params, scale: str, ablations: pd.DataFrame | None = None, published: pd.DataFrame | None = None
) -> list[Table]:
    """Tables 1-5. Under each printed row that was run here stand what was measured and, where data set and evaluation are the
    paper's, the difference; every other row says that it was not run. ``ablations`` are METRIC_SCHEMA too, measured apart, as are the rows
    of the ``published`` evaluation, which stand below this run's."""
    run, variants = Run(frame, params, scale), run_of_variants(ablations)
    runs = [run] if published is None or published.empty else [run, Run(published, params, scale, "here, published evaluation")]
    intensity = "Intensity w, masked focus attention (MFA), delayed focus scheduler (DFS), MVTec AD"
    parts = "Multi-token learning (MTL), its regularisation (Reg) and SAIM, MVTec AD"
    return [
        generation_table(runs),
        detector_table(runs),
        generator_table(runs),
        variant_table(runs, 4, intensity, intensity_row(params), variants),
        variant_table(runs, 5, parts, ablation_row(params), variants),
    ]


def generation_table(runs: Sequence[Run]) -> Table:
    """Table 1: a row per metric and method, a column per product of MVTec AD and their average."""
    values = values_of(1)
    metrics, methods, products = (names_in(1, column) for column in ("metric", "method", "product"))
    rows = []
    for metric in metrics:
        for method in methods:
            cells = [Cell(plain(metric, values[metric, method, product]), values[metric, method, product]) for product in products]
            rows.append(_printed_row([NAMES[metric], method], cells, runs[0].peer(1, method)))
            for run in runs:
                if peer := run.peer(1, method):
                    here = {p: measured(run, peer, metric, None if p == "average" else p) for p in products}
                    rows += _rows_here([NAMES[metric]], peer, run, [(metric, here[p], values[metric, method, p]) for p in products])
    columns = ["Metric", "Method", *(p.replace("_", " ") for p in products), "Protocol", "Seeds"]
    note = (
        " The paper does not say how many images of a cluster IC-LPIPS compares, nor what a cluster of one counts; here its name says, and "
        f"a difference is taken from AnomalyDiffusion’s variant alone.{_variants_said(runs[-1])}"
    )
    return _table(1, "Generation metrics IS and IC-LPIPS (IC-L), MVTec AD", runs, columns, rows, note)


def _variants_said(run: Run) -> str:
    """Every variant of IC-LPIPS that was measured, with CADiff's mean over products; the table shows one of them."""
    own = run.frame[(run.frame["method"] == OURS) & run.frame["metric"].astype(str).str.fullmatch(r"ic_lpips\([^)]*\)")]
    means = own.groupby("metric")["value"].mean()
    if len(means) < 2:
        return ""
    return " CADiff’s mean in each variant: " + "; ".join(f"{name} {value:.3f}" for name, value in means.items()) + "."


def detector_table(runs: Sequence[Run]) -> Table:
    """Table 2: a row per product, a column per detector, each AUROC / AP of pixels."""
    values = values_of(2)
    metrics, methods, products = (names_in(2, column) for column in ("metric", "method", "product"))
    rows = []
    for product in products:
        name = product.replace("_", " ")
        cells = [Cell(" / ".join(plain(m, values[m, method, product]) for m in metrics)) for method in methods]
        rows.append(Row([name], [*cells, Cell(""), Cell("")]))
        for run in runs:
            rows += _detector_rows(run, product, name)
    title = "Pixel-level localisation (AUROC / AP, %), detectors and a U-Net trained on generated images, MVTec AD"
    return _table(2, title, runs, ["Category", *methods, "Protocol", "Seeds"], rows)


def _detector_rows(run: Run, product: str, name: str) -> list[Row]:
    """What was measured for a product of Table 2 (``average``: of all of them), and the differences."""
    values, rows, average = values_of(2), [], product == "average"
    metrics, methods = names_in(2, "metric"), names_in(2, "method")
    found = [[measured(run, run.peer(2, a), m, None if average else product) for m in metrics] for a in methods]
    figures = [figure for pair in found for figure in pair if figure]
    if figures or average:
        absent = Cell(NOT_RUN if average else "", kind="absent")
        shown = [Cell(" / ".join(map(_measured, metrics, pair))) if any(pair) else absent for pair in found]
        protocol = Cell(protocols(run, [run.peer(2, a) for a in methods]) if figures else "")
        rows.append(Row([f"{name}, {run.where}"], [*shown, protocol, _seeds(figures)], here=True))
    if any(figure.comparable for figure in figures):
        gaps = [
            Cell(" / ".join(_gap(m, figure, values[m, method, product]) for m, figure in zip(metrics, pair, strict=True)))
            if any(pair)
            else Cell("")
            for method, pair in zip(methods, found, strict=True)
        ]
        rows.append(Row([f"{name}, difference"], [*gaps, Cell(""), Cell("")], here=True))
    return rows


def generator_table(runs: Sequence[Run]) -> Table:
    """Table 3: a row per source of generated images, MVTec AD / VisA."""
    values = values_of(3)
    metrics, methods, products = (names_in(3, column) for column in ("metric", "method", "product"))
    dataset = runs[0].same or MVTEC
    column = products[1] if dataset == VISA else products[0]
    rows = []
    for method in methods:
        cells = [Cell(" / ".join(plain(m, values[m, method, p]) for p in products), values[m, method, products[0]]) for m in metrics]
        rows.append(_printed_row([method], cells, runs[0].peer(3, method)))
        for run in runs:
            if peer := run.peer(3, method):
                found = [(m, measured(run, peer, m, None, dataset), values[m, method, column]) for m in metrics]
                rows += _rows_here([], peer, run, found)
    columns = ["Method", *(NAMES[m] for m in metrics), "Protocol", "Seeds"]
    return _table(3, "A U-Net trained on generated images, MVTec AD / VisA, in %", runs, columns, rows, "", dataset)


def variant_table(runs: Sequence[Run], number: int, title: str, own: str | None, ablations: Run | None = None) -> Table:
    """Tables 4 and 5: a row per variant; this run is one of them (``own``), or none; ``ablations`` are any of them, by name."""
    values = values_of(number)
    measured_apart = set(ablations.frame["method"]) if ablations else set()
    metrics, variants = names_in(number, "metric"), names_in(number, "method")
    rows = []
    for variant in variants:
        cells = [Cell(plain(m, values[m, variant, "average"]), values[m, variant, "average"]) for m in metrics]
        peers = [run.peer(number, "CADiff" if variant == own else variant) for run in runs]
        rows.append(_printed_row([variant], cells, peers[0] or (variant if variant in measured_apart else None)))
        for run, peer in zip(runs, peers, strict=True):
            if peer:
                rows += _rows_here([], peer, run, [(m, measured(run, peer, m), values[m, variant, "average"]) for m in metrics])
        if ablations and variant in measured_apart:
            found = [(m, measured(ablations, variant, m), values[m, variant, "average"]) for m in metrics]
            rows += _rows_here([], variant, ablations, found)
    note = "" if own else " This run's settings are none of the printed rows'."
    if ablations:
        source = ablations_of(ablations.params.dataset.name)
        note += (
            f" An “ablation” is of {source} ({ablations.scale}), measured apart from this run{_not_compared([ablations], MVTEC)}. "
            "Each of its seeds has a generator of its own (python benchmarks/ablations.py)."
        )
    return _table(number, title, runs, ["Variant", *(NAMES[m] for m in metrics), "Protocol", "Seeds"], rows, note)


def order(run: Run) -> str:
    """Which order of Table 3's methods the paper prints by pixel AP, and which was found here."""
    methods = names_in(3, "method")
    peers = {method: run.peer(3, method) for method in methods}
    found = {peer: figure.value for method, peer in peers.items() if peer and (figure := measured(run, peer, "pixel_ap"))}
    if len(found) < 2:
        return "Fewer than two methods of Table 3 were run here, so its order cannot be compared."
    values = values_of(3)
    printed_order = sorted((m for m in methods if peers[m] in found), key=lambda m: -values["pixel_ap", m, "MVTec AD average"])
    paper = [str(peers[m]) for m in printed_order]
    here = sorted(found, key=lambda peer: -found[peer])
    word = "The same order" if paper == here else "Another order"
    return f"{word} by pixel AP: printed {' > '.join(paper)}; here {' > '.join(here)}."


def _printed_row(heads: list[str], cells: list[Cell], peer: str | None) -> Row:
    note = Cell("printed" if peer else NOT_RUN, kind="" if peer else "absent")
    return Row(heads, [*cells, note, Cell("")])


def _rows_here(heads: Sequence[str], peer: str, run: Run, figures: Sequence[tuple[str, Figure | None, float]]) -> list[Row]:
    """What was measured for a printed row, and the difference where one may be taken."""
    cells = [Cell(_measured(metric, figure), figure.value if figure else None) for metric, figure, _ in figures]
    found = [figure for _, figure, _ in figures if figure]
    rows = [Row([*heads, f"{peer}, {run.where}"], [*cells, Cell(protocols(run, [peer])), _seeds(found)], here=True)]
    if any(figure.comparable for figure in found):
        gaps = [Cell(_gap(metric, figure, value)) for metric, figure, value in figures]
        name = f"{ABLATION}, difference" if run.where == ABLATION else "difference"
        rows.append(Row([*heads, f"{peer}, {name}"], [*gaps, Cell(""), Cell("")], here=True))
    return rows


def _seeds(figures: Sequence[Figure]) -> Cell:
    return Cell(", ".join(str(n) for n in sorted({figure.seeds for figure in figures})))


def _measured(metric: str, figure: Figure | None) -> str:
    if figure is None:
        return ABSENT
    spread = "" if pd.isna(figure.spread) else f" ± {plain(metric, figure.spread)}"
    return f"{plain(metric, figure.value)}{spread}{'' if figure.alike else '*'}"


def _gap(metric: str, figure: Figure | None, value: float) -> str:
    if figure is None or not figure.comparable:
        return ABSENT
    return f"{figure.value - value:+.{2 if metric in PLAIN_UNITS else 1}f}".replace("-", "−")


def _table(
    number: int, title: str, runs: Sequence[Run], columns: list[str], rows: list[Row], note: str = "", dataset: str = MVTEC
) -> Table:
    title = f"Table {number} · {title}"
    where = f"“Here” is this run ({runs[0].scale}){_not_compared(runs, dataset)}"
    starred = any("*" in cell.text for row in rows for cell in row.cells)
    star = " * with another network, or other textures, than the paper’s." if starred else ""
    return Table(f"{title}. {where}.{star}{note}", columns, rows, title=title, sortable=True)


def _not_compared(runs: Sequence[Run], dataset: str) -> str:
    """Why no difference of the runs' figures is taken, as the rest of a sentence; empty where it is."""
    if runs[0].same != dataset:
        return "; its data set is not the paper’s here, so no difference of its figures is taken"
    if not runs[0].whole:
        return "; not all of the paper’s products were run, so no difference of its averages is taken"
    if not any(SAME_PROTOCOL in set(run.frame["protocol"]) for run in runs):
        return "; a detector’s figures are compared by the published evaluation alone (protocol legacy), which was not asked for"
    return ""
