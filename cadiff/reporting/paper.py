"""The paper's Tables 1-5 as data (paper.csv, values as printed), each row beside what was measured for it here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from cadiff.params import METHODS, OURS, Params
from cadiff.reporting.artefacts import ablations_of
from cadiff.reporting.comparing import ABSENT, counted, mean_and_spread
from cadiff.reporting.tables import Cell, Row, Table

SOURCE = Path(__file__).with_name("paper.csv")
NAMES = {
    "pixel_auroc": "AUC-P",
    "pixel_ap": "AP-P",
    "pixel_f1max": "F1-P",
    "image_auroc": "AUC-I",
    "image_ap": "AP-I",
    "ic_lpips": "IC-L",
    "is": "IS",
}
PLAIN_UNITS = ("is", "ic_lpips")  # not shares, printed with two digits
# IS and IC-LPIPS count as the paper's only with the published files of its network; others carry theirs in the metric's
# name (cadiff.metrics.networks). Of IC-LPIPS it is the variant of AnomalyDiffusion's code, whose row the paper prints beside its own.
SAME_NETWORK = {"is": r"is\(inception-v3\)", "ic_lpips": r"ic_lpips\(lpips-vgg,cap=50,single=dropped\)"}
NEAREST = re.compile(r"\([^,]*,cap=50,single=dropped\)")  # the same but for its network
SAME_PROTOCOL, SAME_DETECTOR = "legacy", "unet"  # of a detector's figures
# The paper's methods by this project's names; the paper's own name, in lower case, serves too (an external folder).
PEERS = {
    "CADiff": (OURS,),
    "AnoDiff": ("anomalydiffusion",),
    "DRAEM": ("perlin",),
    "RD4AD": ("reverse_distillation",),
    "single token": ("single", "single_token", "textual_inversion"),
}
MVTEC, VISA = "MVTec AD", "VisA"
DATASETS = {"mvtec": MVTEC, "mvtecad": MVTEC, "visa": VISA}  # by name, letters only
PRODUCTS_OF_VISA = 12
DETECTORS_TABLE = 2  # its DRAEM is the detector, Table 3's the way to draw anomalies
NOT_RUN = "not run here"
ABLATION = "ablation"  # what rows that were measured apart are called


@dataclass(frozen=True)
class Run:
    """What was measured (METRIC_SCHEMA, shares in [0, 1]), and what of it may be set against which printed figure;
    ``scale`` says in words how this run differs ("demo, 64 px, 3 products"), ``where`` what its rows are called."""

    frame: pd.DataFrame
    params: Params
    scale: str
    where: str = "here"

    @property
    def same(self) -> str | None:
        """The printed data set that this one is; None: neither."""
        return DATASETS.get(re.sub(r"[^a-z]", "", self.params.dataset.name.lower()))

    @property
    def whole(self) -> bool:
        """Whether a mean over the products run is the mean that the paper prints."""
        if self.same == MVTEC:
            return set(self.params.products) == set(_unique(DETECTORS_TABLE, "product")) - {"average"}
        return self.same == VISA and len(self.params.products) == PRODUCTS_OF_VISA

    def peer(self, table: int, printed: str) -> str | None:
        """The method run here that a printed method is; None if none was run."""
        found = set(self.frame["method"])
        if table != DETECTORS_TABLE:  # their rows are sources of images for one detector, not detectors
            found -= set(self.params.methods) - set(self.params.taking("detect"))
        aliases = (printed.lower(), *PEERS.get(printed, ()))
        if table == DETECTORS_TABLE and printed == "DRAEM":
            aliases = ("draem",)
        return next((name for name in aliases if name in found), None)


@dataclass(frozen=True)
class Figure:
    """A measured figure in the paper's units. ``alike``: with the paper's network and textures; ``comparable``: a printed
    one may be subtracted."""

    value: float
    spread: float
    seeds: int
    alike: bool = True
    comparable: bool = True


@cache
def printed() -> pd.DataFrame:
    """Columns table, metric, method, product, value: shares in %, IS and IC-LPIPS, as the paper prints them.

    Two corrections of names, none of values: Table 3's "DREAM" is DRAEM, and "Ours" is CADiff. Some printed
    averages are truncated rather than rounded, and DevNet's pixel AUROC average (86.4) is not the mean of its
    column (88.4).
    """
    return pd.read_csv(SOURCE)


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


def run_of_variants(frame: pd.DataFrame | None) -> Run | None:
    """The ablations' rows as a run of their own whose methods are the variants; None where there are none."""
    if frame is None or frame.empty:
        return None
    products, dataset = sorted(set(frame["product"])), ", ".join(sorted(set(frame["dataset"])))
    params = Params(products={product: {} for product in products}, dataset={"name": dataset})
    return Run(frame.assign(method=frame["variant"]), params, f"{dataset}, {counted(len(products), 'product')}", ABLATION)


