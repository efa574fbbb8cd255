"""The report: reads what the stages left, writes the joined metrics and one HTML file that opens offline."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
from markupsafe import Markup

from cadiff.params import ADDED, OURS, RESULT_KEYS, SMP, Params, as_written, changed, file_form, inline
from cadiff.records import WITHOUT_GOOD
from cadiff.reporting import comparing, figures, model_figures, paper, signals, tables, take_away, verdict
from cadiff.reporting.approximate import approximate_said
from cadiff.reporting.artefacts import SHOWN, WITH_SHOWN, Artefacts
from cadiff.reporting.comparing import counted
from cadiff.reporting.films import films
from cadiff.reporting.gallery import EXACT_SIDE, Group, Picture, gallery, shard_methods
from cadiff.reporting.maps import map_rows
from cadiff.reporting.tables import Cell, Row, Table
from cadiff.storage import write_bytes, write_json, write_table, write_text
from cadiff.threshold_words import asked

PACKAGES = [
    "cadiff",
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "scikit-learn",
    "scikit-image",
    "pyarrow",
]
COMMANDS = [
    ("make demo", "everything from nothing, on the embedded model"),
    ("dvc repro", "the stages that are out of date, this report last"),
    ("dvc metrics show", "the means of this page, in a terminal; dvc metrics diff compares with an earlier commit"),
    ("dvc plots show", "the charts of this page, offline; dvc plots diff sets two commits side by side"),
    ("cadiff verify", "every artefact against its manifest"),
    ("cadiff inspect ROOT", "products, types and problems of a data set"),
]


def write_report(params: Params, root: Path, out: Path, partial: bool = False) -> str:
    """Write metrics.parquet, metrics.json, paper.csv, summary.md, plots/*.svg and index.html into ``out``; the conclusion in a sentence.

    Args:
        params: the whole parameters; ``products`` x ``methods`` is what is reported.
        root: the folder that holds ``data/made``; paths in sample rows are relative to it or absolute.
        out: the folder to write into.
        partial: report what there is, and say on the page what is absent.

    Raises:
        CADiffError: names the first artefact that is absent (unless ``partial``) or does not read.
    """
    artefacts = Artefacts(params, Path(root), partial)
    joined = comparing.join_metrics(artefacts)
    frame = joined.to_pandas()
    dots = figures.product_dots(frame, "pixel_ap", list(params.products), list(params.methods))
    curves = training_curves(artefacts)
    page = render(artefacts, frame, dots, curves, Path(out))
    for name, chart in {"pixel-ap": dots, **curves}.items():  # for `dvc plots`
        write_text(Path(out) / "plots" / f"{name}.svg", figures.plain(chart))
    write_table(Path(out) / "metrics.parquet", joined)
    write_json(Path(out) / "metrics.json", comparing.means(frame))
    write_bytes(Path(out) / "paper.csv", paper.SOURCE.read_bytes())
    write_text(Path(out) / "summary.md", summary(artefacts, frame, Path(out)))
    write_text(Path(out) / "index.html", page)
    return lead(artefacts, frame)[0]


def render(artefacts: Artefacts, frame: pd.DataFrame, dots: Markup, curves: dict[str, Markup], out: Path) -> str:
    """The whole page, to lie in ``out``; every string is escaped by the template."""
    params = artefacts.params
    products, methods = list(params.products), list(params.methods)
    groups = gallery(artefacts)
    shown = {product: artefacts.showcase(product) for product in products}
    tokens, tokens_said = model_figures.token_map([row for product in products for row in artefacts.vectors(product)])
    context: dict[str, Any] = {
        "title": f"CADiff on {params.dataset.name}",
        "verdict": lead(artefacts, frame),
        "facts": facts(artefacts, frame, groups),
        "headline": tables.headline_table(frame, methods, detectors_of(params)),
        "gains": tables.gain_table(frame, methods),
        "approximate": approximate_said(artefacts),
        "dots": dots,
        "by_product": tables.product_table(frame, products, methods),
        "by_type": tables.type_table(frame, products, methods),
        "others": tables.other_table(frame, products, methods),
        "at_threshold": {product: tables.threshold_table(frame, product, methods, params.ship.methods) for product in products},
        "uncalibrated": take_away.uncalibrated(params),
        "asked": _by_product(params, lambda own: asked(own.detector.false_alarms)),
        "ships": bool(params.ship.methods),
        "shipped": {product: take_away.shipped(artefacts, product) for product in products},
        "groups": nested(groups),
        "intensities": intensity_range(groups),
        "glance": glance(groups),
        "quality": signals.quality_table(artefacts, shard_methods(artefacts)),
        "filtered": signals.filter_table(frame),
        "mask_sources": signals.source_table(artefacts),
        "signals": list(signals.LIMITS),
        "ladders": {product: model_figures.ladders(rows) for product, rows in shown.items()},
        "ladder_table": model_figures.ladder_table(shown),
        "attention": {
            product: model_figures.attention_strips(rows, artefacts.attention(product), params.for_product(product).window.cut == "whole")
            for product, rows in shown.items()
        },
        "compositions": {product: model_figures.compositions(rows) for product, rows in shown.items()},
        "edits": {product: model_figures.edits(artefacts, product, rows) for product, rows in shown.items()},
        "tokens": tokens,
        "tokens_said": tokens_said,
        "order": paper.order(paper.Run(frame, params, scale(params))),
        "histograms": histograms(groups, products),
        "maps": {product: map_rows(artefacts, product) for product in products},
        "curves": list(curves.values()),
        "films": {product: films(artefacts.validation(product)) for product in products},
        "paper": paper.paper_tables(
            frame, params, scale(params), artefacts.ablations(params.dataset.name).to_pandas(), comparing.join_published(artefacts)
        ),
        "images": image_table(artefacts, groups),
        "changed": [f"{key}: {inline(value)}" for key, value in changed(params)],
        "parameters": as_written({key: value for key, value in file_form(params).items() if key not in ("variants", "cluster")}),
        "digests": digests(params, groups),
        "versions": versions(),
        "commands": COMMANDS,
        "products": products,
        "sources": ["real", *shard_methods(artefacts)],
        "types": sorted({group.anomaly_type for group in groups}),
        "scale": scale(params),
        "protocol": protocol_of(params, frame),
        "detectors": [tables.named(method) for method in detectors_of(params)],
        "whole": all(params.for_product(product).window.cut == "whole" for product in products),
        "network": _by_product(params, lambda own: network_said(own.detector.network)),
        "sizes": sizes(params),
        "scored_at": scored_at(params),
        "large": params.dataset.size == "native" or params.dataset.size > EXACT_SIDE,
    }
    # Last, when everything has been looked for.
    context["absent"] = artefacts.absent
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cadiff.reporting"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # provenance in the record's order
    return environment.get_template("report.html.j2").render(context)


def summary(artefacts: Artefacts, frame: pd.DataFrame, out: Path) -> str:
    """The headline in Markdown, and the detectors to be taken away with their folders as seen from ``out``."""
    headline = tables.headline_table(frame, artefacts.params.methods, detectors_of(artefacts.params))
    said = " ".join([*lead(artefacts, frame), verdict.place_among(frame, sources_of(artefacts.params))]).strip()
    text = f"# CADiff: {scale(artefacts.params)}\n\n{said}\n\n"
    text += f"{headline.caption} Protocol: {protocol_of(artefacts.params, frame)}; {scored_at(artefacts.params)}.\n\n"
    text += tables.markdown(headline)
    if lines := take_away.summary_lines(artefacts, out):
        text += "\nTo take away:\n\n" + "".join(f"{line}\n" for line in lines)
    if artefacts.absent:
        text += "\nAbsent, so left out:\n\n" + "".join(f"- `{name}`\n" for name in artefacts.absent)
    return text


def scale(params: Params) -> str:
    """What this run was, in a few words."""
    return f"{params.dataset.name}, {size_said(params.dataset.size)}, {counted(len(params.products), 'product')}"


def size_said(size: int | str) -> str:
    return "pictures at their own size" if size == "native" else f"{size} px"


NETWORKS = {"unet": "a plain U-Net", "efficientnet-lite0": "a decoder on an encoder that knows ImageNet"}


def network_said(network: str) -> str:
    """What a detector's network is, in words."""
    if not network.startswith(SMP):
        return NETWORKS[network]
    encoder, _, weights = network.removeprefix(SMP).partition(":")
    return f"a decoder on segmentation-models-pytorch’s {encoder}, from {weights or 'ImageNet'}"


RULES = {
    "any": "any part of it", "quarter": "at least a quarter of it", "half": "at least half of it",
    "nearest": "the mask’s pixel nearest to its centre", "cut": "all that is bilinear between the four nearest pixels",
}  # fmt: skip


def scored_at(params: Params) -> str:
    """At which size pixels are scored, and by which rule a true mask is brought there, as a part of a sentence."""
    return _by_product(
        params, lambda own: f"pixels are scored at {own.metrics.size} px of the shorter side, where a pixel of the true mask counts if the "
        f"anomaly covers {RULES[own.metrics.mask_rule]} (recipe.metrics.mask_rule: {own.metrics.mask_rule})",
    )  # fmt: skip


def sizes(params: Params) -> list[tuple[str, str]]:
    """Every size that this run had, in the order in which a picture meets them."""
    size = params.dataset.size
    canvas = "each picture as it is" if size == "native" else f"{size} px of each picture’s shorter side, its aspect ratio kept"

    def window(own: Params) -> str:
        side = f"{own.base.size} x {own.base.size} px"
        if own.window.cut == "whole":
            return f"all of the picture, brought to {side}"
        return f"a square {own.window.context:g} times as large as what is masked, brought to {side}, drawn, brought back and set in"

    def detector(own: Params) -> str:
        seen = size_said(size) if own.detector.size is None else f"{own.detector.size} px"
        return f"{seen} of the shorter side, in squares of {own.detector.tile} px" if seen[0].isdigit() else seen

    said = scored_at(params)
    return [
        ("Canvas", f"{canvas}: masks, generated images, anomaly maps and exports (dataset.size)."),
        ("What the base draws", f"{_by_product(params, window)} (recipe.window, base.size)."),
        ("What the detector sees", f"{_by_product(params, detector)} (detector.size, detector.tile)."),
        ("What is scored", f"{said[0].upper()}{said[1:]}; where no pixel has as much, those with the most count."),
    ]


def _by_product(params: Params, said: Callable[[Params], str]) -> str:
    """What is said of the parameters, once where it is the same for all products."""
    found = {product: said(params.for_product(product)) for product in params.products}
    different = set(found.values())
    return different.pop() if len(different) == 1 else "; ".join(f"{product}: {text}" for product, text in found.items())


def detectors_of(params: Params) -> list[str]:
    """The methods that are detectors of their own, not a source of images for the common one."""
    return [method for method in params.methods if method not in sources_of(params)]


def sources_of(params: Params) -> list[str]:
    """The methods whose images the common detector is trained on."""
    return params.taking("detect")


def generators_of(params: Params) -> list[str]:
    """The methods that a generator may have been trained for."""
    found = params.taking("train")
    return found if ADDED not in params.methods else list(dict.fromkeys([SHOWN, *found]))


def protocol_of(params: Params, frame: pd.DataFrame) -> str:
    """What the common detector was measured under; the parameters' where nothing was measured yet."""
    return paper.protocols(paper.Run(frame, params, ""), sources_of(params)) or params.detector.protocol


def facts(artefacts: Artefacts, frame: pd.DataFrame, groups: list[Group]) -> list[tuple[str, str]]:
    """The four questions that a reader brings, answered from the data."""
    params = artefacts.params
    made = sum(group.total for group in groups if group.source == SHOWN)
    kinds = len({(group.product, group.anomaly_type) for group in groups if group.source == SHOWN})
    peers = [comparing.title_of(method) for method in sources_of(params) if method != OURS]
    others = [comparing.title_of(method) for method in detectors_of(params)]
    against = f"The same detector, trained the same way, on {'; on '.join(peers) or 'nothing else: no peer'}."
    if others:
        against += f" Beside it, detectors of their own: {'; '.join(others)}."
    by_product = frame.loc[frame["metric"] == "image_auroc"].drop_duplicates(["product"]).set_index("product")["n"]
    images, anomalies = by_product.sum(), sum(number for name, number in held_out(artefacts).items() if name in by_product)
    scored = frame[(frame["metric"] == "pixel_ap") & frame["method"].isin(sources_of(params))]
    seeds = set(scored["seed"])
    tested = f"{images:,} test images, {anomalies:,} of them anomalies" if images else "No test image"
    protocol = protocol_said(set(scored["protocol"])) + elsewhere(artefacts)
    generators = ", one of the generator" if WITH_SHOWN & set(params.methods) else ""
    own = frame[(frame["method"] == OURS) & ~frame["metric"].astype(str).str.contains("/")]
    realism = own[own["metric"].astype(str).str.startswith(("is(", "ic_lpips("))].groupby("metric")["value"].mean()
    measured = "; ".join(f"{tables.plain_name(str(name))} {value:.3f}" for name, value in realism.items())
    judged = f"Mean over products: {measured}." if measured else "Realism and diversity were not measured."
    shown = f"{counted(made, 'image')} for {counted(kinds, 'anomaly type')}"
    out = signals.left_out(frame)
    used = "all of them used, none picked out" if out is None else f"{out[0]:,} of {out[1]:,} left out by the filter’s rules, none by hand"
    return [
        ("Are the generated anomalies good?",
         " ".join(filter(None, [signals.spoken(artefacts), judged])) + f" Judge by eye: {shown}, {used}; "
         "the gallery shows them beside the real exemplars that they were learned from."),
        ("Do they help the detector?", " ".join([concluded(artefacts, frame)[0], verdict.place_among(frame, sources_of(params))]).strip()),
        ("Against what?", against),
        ("Can it be believed?",
         f"{tested}; {counted(len(seeds), 'seed')} of the detector{generators}; {protocol}. {overlap(artefacts)}{origin(params)}"),
    ]  # fmt: skip


def lead(artefacts: Artefacts, frame: pd.DataFrame) -> list[str]:
    """The page's first line and what follows it: that no defect is needed at all, where that is so; else the verdict."""
    without = verdict.needs_no_defect(frame, sources_of(artefacts.params))
    found = concluded(artefacts, frame)
    return [without, " ".join(found)] if without else found


def concluded(artefacts: Artefacts, frame: pd.DataFrame) -> list[str]:
    return verdict.verdict(frame, held_out(artefacts))


def held_out(artefacts: Artefacts) -> dict[str, int]:
    """How many anomalies each product is scored on; of products whose samples are absent, nothing."""
    samples = {product: artefacts.samples(product) for product in artefacts.params.products}
    return {product: sum(row.role == "held_out" for row in rows) for product, rows in samples.items() if rows}


def protocol_said(protocols: set[str]) -> str:
    """What was done under the protocols that were found, as a part of a sentence."""
    if not protocols:
        return "nothing was scored"
    some = "" if len(protocols) == 1 else "for some products "
    said = {
        "legacy": f"{some}the best epoch was chosen on the test set, so {'these' if not some else 'their'} figures are optimistic",
        "filtered": f"{some}generated images were left out by rules on their quality signals, none by hand",
    }
    found = [f"{said[name]} (protocol: {name})" for name in said if name in protocols]
    if "legacy" not in protocols:
        found.insert(0, "the last checkpoint is scored, and the run chose nothing by looking at test images")
    return "; ".join(found)


def elsewhere(artefacts: Artefacts) -> str:
    """What is not known of results that were made elsewhere, as the rest of a sentence; empty where there are none."""
    params = artefacts.params
    methods = [method for method in params.methods if params.kind_of(method) in ("images", "maps")]
    said = f"; what {', '.join(methods)} had seen when it was made is not known here" if methods else ""
    without = [method for method in methods if params.kind_of(method) == "images" and artefacts.lack_good(method)]
    if without:
        said += f"; {', '.join(without)} {WITHOUT_GOOD}"
    return said


def overlap(artefacts: Artefacts) -> str:
    """Whether any image's bytes are both trained or calibrated on and tested on."""
    rows = [row for product in artefacts.params.products for row in artefacts.samples(product)]
    seen = {row.image_sha256 for row in rows if row.role in ("normal", "calibration", "exemplar")}
    both = [
        row.sample_id for row in rows if row.role in ("held_out", "test_good") and row.image_sha256 in seen
    ]
    if not both:
        return "No test image is byte for byte a training image; near-duplicates were not looked for."
    number = f"{counted(len(both), 'test image')} equal{'s' if len(both) == 1 else ''}"
    return f"Caution: {number} a training image or one that set a threshold, such as {both[0]}."


def origin(params: Params) -> str:
    """What to know of the demo's own images, further sentences; empty for any other data set."""
    if params.dataset.layout != "demo":
        return ""
    return (
        " The demo’s images are drawn, not photographed; the embedded base learnt from other drawings of the same products, and the "
        "demo’s settings were chosen by such figures on the images of the seeds 0 and 1. How it fares on a product of yours, they do "
        "not tell."
    )


def nested(groups: list[Group]) -> dict[str, dict[str, list[Group]]]:
    """Groups by product, then type."""
    result: dict[str, dict[str, list[Group]]] = {}
    for group in groups:
        result.setdefault(group.product, {}).setdefault(group.anomaly_type, []).append(group)
    return result


def glance(groups: list[Group]) -> dict[str, list[Picture]]:
    """Per product, of its first type: the first exemplar, then CADiff's weakest, middle and strongest picture."""
    result: dict[str, list[Picture]] = {}
    for product, kinds in nested(groups).items():
        by_source = {group.source: group.pictures for group in next(iter(kinds.values())) if group.pictures}
        if "real" in by_source and SHOWN in by_source:
            own = by_source[SHOWN]
            chosen = [own[i] for i in sorted({0, len(own) // 2, len(own) - 1})]
            result[product] = [replace(by_source["real"][0], caption="real"), *chosen]
    return result


def intensity_range(groups: list[Group]) -> tuple[float, float] | None:
    """The smallest and largest w of all pictures shown, to one decimal outwards."""
    values = [p.intensity for group in groups for p in group.pictures if p.intensity is not None]
    return (np.floor(min(values) * 10) / 10, np.ceil(max(values) * 10) / 10) if values else None


def histograms(groups: list[Group], products: Iterable[str]) -> list[Markup]:
    """Per product: w of CADiff's images, then mask areas of real and generated anomalies."""
    charts = []
    for i, product in enumerate(products):
        mine = [group for group in groups if group.product == product]
        w = np.array([value for group in mine if group.source == SHOWN for value in group.intensities])
        areas = {
            name: 100 * np.array([area for group in mine if group.source == source for area in group.areas])
            for name, source in (("CADiff", SHOWN), ("real exemplars", "real"))
        }
        areas = {name: values for name, values in areas.items() if len(values)}
        if len(w):
            charts.append(figures.histogram({"CADiff": w}, f"w{i}", product, "intensity w"))
        if areas:
            charts.append(figures.histogram(areas, f"area{i}", product, "mask area, % of image"))
    return charts


def training_curves(artefacts: Artefacts) -> dict[str, Markup]:
    """Per product: the generator's losses, then every method's detector losses (a line per seed)."""
    charts: dict[str, Markup | None] = {}
    for i, product in enumerate(artefacts.params.products):
        seeds = artefacts.params.for_product(product).detector.seeds
        for method in generators_of(artefacts.params):
            own, end = {"": [artefacts.generator_curve(method, product)]}, "" if method == SHOWN else f"-{method}"
            title = f"{product}: {'generator' if method == SHOWN else method}"
            charts[f"generator-{product}{end}"] = figures.curves(own, f"generator{i}{end}", title)
        detectors: dict[str, list[pa.Table]] = {
            method: [artefacts.detector_curve(method, product, seed) for seed in seeds]
            for method in sources_of(artefacts.params)
        }
        charts[f"detectors-{product}"] = figures.curves(detectors, f"detectors{i}", f"{product}: detectors")
    return {name: chart for name, chart in charts.items() if chart}


def image_table(artefacts: Artefacts, groups: list[Group]) -> Table:
    """How many images of each role went in, and how many were generated."""
    roles = {"normal": "Normal", "calibration": "Calibration", "exemplar": "Exemplars", "held_out": "Held out", "test_good": "Test good"}
    sources = shard_methods(artefacts)
    rows = []
    for product in artefacts.params.products:
        found = [row.role for row in artefacts.samples(product)]
        counts = [found.count(role) for role in roles]  # type: ignore[arg-type]
        counts += [
            sum(g.total for g in groups if (g.product, g.source) == (product, source)) for source in sources
        ]
        rows.append(Row([product], [Cell(f"{count:,}", count) for count in counts]))
    columns = ["Product", *roles.values(), *(f"Made by {source}" for source in sources)]
    caption = "Images: trained on are normal and exemplars, calibration sets the threshold, tested on are held out and test good."
    return Table(caption, columns, rows, sortable=True)


def digests(params: Params, groups: list[Group]) -> list[tuple[str, str]]:
    """What identifies this run: the parameters' digest, then those found in the generated rows."""
    found = [("all parameters", params.digest_of(*RESULT_KEYS))]
    for product in params.products:
        rows = [p.row for g in groups if (g.product, g.source) == (product, SHOWN) for p in g.pictures]
        for name in ("base_digest", "generator_digest", "params_digest"):
            values = sorted({row[name] for row in rows})
            if values:
                found.append((f"{product}, {name}", ", ".join(values)))
    return found


def versions() -> list[tuple[str, str]]:
    """The packages that wrote this page."""
    return [
        ("python", platform.python_version()),
        *((name, importlib.metadata.version(name)) for name in PACKAGES),
    ]
