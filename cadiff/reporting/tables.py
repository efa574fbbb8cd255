"""Measured figures as tables: the joined rows, means with their spread, and the comparison with each peer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd
import pyarrow as pa

from cadiff.errors import CADiffError
from cadiff.records import METRIC_SCHEMA
from cadiff.reporting.artefacts import Artefacts

TYPES = "pixel_ap_types"  # the mean over anomaly types of pixel_ap/<type>: pooled, one type with large masks decides
HEADLINE = {
    "pixel_ap": "Pixel AP",
    TYPES: "Pixel AP, mean over types",
    "pixel_auroc": "Pixel AUROC",
    "pixel_f1max": "Pixel F1-max",
    "pro": "PRO",
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
}
METRIC_NAMES = {**HEADLINE, "image_f1max": "Image F1-max"}
METHOD_NAMES = {
    "cadiff": "CADiff images",
    "controlnet": "ControlNet alone",
    "perturbed": "Perturbed normals",
    "pasted": "exemplars pasted where CADiff draws",
    "exemplars": "augmented exemplars alone",
    "both": "CADiff images and augmented exemplars",
    "cutpaste": "CutPaste",
    "nsa": "NSA (patches blended by Poisson's equation)",
    "perlin": "Perlin noise (DRAEM's synthesis)",
    "patchcore": "normal images alone (PatchCore)",
    "draem": "normal images alone (DRAEM)",
    "sspcab": "normal images alone (DRAEM with SSPCAB)",
    "rd4ad": "normal images alone (RD4AD)",
    "cfa": "normal images alone (CFA)",
}
MIXTURES = {"both"}  # of other methods' images
CONTROLS = ("exemplars", "pasted")  # what can be had of the real exemplars without a model that draws
WITHOUT_DEFECTS = "patchcore"  # the detector that a trained one has to beat: it needs no anomaly at all
AT_THRESHOLD = {"false_alarm_rate": "False alarms", "miss_rate": "Misses", "threshold_promised": "False alarms promised"}
ABSENT = "–"


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


@dataclass(frozen=True)
class Comparison:
    """A metric's gain over a peer, in its unit, paired by product and seed; ``means`` ours and theirs."""

    metric: str
    peer: str
    means: tuple[float, float]
    gain: float
    by_seed: list[float]
    by_product: dict[str, float]

    @property
    def outcome(self) -> str:
        """``better`` or ``worse`` only when every seed agrees and there are at least three of them."""
        signs = {gain > 0 for gain in self.by_seed if gain != 0}
        if len(self.by_seed) < 3 or len(signs) != 1 or 0.0 in self.by_seed:
            return "undecided"
        return "better" if self.gain > 0 else "worse"


def join_metrics(artefacts: Artefacts) -> pa.Table:
    """All evaluated rows of params.products x params.methods, in that order (METRIC_SCHEMA).

    Raises:
        CADiffError: if a file holds another product's or method's rows, or two rows for one metric and seed.
    """
    parts = []
    for product in artefacts.params.products:
        for method in artefacts.params.methods:
            part = artefacts.metrics(method, product)
            _check(part, method, product)
            parts.append(part.cast(METRIC_SCHEMA))
    return pa.concat_tables(parts)


def join_published(artefacts: Artefacts) -> pd.DataFrame:
    """The rows of the published evaluation, where it was asked for.

    Raises:
        CADiffError: as ``join_metrics``.
    """
    parts = []
    for product in artefacts.params.products:
        for method in artefacts.params.methods:
            parts.append(artefacts.published(method, product))
            _check(parts[-1], method, product, "published.parquet")
    return pa.concat_tables(parts).to_pandas()


def _check(part: pa.Table, method: str, product: str, file: str = "metrics.parquet") -> None:
    name = f"evaluated/{method}/{product}/{file}"
    strangers = {(row["product"], row["method"]) for row in part.to_pylist()} - {(product, method)}
    if strangers:
        raise CADiffError(
            f"{name}: expected rows of {(product, method)} only, found {sorted(strangers)}. Rerun evaluate."
        )
    keys = part.select(["variant", "metric", "seed"]).to_pandas()
    if keys.duplicated(["metric", "seed"]).any():
        first = keys[keys.duplicated(["metric", "seed"])].iloc[0].to_dict()
        raise CADiffError(
            f"{name}: expected one row per metric and seed, found a second for {first}. Rerun evaluate."
        )