def intensity_row(params: Params) -> str | None:
    """The row of Table 4 that has this run's intensity settings; None if the paper has no such row."""
    values = params.intensity
    rows = {
        (0.5, 0.5, True, True): "w = 0.5",
        (1.0, 1.0, True, True): "w = 1",
        (1.5, 1.5, True, True): "w = 1.5",
        (0.5, 1.5, True, True): "w in [0.5, 1.5]",
        (0.5, 1.5, False, True): "w/o MFA",
        (0.5, 1.5, True, False): "w/o DFS",
    }
    return rows.get((values.low, values.high, values.masked_focus, values.delayed_focus))


def ablation_row(params: Params) -> str | None:
    """The row of Table 5 that has this run's prompt and control settings; None if there is no such row."""
    prompt, saim = params.prompt, params.control.interaction != "none"
    if prompt.tokens != "multi":
        return "single token" if prompt.tokens == "single" and not saim else None
    if prompt.localizing != prompt.contrastive:
        return None
    return " + ".join(["MTL"] + ["Reg"] * prompt.localizing + ["SAIM"] * saim)


ROW_OF = {4: intensity_row, 5: ablation_row}
# What these two read, so what sets a table's rows apart.
SETTINGS_OF = {
    4: {"intensity.low", "intensity.high", "intensity.masked_focus", "intensity.delayed_focus"},
    5: {"prompt.tokens", "prompt.localizing", "prompt.contrastive", "control.interaction"},
}


def generation_table(runs: Sequence[Run]) -> Table:
    """Table 1: a row per metric and method, a column per product of MVTec AD and their average."""
    values = _values(1)
    metrics, methods, products = (_unique(1, column) for column in ("metric", "method", "product"))
    rows = []
    for metric in metrics:
        for method in methods:
            cells = [Cell(_plain(metric, values[metric, method, product]), values[metric, method, product]) for product in products]
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
    values = _values(2)
    metrics, methods, products = (_unique(2, column) for column in ("metric", "method", "product"))
    rows = []
    for product in products:
        name = product.replace("_", " ")
        cells = [Cell(" / ".join(_plain(m, values[m, method, product]) for m in metrics)) for method in methods]
        rows.append(Row([name], [*cells, Cell(""), Cell("")]))
        for run in runs:
            rows += _detector_rows(run, product, name)
    title = "Pixel-level localisation (AUROC / AP, %), detectors and a U-Net trained on generated images, MVTec AD"
    return _table(2, title, runs, ["Category", *methods, "Protocol", "Seeds"], rows)


def _detector_rows(run: Run, product: str, name: str) -> list[Row]:
    """What was measured for a product of Table 2 (``average``: of all of them), and the differences."""
    values, rows, average = _values(2), [], product == "average"
    metrics, methods = _unique(2, "metric"), _unique(2, "method")
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
    values = _values(3)
    metrics, methods, products = (_unique(3, column) for column in ("metric", "method", "product"))
    dataset = runs[0].same or MVTEC
    column = products[1] if dataset == VISA else products[0]
    rows = []
    for method in methods:
        cells = [Cell(" / ".join(_plain(m, values[m, method, p]) for p in products), values[m, method, products[0]]) for m in metrics]
        rows.append(_printed_row([method], cells, runs[0].peer(3, method)))
        for run in runs:
            if peer := run.peer(3, method):
                found = [(m, measured(run, peer, m, None, dataset), values[m, method, column]) for m in metrics]
                rows += _rows_here([], peer, run, found)
    columns = ["Method", *(NAMES[m] for m in metrics), "Protocol", "Seeds"]
    return _table(3, "A U-Net trained on generated images, MVTec AD / VisA, in %", runs, columns, rows, "", dataset)


