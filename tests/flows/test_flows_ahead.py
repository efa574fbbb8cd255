"""What the parameters ask for is asked before a run, whichever of its stages are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest
from parameters import bare

from cadiff.errors import UsageError
from cadiff.records import SAMPLE_SCHEMA, SampleRow, to_table
from cadiff.storage import write_table
from flows.pipeline import Node, require_inputs


def planned(address: str) -> Node:
    return Node(address, frozenset(), accelerator=False, force=False)


def test_a_wish_that_comes_after_the_samples_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a product whose samples are up to date, so that their stage does not ask."""
    monkeypatch.chdir(tmp_path)
    row = SampleRow("tile/test/crack/0", "d", "tile", "crack", "exemplar", "0.png", "0_mask.png", 32, 32, "")
    write_table("data/made/samples/tile.parquet", to_table([row], SAMPLE_SCHEMA))
    native = {"dataset": {"layout": "mvtec", "root": "raw", "size": "native"}, "products": {"tile": {}}, "draw": {"products": []}}
    plan = [planned("train@tile-cadiff"), planned("report")]
    with pytest.raises(UsageError, match=r"0.png: 32x32, smaller than base.size \(64\)"):
        require_inputs(Path(), bare(**native, base={"size": 64}), plan)
    require_inputs(Path(), bare(**native, base={"size": 32}), plan)  # as it says
    (tmp_path / "raw/tile").mkdir(parents=True)
    require_inputs(Path(), bare(**native, base={"size": 64}), [*plan, planned("samples@tile")])  # which asks itself
