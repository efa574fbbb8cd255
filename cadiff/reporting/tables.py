"""Measured figures as tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from cadiff.params import ADDED, METHODS, OURS
from cadiff.reporting.comparing import (
    ABSENT,
    HEADLINE,
    METRIC_NAMES,
    MIXTURES,
    TYPES,
    comparable,
    compare,
    counted,
    mean_and_spread,
    points,
    ranking,
)

AT_THRESHOLD = {"false_alarm_rate": "False alarms", "miss_rate": "Misses", "threshold_promised": "False alarms promised"}


@dataclass(frozen=True)
class Cell:
    """A table's cell; ``order`` is what a column is sorted by (None: the text), ``kind`` a CSS class."""

    text: str
    order: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Row:
    """``heads`` name the row; ``here`` marks what was measured in this run among printed values."""

    heads: list[str]
    cells: list[Cell]
    here: bool = False


@dataclass(frozen=True)
class Table:
    """``title`` is the short name of a table that can be folded away."""

    caption: str
    columns: list[str]
    rows: list[Row]
    sortable: bool = False
    title: str = ""


def headline_table(frame: pd.DataFrame, methods: Sequence[str], detectors: Collection[str] = ()) -> Table:
    """Methods by pixel AP, each headline metric's mean over products and seeds with its spread, the best marked.

    A mixture of two sources is listed and has no place among the sources, nor have ``detectors`` that train on none.
    Only products that every measured method has are in it, and the caption says where that leaves some out.
    """
    ran, everything = set(frame["method"]), frame["product"].nunique()
    frame = comparable(frame, methods)
    order = [method for method, _ in ranking(frame, methods)]
    places = {method: place for place, method in enumerate((m for m in order if m not in {*MIXTURES, *detectors}), start=1)}
    figures = {(a, m): mean_and_spread(frame, a, m) for a in methods for m in HEADLINE}
    best = {m: _best(figures[a, m][0] for a in methods) for m in HEADLINE}
    rows = []
    for method in [*order, *(method for method in methods if method not in order)]:
        run = method in ran
        cells = [_figure(*figures[method, m][:2], best[m]) if run else Cell("not run", kind="absent") for m in HEADLINE]
        seeds = figures[method, "pixel_ap"][2]
        rank = Cell(f"{places[method]}", -places[method]) if method in places else Cell(ABSENT)
        rows.append(Row([named(method)], [rank, *cells, Cell(f"{seeds}", seeds)], here=method == OURS))
    left = frame["product"].nunique()
    over = "products" if left == everything else f"the {left} of {counted(everything, 'product')} that every row has"
    caption = f"By pixel AP. Mean over {over} and seeds, in %, ± standard deviation over seeds. Bold: best in the column."
    return Table(caption, ["The detector was trained on", "Place", *HEADLINE.values(), "Seeds"], rows, sortable=True)


def named(method: str) -> str:
    """A method as the tables print it: its name, and what it is where that is known."""
    return f"{method} – {METHODS[method].title if method in METHODS else 'made elsewhere'}"


def gain_table(frame: pd.DataFrame, methods: Sequence[str]) -> Table:
    """How far CADiff's images, with the exemplars and alone, are ahead of every other source and detector, in points."""
    rows = []
    for ours in [method for method in (ADDED, OURS) if method in methods]:
        for peer in [method for method in methods if method not in {*MIXTURES, ours}]:
            found = [compare(frame, metric, ours, peer) for metric in HEADLINE]
            cells = [Cell(points(c.gain), c.gain, c.outcome) if c else Cell(ABSENT) for c in found]
            rows.append(Row([f"{ours} over {peer}"], cells))
    caption = "Difference in points, paired by product and seed. Underlined: every one of at least 3 seeds agrees."
    return Table(caption, ["Against", *HEADLINE.values()], rows, sortable=True)


def product_table(frame: pd.DataFrame, products: list[str], methods: Sequence[str]) -> Table:
    """Every product and method: each metric's mean over seeds with its spread."""
    rows = []
    for product in products:
        part = frame[frame["product"] == product]
        figures = {(a, m): mean_and_spread(part, a, m)[:2] for a in methods for m in METRIC_NAMES}
        best = {m: _best(figures[a, m][0] for a in methods) for m in METRIC_NAMES}
        rows += [Row([product, a], [_figure(*figures[a, m], best[m]) for m in METRIC_NAMES]) for a in methods]
    caption = "Per product: mean over seeds, in %, ± standard deviation. Bold: best method of the product."
    return Table(caption, ["Product", "Method", *METRIC_NAMES.values()], rows, sortable=True)


