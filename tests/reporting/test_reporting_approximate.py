"""The report's sentence on masks that stem from boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from parameters import bare

from cadiff.records import SAMPLE_SCHEMA, SampleRow, to_table
from cadiff.reporting.approximate import approximate_said
from cadiff.reporting.artefacts import Artefacts
from cadiff.storage import write_table


def test_products_with_approximate_masks_are_told_and_no_others(tmp_path: Path, nut_samples: list[SampleRow]) -> None:
    params = bare(products={"nut": {}, "gear": {}})
    boxed = [replace(row, approximate=row.anomaly_type is not None and row.sample_id.endswith(("0", "5"))) for row in nut_samples]
    for product, rows in (("nut", boxed), ("gear", nut_samples)):
        write_table(tmp_path / "data/made/samples" / f"{product}.parquet", to_table(rows, SAMPLE_SCHEMA))
    learned, scored = ([row.approximate for row in boxed if row.role == role] for role in ("exemplar", "held_out"))
    (said,) = approximate_said(Artefacts(params, tmp_path, partial=False))
    assert said.startswith("nut: masks that stem from boxes, and so are approximate, are ")
    assert f"{sum(learned)} of {len(learned)} exemplars and {sum(scored)} of {len(scored)} held-out anomalies" in said
    assert sum(learned) > 0
    assert sum(scored) > 0
