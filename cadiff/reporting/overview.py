"""All of a run at a glance: how many images there are, some of them, their intensities and masks, and how training went."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from cadiff.reporting import figures
from cadiff.reporting.answers import generators_of, sources_of
from cadiff.reporting.artefacts import SHOWN, Artefacts
from cadiff.reporting.gallery import Group, Picture, shard_methods
from cadiff.reporting.tables import Cell, Row, Table


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
