"""Names are whatever a folder may be called: the page shows them, and runs none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import reporting_artefacts
from reporting_artefacts import fabricate, make_params

from cadiff.names import check_type
from cadiff.reporting import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGE, SCRIPT = "<img src=x onerror=alert(1)>", "\"'><script>alert(2)<!-- $a^$ &lt;"


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a report on types that are called so, in their images' names too."""
    for name in (IMAGE, SCRIPT):
        check_type(name)
    monkeypatch.setattr(reporting_artefacts, "TYPES", {"fabric": [IMAGE, SCRIPT]})
    monkeypatch.setattr(reporting_artefacts, "LEVEL", {"cadiff": 0.72, "exemplars": 0.66})
    fabricate(tmp_path)
    dataset = {"size": reporting_artefacts.SIZE, "calibration": 0.2, "name": "<i>set</i>"}
    params = make_params(products={"fabric": {}}, methods=["cadiff", "exemplars"], detector={"seeds": [0, 1, 2]}, dataset=dataset)
    write_report(params, tmp_path, tmp_path / "reports")
    return tmp_path / "reports"


def test_names_that_are_markup_are_shown_and_nothing_of_them_runs(browser: Browser, hostile: Path) -> None:
    page = browser.new_context().new_page()
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
    page.goto((hostile / "index.html").as_uri())
    page.wait_for_load_state("networkidle")
    for kind in (IMAGE, SCRIPT):
        page.locator("#filter").get_by_label("Anomaly type", exact=True).select_option(kind)
        assert page.locator(".kind:visible").get_attribute("data-type") == kind
    page.reload()  # the choice is in the address
    assert page.locator(".kind:visible").get_attribute("data-type") == SCRIPT
    text = page.locator("body").inner_text()
    assert IMAGE in text
    assert "<i>set</i>" in text
    assert page.locator("img[src='x'], [onerror], [onclick], i:text-is('set')").count() == 0
    assert page.locator("script").count() == page.locator("head script, body > script").count()
    assert page.locator("script", has_text="alert(").count() == 0
    assert said == []
