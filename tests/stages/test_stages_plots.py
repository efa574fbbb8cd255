"""`dvc metrics` and `dvc plots` on what the report writes: as declared in dvc.yaml, and without the net."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cadiff.storage import write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="{}" height="9"/></svg>\n'


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with the project's dvc.yaml and a report's figures, committed."""
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / ".dvc" / "html", tmp_path / ".dvc" / "html")
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc" / "config")
    write_json(tmp_path / "reports/metrics.json", {"cadiff": {"pixel_ap": 0.5}})
    write_text(tmp_path / "reports/plots/pixel-ap.svg", SQUARE.format(3))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".site"))
    run("git", "init", "-q")
    run("git", "add", "-A")
    run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "one")
    return tmp_path


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(*arguments: str) -> str:
    return run(sys.executable, "-m", "dvc", *arguments)


def test_metrics_show_and_diff(committed: Path) -> None:
    assert "0.5" in dvc("metrics", "show")
    write_json(committed / "reports/metrics.json", {"cadiff": {"pixel_ap": 0.75}})
    row = next(line for line in dvc("metrics", "diff").splitlines() if "cadiff.pixel_ap" in line)
    assert row.split()[-3:] == ["0.5", "0.75", "0.25"]


def test_plots_show_every_chart_and_ask_no_host(committed: Path) -> None:
    write_text(committed / "reports/plots/detectors-nut.svg", SQUARE.format(9))
    address = dvc("plots", "show").strip()
    page = Path(address.removeprefix("file://"))
    text = page.read_text()
    shown = [page.parent / name for name in re.findall(r'src="([^"]+)"', text)]
    assert sorted(path.read_text() for path in shown) == [SQUARE.format(3), SQUARE.format(9)]
    assert "http" not in text
    assert "<script" not in text
