"""The report's sentence on masks that stem from boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from parameters import bare

from cadiff.records import METRIC_SCHEMA, SAMPLE_SCHEMA, MetricRow, SampleRow, to_table
from cadiff.reporting.approximate import approximate_said
from cadiff.reporting.artefacts import Artefacts, ablations_of
from cadiff.storage import write_table


def write_product(root: Path, product: str, rows: list[SampleRow], approximate: bool) -> None:
    """A product's samples, and one figure by pixel of the method ``cadiff``."""
    write_table(root / f"data/made/samples/{product}.parquet", to_table(rows, SAMPLE_SCHEMA))
    figure = MetricRow("demo", product, "cadiff", "unet", "pixel_ap", 0.5, 0, 4, "strict", None, "", approximate)
    write_table(root / f"data/made/evaluated/cadiff/{product}/metrics.parquet", to_table([figure], METRIC_SCHEMA))


def test_products_with_approximate_masks_are_told_and_no_others(tmp_path: Path, nut_samples: list[SampleRow]) -> None:
    boxed = [replace(row, approximate=row.anomaly_type is not None and row.sample_id.endswith(("0", "5"))) for row in nut_samples]
    learned, scored = ([row.approximate for row in boxed if row.role == role] for role in ("exemplar", "held_out"))
    redrawn = [replace(row, approximate=row.approximate and row.role == "exemplar") for row in boxed]  # what it is scored on
    for product, rows, approximate in (("nut", boxed, True), ("redrawn", redrawn, False), ("gear", nut_samples, False)):
        write_product(tmp_path, product, rows, approximate)
    of_nut, of_redrawn = approximate_said(Artefacts(bare(products={"nut": {}, "redrawn": {}, "gear": {}}), tmp_path, partial=True))
    assert of_nut.startswith("nut: masks that stem from boxes, and so are approximate, are ")
    assert f"{sum(learned)} of {len(learned)} exemplars and {sum(scored)} of {len(scored)} held-out anomalies" in of_nut
    assert "Its pixel figures rest on them" in of_nut
    assert sum(learned) > 0
    assert sum(scored) > 0
    assert f"{sum(learned)} of {len(learned)} exemplars and 0 of {len(scored)} held-out anomalies. None of its figures" in of_redrawn


def test_ablations_of_before_the_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / ablations_of("demo")
    row = MetricRow("demo", "nut", "cadiff", "MTL", "pixel_ap", 0.5, 0, 4, "strict", None, "")
    write_table(path, to_table([row], METRIC_SCHEMA).drop(["approximate"]))
    table = Artefacts(bare(products={"nut": {}}), tmp_path).ablations("demo")
    assert table.schema.names == METRIC_SCHEMA.names
    assert table.to_pylist() == [{**to_table([row], METRIC_SCHEMA).to_pylist()[0], "approximate": None}]
