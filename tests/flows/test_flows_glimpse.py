"""The report so far, written while a run goes on."""

import shutil
from pathlib import Path

from flows.glimpse import PARTIAL, Glimpse

ROOT = Path(__file__).resolve().parents[2]


def test_a_page_is_written_after_a_stage_with_something_to_see_and_goes_when_the_report_is_there(tmp_path: Path) -> None:
    shutil.copy(ROOT / "presets" / "smoke.yaml", tmp_path / "params.yaml")
    said: list[str] = []
    glimpse, page = Glimpse(tmp_path, said.append), tmp_path / PARTIAL / "index.html"
    glimpse.after("samples@nut")
    glimpse.end(whole=False)
    assert (said, page.exists()) == ([], False), "there was nothing to see yet"
    glimpse.after("synthesize@nut-exemplars")
    glimpse.after("generate@nut-cadiff")
    glimpse.end(whole=False)
    assert said == [f"the report so far: {page}"], "one page at a time, and not after each stage"
    assert "nut" in page.read_text()
    glimpse.end(whole=True)
    assert not page.parent.exists(), "it would tell of less than the report beside it"


def test_what_goes_wrong_with_it_is_said_and_no_more(tmp_path: Path) -> None:
    said: list[str] = []
    glimpse = Glimpse(tmp_path, said.append)
    glimpse.after("generate@nut-cadiff")
    glimpse.end(whole=False)
    (line,) = said
    assert line.startswith("the report so far cannot be written (error: params.yaml: ")
    assert line.endswith("the run goes on")
