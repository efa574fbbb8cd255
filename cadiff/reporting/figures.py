"""Charts as inline SVG that takes the page's colours, so that light, dark and print need one drawing."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from cadiff.reporting.comparing import HEADLINE, mean_and_spread, percent

# Colours that no one would choose stand for the page's own (CSS variables --ink, --muted, --rule, --s0 ...).
INK, MUTED, RULE = "#010101", "#020202", "#030303"
SERIES = [f"#0a0b{i:02x}" for i in range(6)]
PLAIN = {"muted": "#625f59", "rule": "#dedad3", "s0": "#0b6aa2", "s1": "#c2501a", "s2": "#23805a", "s3": "#7d4fa0",
         "s4": "#7d6700", "s5": "#666666"}  # of report.css, light  # fmt: skip
STYLES = ["-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1)), (0, (8, 3))]
MARKERS = ["o", "s", "D", "^", "v", "P"]
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "cadiff", "text.parse_math": False, "font.size": 9,
    "text.color": INK, "axes.edgecolor": MUTED, "axes.labelcolor": MUTED, "xtick.color": MUTED,
    "ytick.color": MUTED, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.grid": True, "grid.color": RULE, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "legend.frameon": False, "axes.titlesize": 9, "axes.titlelocation": "left",
}  # fmt: skip
POINTS = 160  # a curve's points after thinning


def svg(figure: Figure, name: str, label: str) -> Markup:
    """A figure as an ``<svg>`` element with ids of its own, a text alternative, and no host's address."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    colours = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)"}
    colours.update({colour: f"var(--s{i})" for i, colour in enumerate(SERIES)})
    for placeholder, colour in colours.items():
        text = text.replace(placeholder, colour)
    head = f'<svg role="img" aria-label="{Markup.escape(label)}" class="chart"'
    return Markup(text.replace("<svg", head, 1).strip())