def mean_and_spread(frame: pd.DataFrame, method: str, metric: str) -> tuple[float, float, int]:
    """Mean over products and seeds, standard deviation over seeds of the mean over products, number of seeds.

    NaN (a metric that is undefined for a product) is left out. Only seeds that every product has enter the
    spread, which is NaN for fewer than two of them.
    """
    rows = frame[(frame["method"] == method) & (frame["metric"] == metric)].dropna(subset=["value"])
    if rows.empty:
        return float("nan"), float("nan"), 0
    grid = rows.pivot(index="seed", columns="product", values="value")
    by_seed = grid.dropna().mean(axis=1)
    return float(grid.mean().mean()), float(by_seed.std(ddof=1)), len(by_seed)


def means(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """{method: {metric: mean over products and seeds}}, without per-type metrics (``name/type``)."""
    result: dict[str, dict[str, float]] = {}
    for (method, metric), _ in frame.groupby(["method", "metric"], sort=True):
        value = mean_and_spread(frame, str(method), str(metric))[0]
        if "/" not in str(metric) and not pd.isna(value):
            result.setdefault(str(method), {})[str(metric)] = value
    return result


def compare(frame: pd.DataFrame, metric: str, ours: str, peer: str) -> Comparison | None:
    """The gain of ``ours`` over ``peer``, from products and seeds that both have; None if there are none."""
    rows = frame[frame["metric"] == metric].dropna(subset=["value"])
    grid = rows.pivot(index=["product", "seed"], columns="method", values="value")
    if ours not in grid or peer not in grid:
        return None
    pairs = grid[[ours, peer]].dropna()
    if pairs.empty:
        return None
    own, theirs = (float(pairs[method].unstack("product").mean().mean()) for method in (ours, peer))
    gains = (pairs[ours] - pairs[peer]).unstack("product")
    by_seed = gains.dropna().mean(axis=1)
    by_product = {str(product): float(gain) for product, gain in gains.mean().items()}
    gain = float(gains.mean().mean())
    return Comparison(metric, peer, (own, theirs), gain, [float(value) for value in by_seed], by_product)


CHANCE = 0.65  # a pixel AUROC below this is no detector; ranking at random gives 0.5
FEW = 6  # anomalies that a product is scored on, below which no figure of it is a claim


def verdict(
    frame: pd.DataFrame, held_out: Mapping[str, int] = MappingProxyType({}), metric: str = "pixel_ap",
    ours: str = "cadiff",
) -> list[str]:  # fmt: skip
    """A conclusion and the figures behind it: did the detector trained on generated images beat the same detector without them, on
    the strongest of ``CONTROLS`` that was measured?

    ``held_out``: how many anomalies each product is scored on.
    """
    controls = [name for name in CONTROLS if compare(frame, metric, ours, name)]
    peer = ranking(comparable(frame, controls, metric), controls, metric)[0][0] if controls else CONTROLS[0]
    comparison = compare(frame, metric, ours, peer)
    if comparison is None:
        return [
            f"Not compared: {METRIC_NAMES[metric]} was not measured for both {ours} and {peer}.",
            "No claim is made.",
        ]
    own, theirs = map(percent, comparison.means)
    products, seeds = len(comparison.by_product), len(comparison.by_seed)
    won = [sum(gain > 0 for gain in gains) for gains in (comparison.by_product.values(), comparison.by_seed)]
    figures = (
        f"{METRIC_NAMES[metric]} is {own} for the detector trained on {METHOD_NAMES[ours]} and {theirs} for "
        f"the same detector trained on {METHOD_NAMES[peer]}{_strongest(controls)}: {points(comparison.gain)} points, "
        f"better on {won[0]} of {counted(products, 'product')} and in {won[1]} of {counted(seeds, 'seed')}."
        f"{_over_types(frame, ours, peer)}"
    )
    conclusion = {
        "better": "Yes: the generated images helped, in every seed.",
        "worse": "No: the detector was better without the generated images, in every seed.",
        "undecided": "Undecided: the seeds do not agree, so no claim is made.",
    }[comparison.outcome]
    added = compare(frame, metric, "both", peer)  # what a user would do who has both
    if comparison.outcome != "better" and added is not None and added.outcome == "better":
        alone = {"worse": "In their place they were worse, in every seed", "undecided": "In their place the seeds do not agree"}
        conclusion = (
            f"Yes, added to the exemplars: {points(added.gain)} points of {METRIC_NAMES[metric]} over {METHOD_NAMES[peer]}"
            f"{_points_over_types(frame, 'both', peer)}, better in every seed. "
            f"{alone[comparison.outcome]}."
        )
    rankings = [mean_and_spread(frame, method, "pixel_auroc")[0] for method in (ours, peer)]
    figures += lost(frame, ours, peer, metric)
    if any(pd.notna(value) for value in rankings) and max(value for value in rankings if pd.notna(value)) < CHANCE:
        conclusion = (
            f"Neither detector works: both are near chance (pixel AUROC below {percent(CHANCE)}), so their difference "
            "means nothing. Train the detector longer (detector.epochs)."
        )
    elif seeds < 3:
        side = "ahead" if comparison.gain > 0 else "not ahead"
        conclusion = f"An indication only: CADiff is {side}, but a claim needs at least 3 seeds."
    elif conclusion.startswith("Yes"):
        conclusion = _of_few({name: held_out[name] for name in comparison.by_product if name in held_out}, conclusion)
    return [conclusion, figures]


def needs_no_defect(frame: pd.DataFrame, trained: Sequence[str], peer: str = WITHOUT_DEFECTS) -> str:
    """That ``peer``, which learns from normal images alone, is ahead of every detector trained on anomalies, by pixel AP or by image
    AUROC; empty where it is ahead by neither, or was not run."""
    methods, found = [peer, *trained], []
    for metric in ("pixel_ap", "image_auroc"):
        order = ranking(comparable(frame, methods, metric), methods, metric)
        values = dict(order)
        if peer in values and len(values) > 1:
            own, (best, other) = values[peer], next(pair for pair in order if pair[0] != peer)
            said = f"by {METRIC_NAMES[metric]} ({percent(own)}; {best} has {percent(other)})"
            found.append((own > other and points(own - other) != "0.0", said))
    ahead = [text for won, text in found if won]
    if not ahead:
        return ""
    behind = "".join(f" It is not {text}." for won, text in found if not won)
    few = frame[frame.method.isin(trained)].seed.nunique() < 3
    said = f"PatchCore, which needs no defect at all, is ahead of every detector trained on anomalies {' and '.join(ahead)}."
    return said + behind + (" Fewer than 3 seeds: an indication only." if few else "")


def _strongest(controls: Sequence[str]) -> str:
    """That a control was chosen, in brackets; empty where there was no choice."""
    return f" (the strongest control of {len(controls)})" if len(controls) > 1 else ""


def _over_types(frame: pd.DataFrame, ours: str, peer: str) -> str:
    """A sentence on the mean over anomaly types; empty where it was not measured for both."""
    found = compare(frame, TYPES, ours, peer)
    if found is None:
        return ""
    own, theirs = map(percent, found.means)
    return f" The mean over anomaly types is {own} and {theirs}: {points(found.gain)} points."


def _points_over_types(frame: pd.DataFrame, ours: str, peer: str) -> str:
    """The same gain in brackets."""
    found = compare(frame, TYPES, ours, peer)
    return "" if found is None else f" ({points(found.gain)} in the mean over types)"


def _of_few(held_out: Mapping[str, int], conclusion: str) -> str:
    """A "Yes" as what it is where a product has too few anomalies to be scored on: its seeds tell of the detector, not of these."""
    fewest = min(held_out, key=lambda name: held_out[name], default=None)
    if fewest is None or held_out[fewest] >= FEW:
        return conclusion
    number = f"{held_out[fewest]} anomal{'y' if held_out[fewest] == 1 else 'ies'}"
    rest = conclusion.removeprefix("Yes").lstrip(":, ")
    return f"An indication only, since {fewest} is scored on {number} and a claim needs at least {FEW} of each product: {rest}"


def lost(frame: pd.DataFrame, ours: str, peer: str, but: str) -> str:
    """A sentence on the headline metrics other than ``but`` that ``ours`` lowers, visibly and in every one of at least three
    seeds; empty where there are none."""
    found = {name: compare(frame, metric, ours, peer) for metric, name in HEADLINE.items() if metric != but}
    gains = {name: c.gain for name, c in found.items() if c and c.outcome == "worse" and len(c.by_seed) >= 3}
    worse = [f"{name} by {100 * -gain:.1f} points" for name, gain in gains.items() if points(gain) != "0.0"]
    return f" Lost, in every seed: {', '.join(worse)}." if worse else ""


def comparable(frame: pd.DataFrame, methods: Sequence[str], metric: str = "pixel_ap") -> pd.DataFrame:
    """The rows of the products that every measured method has: after a stop, one may have the easy products alone."""
    rows = frame[(frame["metric"] == metric) & frame["method"].isin(methods)].dropna(subset=["value"])
    by_method = [set(part["product"]) for _, part in rows.groupby("method")]
    return frame[frame["product"].isin(set.intersection(*by_method))] if by_method else frame


def ranking(frame: pd.DataFrame, methods: Sequence[str], metric: str = "pixel_ap") -> list[tuple[str, float]]:
    """The methods that were measured with their means, the best first; equal means in the order given."""
    found = [(method, mean_and_spread(frame, method, metric)[0]) for method in methods]
    return sorted(((method, value) for method, value in found if pd.notna(value)), key=lambda pair: -pair[1])


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
        rows.append(Row([named(method)], [rank, *cells, Cell(f"{seeds}", seeds)], here=method == "cadiff"))
    left = frame["product"].nunique()
    over = "products" if left == everything else f"the {left} of {counted(everything, 'product')} that every row has"
    caption = f"By pixel AP. Mean over {over} and seeds, in %, ± standard deviation over seeds. Bold: best in the column."
    return Table(caption, ["The detector was trained on", "Place", *HEADLINE.values(), "Seeds"], rows, sortable=True)


def named(method: str) -> str:
    """A method as the tables print it: its name, and what it is where that is known."""
    return f"{method} – {METHOD_NAMES.get(method, 'made elsewhere')}"


def place_among(frame: pd.DataFrame, methods: Sequence[str], ours: str = "cadiff") -> str:
    """Where ``ours`` stands among the sources of training images by pixel AP, in one or two sentences."""
    sources = [method for method in methods if method not in MIXTURES]
    order = ranking(comparable(frame, sources), sources)
    names = [method for method, _ in order]
    if ours not in names or len(names) < 2:
        return ""
    place, values = names.index(ours) + 1, dict(order)
    text = f"By pixel AP CADiff’s images are number {place} of {len(names)} sources of training images"
    first = names[1] if place == 1 else names[0]
    gap = points(values[ours] - values[first])
    text += f", {gap} points {'ahead of the next' if place == 1 else 'from the first'} ({METHOD_NAMES.get(first, first)})."
    added = compare(frame, "pixel_ap", "both", "exemplars")
    if added is not None:
        word = {"better": "it helped, in every seed", "worse": "it did harm, in every seed", "undecided": "the seeds do not agree"}
        enough = len(added.by_seed) >= 3
        said = word[added.outcome] if enough else "too few seeds for a claim"
        types = _points_over_types(frame, "both", "exemplars")
        text += f" Added to the exemplars they changed pixel AP by {points(added.gain)} points{types}: {said}."
    return text


def gain_table(frame: pd.DataFrame, methods: Sequence[str], ours: str = "cadiff") -> Table:
    """How far ``ours`` is ahead of every other method, in points."""
    rows = []
    for peer in [method for method in methods if method != ours]:
        found = [compare(frame, metric, ours, peer) for metric in HEADLINE]
        cells = [Cell(points(c.gain), c.gain, c.outcome) if c else Cell(ABSENT) for c in found]
        rows.append(Row([f"{ours} over {peer}"], cells))
    caption = (
        "Difference in points, paired by product and seed. Underlined: every one of at least 3 seeds agrees."
    )
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


def percent(value: float) -> str:
    return ABSENT if pd.isna(value) else f"{100 * value:.1f}\u202f%"


def points(gain: float) -> str:
    """A difference of two shares in points, with its sign; a true minus sign, as in print."""
    text = f"{100 * gain:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _best(values: Iterable[float]) -> float | None:
    return max((value for value in values if not pd.isna(value)), default=None)


def _figure(value: float, spread: float, best: float | None) -> Cell:
    if pd.isna(value):
        return Cell(ABSENT)
    text = f"{100 * value:.1f}" + ("" if pd.isna(spread) else f" ± {100 * spread:.1f}")
    as_printed = f"{100 * value:.1f}" == f"{100 * best:.1f}" if best is not None else False  # what prints alike is marked alike
    return Cell(text, value, "best" if as_printed else "")