def type_table(frame: pd.DataFrame, products: list[str], methods: Sequence[str]) -> Table:
    """Pixel AP per anomaly type, that type's held-out images against the good ones, and the mean over types."""
    typed = frame[frame["metric"].str.startswith("pixel_ap/") | (frame["metric"] == TYPES)]
    rows = []
    for product in products:
        part = typed[typed["product"] == product]
        for metric in sorted(set(part["metric"]), key=lambda name: (name == TYPES, name)):
            values = [mean_and_spread(part, method, metric)[:2] for method in methods]
            best = _best(value for value, _ in values)
            name = "mean over types" if metric == TYPES else metric.removeprefix("pixel_ap/")
            rows.append(Row([product, name], [_figure(*v, best) for v in values]))
    return Table("Pixel AP per anomaly type, in %, mean ± standard deviation over seeds.",
                 ["Product", "Anomaly type", *methods], rows, sortable=True)  # fmt: skip


def threshold_table(frame: pd.DataFrame, product: str, methods: Sequence[str], shipped: Collection[str] = ()) -> Table:
    """What each calibrated method calls wrong on the product's held-out pictures, at the threshold that was set without them; the rows
    of ``shipped`` are marked. No rows where nothing was calibrated."""
    rates = frame[(frame["product"] == product) & frame["metric"].str.match("(false_alarm_rate|miss_rate)(/|$)")]
    found = [method for method in methods if method in set(rates["method"])]
    kinds = sorted(name for name in set(rates["metric"]) if "/" in name)
    metrics = ["false_alarm_rate", "miss_rate", *kinds] if found else []
    rows = []
    for method in found:
        figures = [mean_and_spread(rates, method, metric)[:2] for metric in metrics]
        seeds = rates.loc[rates["method"] == method, "seed"].nunique()
        cells = [*(_figure(*figure, None) for figure in figures), Cell(f"{seeds}", seeds)]
        rows.append(Row([named(method)], cells, here=method in shipped))

    def heading(metric: str) -> str:
        numbers = sorted(set(rates.loc[rates["metric"] == metric, "n"]))
        name, kind = AT_THRESHOLD[metric.partition("/")[0]], metric.partition("/")[2]
        return f"{kind or name} (of\u00a0{' or '.join(f'{number:,}' for number in numbers)})"

    caption = (
        f"{product}: wrong at the threshold, in %, mean ± standard deviation over seeds. False alarms: good test pictures that are called "
        "defective; misses: held-out anomalies that are not, all and by type. In brackets how many pictures there are. Shaded: to be taken "
        "away."
    )
    return Table(caption, ["The detector was trained on", *map(heading, metrics), "Seeds"], rows, sortable=True)


def other_table(frame: pd.DataFrame, products: list[str], methods: Sequence[str]) -> Table:
    """Figures that no other table shows, such as realism and diversity."""
    elsewhere = [*METRIC_NAMES, *AT_THRESHOLD]
    plain = frame[~frame["metric"].isin(elsewhere) & ~frame["metric"].str.contains("/", regex=False)]
    shown = [method for method in methods if method in set(plain["method"])]
    means = plain.groupby(["product", "metric", "method"], sort=True)["value"].mean()
    rows = []
    for product in products:
        for metric in sorted(set(plain.loc[plain["product"] == product, "metric"])):
            values = [means.get((product, metric, method), float("nan")) for method in shown]
            cells = [Cell(ABSENT) if pd.isna(value) else Cell(f"{value:.3f}", value) for value in values]
            rows.append(Row([product, plain_name(str(metric))], cells))
    return Table("Other figures, in the metric's own unit, mean over seeds.", ["Product", "Metric", *shown], rows, sortable=True)


OTHER_NAMES = {
    "is": "realism (inception score, higher is better)", "ic_lpips": "diversity (IC-LPIPS, higher is more varied)",
    "classification_accuracy": "share of held-out anomalies whose type is told right", "images_kept": "images that were not filtered out",
}  # fmt: skip


def plain_name(metric: str) -> str:
    """What a metric says, with the network that it was measured by: ``is(vgg,splits=10)`` is "realism (inception score, ...; vgg)"."""
    name, _, settings = metric.partition("(")
    said = OTHER_NAMES.get(name, metric)
    network = settings.rstrip(")").partition(",")[0]
    if not network or name not in OTHER_NAMES:
        return said
    return f"{said.removesuffix(')')}; {network})" if said.endswith(")") else f"{said} ({network})"


def markdown(table: Table) -> str:
    """A table as GitHub-flavoured Markdown, the best figures bold."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    for row in table.rows:
        cells = [f"**{cell.text}**" if cell.kind == "best" else cell.text for cell in row.cells]
        lines.append("| " + " | ".join([*row.heads, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _best(values: Iterable[float]) -> float | None:
    return max((value for value in values if not pd.isna(value)), default=None)


def _figure(value: float, spread: float, best: float | None) -> Cell:
    if pd.isna(value):
        return Cell(ABSENT)
    text = f"{100 * value:.1f}" + ("" if pd.isna(spread) else f" ± {100 * spread:.1f}")
    as_printed = f"{100 * value:.1f}" == f"{100 * best:.1f}" if best is not None else False  # what prints alike is marked alike
    return Cell(text, value, "best" if as_printed else "")
