"""The report: reads what the stages left, writes the joined metrics and one HTML file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from cadiff.params import Params, as_written, changed, file_form, inline
from cadiff.reporting import comparing, figures, model_figures, paper, signals, tables, take_away, verdict
from cadiff.reporting.answers import detectors_of, facts, lead, protocol_of, sources_of
from cadiff.reporting.approximate import approximate_said
from cadiff.reporting.artefacts import Artefacts
from cadiff.reporting.claims import claims_tables
from cadiff.reporting.films import films
from cadiff.reporting.gallery import EXACT_SIDE, gallery, shard_methods
from cadiff.reporting.maps import map_rows
from cadiff.reporting.overview import glance, histograms, image_table, intensity_range, nested, training_curves
from cadiff.reporting.paper_measured import Run
from cadiff.reporting.paper_printed import SOURCE
from cadiff.reporting.run_said import by_product, digests, network_said, scale, scored_at, sizes, versions
from cadiff.storage import write_bytes, write_json, write_table, write_text
from cadiff.threshold_words import asked

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
    write_bytes(Path(out) / "paper.csv", SOURCE.read_bytes())
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
        "asked": by_product(params, lambda own: asked(own.detector.false_alarms)),
        "ships": bool(params.ship.methods),
        "shipped": {product: take_away.shipped(artefacts, product) for product in products},
        "groups": nested(groups),
        "intensities": intensity_range(groups),
        "glance": glance(groups),
        "quality": signals.quality_table(artefacts, shard_methods(artefacts)),
        "filtered": signals.filter_table(frame),
        "mask_sources": signals.source_table(artefacts),
        "second_look": signals.second_look_table(artefacts),
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
        "order": paper.order(Run(frame, params, scale(params))),
        "histograms": histograms(groups, products),
        "maps": {product: map_rows(artefacts, product) for product in products},
        "curves": list(curves.values()),
        "films": {product: films(artefacts.validation(product)) for product in products},
        "paper": paper.paper_tables(
            frame, params, scale(params), artefacts.ablations(params.dataset.name).to_pandas(), comparing.join_published(artefacts)
        ),
        "claims": claims_tables(artefacts.claims(params.dataset.name).to_pandas()),
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
        "network": by_product(params, lambda own: network_said(own.detector.network)),
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
