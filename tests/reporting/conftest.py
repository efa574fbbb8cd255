"""One fabricated set of artefacts, and one report of it, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from reporting_artefacts import fabricate, make_params

from cadiff.reporting import write_report


@pytest.fixture(scope="session")
def artefacts_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artefacts")
    fabricate(root)
    return root


@pytest.fixture(scope="session")
def report(artefacts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one whole report."""
    out = tmp_path_factory.mktemp("reports")
    write_report(make_params(), artefacts_root, out)
    return out
