"""A folder with Stable Diffusion 1.5's exact classes and file names goes through the whole graph, from pictures to report and handed-over
detector."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from base import write_sd15_base
from parameters import file_text, values_of

from cadiff.records import GENERATED_SCHEMA, METRIC_SCHEMA
from cadiff.storage import read_table


@pytest.mark.slow
def test_stable_diffusions_folder_goes_through_the_whole_graph(repository: Path) -> None:
    values = values_of("smoke")
    values["dataset"] |= {"name": "plates", "layout": "mvtec", "root": str(repository.parent / "raw"), "size": 64}
    values["draw"]["products"] = []
    values["products"] = {"plate": {}}
    values["methods"] |= {"unions": ["both"], "detectors": ["patchcore"]}
    values["base"] |= {"path": str(write_sd15_base(repository.parent / "sd15")), "size": 64}
    values["control"] |= {"start": "copy", "heads": 4}
    (repository / "params.yaml").write_text(file_text(values), encoding="utf-8")

    def repro() -> str:
        done = subprocess.run([sys.executable, "-m", "dvc", "repro"], capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    repro()
    made = repository / "data/made"
    drawn = read_table(made / "generated/cadiff/plate/spot.parquet", GENERATED_SCHEMA)
    assert drawn.num_rows == values["generate"]["per_type"]
    for method in ("cadiff", "exemplars", "both", "patchcore"):
        rows = read_table(made / f"evaluated/{method}/plate/metrics.parquet", METRIC_SCHEMA)
        assert "pixel_ap" in rows["metric"].to_pylist(), method
    assert list((made / "shipped/cadiff/plate").glob("detector.onnx"))
    assert "CADiff images" in (repository / "reports/index.html").read_text(encoding="utf-8")
    assert "Running stage" not in repro(), "nothing of it is out of date"