def variant_table(runs: Sequence[Run], number: int, title: str, own: str | None, ablations: Run | None = None) -> Table:
    """Tables 4 and 5: a row per variant; this run is one of them (``own``), or none; ``ablations`` are any of them, by name."""
    values = _values(number)
    measured_apart = set(ablations.frame["method"]) if ablations else set()
    metrics, variants = _unique(number, "metric"), _unique(number, "method")
    rows = []
    for variant in variants:
        cells = [Cell(_plain(m, values[m, variant, "average"]), values[m, variant, "average"]) for m in metrics]
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
    methods = _unique(3, "method")
    peers = {method: run.peer(3, method) for method in methods}
    found = {peer: figure.value for method, peer in peers.items() if peer and (figure := measured(run, peer, "pixel_ap"))}
    if len(found) < 2:
        return "Fewer than two methods of Table 3 were run here, so its order cannot be compared."
    values = _values(3)
    printed_order = sorted((m for m in methods if peers[m] in found), key=lambda m: -values["pixel_ap", m, "MVTec AD average"])
    paper = [str(peers[m]) for m in printed_order]
    here = sorted(found, key=lambda peer: -found[peer])
    word = "The same order" if paper == here else "Another order"
    return f"{word} by pixel AP: printed {' > '.join(paper)}; here {' > '.join(here)}."


def measured(run: Run, method: str | None, metric: str, product: str | None = None, dataset: str = MVTEC) -> Figure | None:
    """A figure of this run in the paper's units: of one product, or the mean over all that were run.

    ``comparable`` are figures of the ``dataset`` that the printed ones are of, means over all of its products, by the evaluation that the
    paper follows (``same_evaluation``), and none of a stand-in for the paper's network or textures. None: not measured; a product
    of another data set is none of the paper's, whatever its name.
    """
    if method is None or (product is not None and run.same != MVTEC):
        return None
    frame = run.frame if product is None else run.frame[run.frame["product"] == product]
    names = {str(name) for name in frame.loc[frame["method"] == method, "metric"]}
    if metric in PLAIN_UNITS:
        own = sorted(name for name in names if re.match(rf"{metric}(\(|$)", name) and "/" not in name)
        own.sort(key=lambda name: (not re.fullmatch(SAME_NETWORK[metric], name), not NEAREST.search(name)))
        name = own[0] if own else metric
    else:
        name = metric
    mean, spread, seeds = mean_and_spread(frame, method, name)
    if pd.isna(mean):
        return None
    factor = 1 if metric in PLAIN_UNITS else 100
    known = METHODS.get(method)
    alike = not (known and known.stand_in) and (metric not in PLAIN_UNITS or bool(re.fullmatch(SAME_NETWORK[metric], name)))
    if known and "backbone" in known.needs:  # the paper's where their variant ends in the published WideResNet-50
        alike = bool(frame.loc[frame["method"] == method, "variant"].str.endswith(",wide_resnet50_2)").all())
    comparable = alike and run.same == dataset and (product is not None or run.whole) and same_evaluation(run, method, name)
    return Figure(factor * mean, factor * spread, seeds, alike, comparable)


def same_evaluation(run: Run, method: str, metric: str) -> bool:
    """Whether a figure was measured as the paper's was. A generator's is told by its name. A detector's is by the published evaluation, and
    where it was trained on generated images it is the published U-Net; that evaluation stretches pictures to a square and ours does not, so
    that of VisA's, which are none, it is another one."""
    if metric.partition("(")[0] in PLAIN_UNITS:
        return True
    rows = run.frame[(run.frame["method"] == method) & (run.frame["metric"] == metric)]
    if set(rows["protocol"]) != {SAME_PROTOCOL} or run.same != MVTEC:
        return False
    own = method in run.params.taking("peer")
    return own or run.where == ABLATION or set(rows["variant"]) == {SAME_DETECTOR}


def protocols(run: Run, methods: Sequence[str | None]) -> str:
    """The protocols that the rows of these methods were measured under."""
    return ", ".join(sorted(set(run.frame.loc[run.frame["method"].isin([m for m in methods if m]), "protocol"])))


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
    spread = "" if pd.isna(figure.spread) else f" ± {_plain(metric, figure.spread)}"
    return f"{_plain(metric, figure.value)}{spread}{'' if figure.alike else '*'}"


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


def _values(number: int) -> dict[tuple[str, str, str], float]:
    """{(metric, method, product): value} of a table."""
    part = printed()[printed()["table"] == number]
    keys = zip(part["metric"], part["method"], part["product"], strict=True)
    return dict(zip(keys, part["value"].astype(float), strict=True))


def _unique(number: int, column: str) -> list[str]:
    return [str(name) for name in printed().loc[printed()["table"] == number, column].unique()]


def _plain(metric: str, value: float) -> str:
    return ABSENT if pd.isna(value) else f"{value:.{2 if metric in PLAIN_UNITS else 1}f}"
