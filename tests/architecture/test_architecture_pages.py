"""Pages name files and what is in them: both are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PLACE = re.compile(r"`((?:cadiff|flows|benchmarks|tests|presets|docs)/[\w./-]+?\.(?:py|yaml|md|j2))(?:: (\w+)(?:\.(\w+))?)?`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_place_that_a_page_names_is_there(page: Path) -> None:
    missing = []
    for path, *names in PLACE.findall(page.read_text()):
        file = ROOT / path
        text = file.read_text() if file.is_file() else ""
        missing += [path] if not text else [f"{path}: {name}" for name in names if name and not re.search(rf"\b{name}\b", text)]
    assert not missing, f"{page.name} names what is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to what is not there"