def _figure(width: float, height: float) -> tuple[Figure, matplotlib.axes.Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def product_dots(frame: pd.DataFrame, metric: str, products: list[str], methods: Sequence[str]) -> Markup:
    """Per product, each method's mean (marker) and range over seeds (line), in %."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.6, 0.9 + 0.16 * len(products) * (len(methods) + 1))
        for k, method in enumerate(methods):
            i = k % len(SERIES)
            part = frame[(frame["metric"] == metric) & (frame["method"] == method)].dropna(subset=["value"])
            label: str | None = method  # on the first marker only
            for j, product in enumerate(products):
                values = 100 * part.loc[part["product"] == product, "value"].to_numpy()
                if len(values):
                    y = j + (k - (len(methods) - 1) / 2) * 0.75 / len(methods)
                    axes.plot([values.min(), values.max()], [y, y], color=SERIES[i], linewidth=2, alpha=0.45)
                    axes.plot(values.mean(), y, MARKERS[i], color=SERIES[i], markersize=5, label=label)
                    label = None
        axes.set_yticks(range(len(products)), products)
        axes.set_ylim(len(products) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.set_xlabel(f"{HEADLINE[metric]}, %")
        if axes.lines:
            figure.legend(loc="outside upper left", ncols=3, handletextpad=0.1, columnspacing=0.9)
        spoken = _spoken(frame, metric, methods)
        return svg(figure, f"dots-{metric}", f"{HEADLINE[metric]} per product. Means: {spoken}")


def _spoken(frame: pd.DataFrame, metric: str, methods: Sequence[str]) -> str:
    means = {method: mean_and_spread(frame, method, metric)[0] for method in methods}
    return "; ".join(f"{method} {percent(mean)}" for method, mean in means.items())


def scatter(
    places: np.ndarray, labels: Sequence[tuple[str, str]], name: str, spoken: str, named: bool
) -> Markup:
    """Points by (product, concept): a product has one colour, a concept of it one marker and, if ``named``, its name
    at its middle."""
    products = list(dict.fromkeys(product for product, _ in labels))
    concepts = {product: list(dict.fromkeys(c for p, c in labels if p == product)) for product in products}
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(6.2, 4.4)
        for product, concept in dict.fromkeys(labels):
            mine = places[[label == (product, concept) for label in labels]]
            i, j = products.index(product), concepts[product].index(concept)
            axes.plot(mine[:, 0], mine[:, 1], MARKERS[j % 6], color=SERIES[i % 6], markersize=4, alpha=0.75, linestyle="none",
                      label=product if j == 0 else None)  # fmt: skip
            if named:
                middle = np.median(mine, axis=0)
                axes.annotate(concept, (middle[0], middle[1]), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.margins(x=0.2 if named else 0.05)  # a name stands to the right of its points
        axes.set_axis_off()
        figure.legend(loc="outside upper left", ncols=4, handletextpad=0.1, columnspacing=0.9)
        return svg(figure, name, f"t-SNE map of the learned tokens' contextual vectors. {spoken}")


def plain(chart: Markup) -> str:
    """A chart as an SVG file of its own, in the colours of the light page."""
    text = str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace("currentColor", "#1d1c1a")
    for name, colour in PLAIN.items():
        text = text.replace(f"var(--{name})", colour)
    return text + "\n"


def histogram(series: dict[str, np.ndarray], name: str, title: str, unit: str) -> Markup:
    """Shares of images per bin, one stepped line per source over the same bins."""
    values = np.concatenate(list(series.values()))
    bins = [float(edge) for edge in np.histogram_bin_edges(values, bins=12)]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.4, 2.2)
        for i, (source, numbers) in enumerate(series.items()):
            weights = np.full(len(numbers), 100 / len(numbers))
            axes.hist(numbers, bins, weights=weights, histtype="stepfilled", color=SERIES[i], alpha=0.18)
            axes.hist(numbers, bins, weights=weights, histtype="step", color=SERIES[i], label=source,
                      linestyle=STYLES[i], linewidth=1.4)  # fmt: skip
        axes.set(xlabel=unit, ylabel="% of images", title=title)
        if len(series) > 1:
            axes.legend(fontsize=8, handlelength=1.6)
        spoken = "; ".join(f"{s}: {len(v)} images, median {np.median(v):.2f}" for s, v in series.items())
        return svg(figure, name, f"Histogram of {unit}, {title}. {spoken}")


def curves(tables: dict[str, list[pa.Table]], name: str, title: str) -> Markup | None:
    """Losses over steps: a line per label and quantity, thin for further seeds; None if all are empty."""
    lines = [
        (label, part, table) for label, parts in tables.items() for table in parts for part in _names(table)
    ]
    labels = list(dict.fromkeys((label, part) for label, part, _ in lines))
    if not labels:
        return None
    several = len({part for _, part in labels}) > 1
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.4, 2.4)
        seen: set[tuple[str, str]] = set()
        for label, part, table in lines:
            key = (label, part)
            i = labels.index(key)
            steps, values = _thinned(table, part)
            text = f"{label} {part}".strip() if several or not label else label
            width = 0.5 if key in seen else 1.1
            axes.plot(steps, values, color=SERIES[i % 6], linestyle=STYLES[i % 6], linewidth=width,
                      label=None if key in seen else text)  # fmt: skip
            seen.add(key)
        if all(np.all(np.asarray(line.get_ydata(), float) > 0) for line in axes.lines):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="step", title=title)
        axes.legend(fontsize=7.5, handlelength=1.8)
        spoken = ", ".join(f"{label} {part}".strip() for label, part in labels)
        return svg(figure, name, f"Training curves of {title}: {spoken}")


def _names(table: pa.Table) -> Iterable[str]:
    return dict.fromkeys(table["name"].to_pylist())


def _thinned(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A quantity's steps and values, as means over at most POINTS stretches of equally many rows (the last may have fewer)."""
    rows = table.to_pandas()
    rows = rows[rows["name"] == name].sort_values("step")
    values, length = rows[["step", "value"]].to_numpy(float), -(-len(rows) // POINTS)
    parts = [values[start : start + length] for start in range(0, len(values), length)]
    means = np.array([part.mean(axis=0) for part in parts])
    return means[:, 0], means[:, 1]
