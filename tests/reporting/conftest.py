"""One fabricated set of artefacts, and one report of it, for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reporting_artefacts import fabricate, make_params

from cadiff.reporting import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# --no-sandbox: containers and CI seldom allow Chromium's own; the page is ours. The others keep it off the net.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's own Chromium; playwright drives it and downloads none.

    Not for the session: its event loop is running until it ends, and Prefect, which looks for one, would behave as within a coroutine.
    """
    if CHROMIUM is None:
        pytest.skip("no Chromium here: none of chromium, chromium-browser, google-chrome is on PATH (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()
