"""presets/smoke.yaml from the first stage to the report, through DVC and through the pipeline."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cadiff.storage import sha256_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_smoke_preset_end_to_end(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("cadiff", "flows"):
        shutil.copytree(ROOT / folder, root / folder, ignore=skip)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / "presets" / "smoke.yaml", root / "params.yaml")
    (root / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    (root / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path / ".site"),
        "CADIFF_QUIET": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    environment.pop("PREFECT_API_URL", None)

    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    call("flows.pipeline", "--jobs", "2")
    assert (root / "reports" / "index.html").is_file()
    assert (root / "data/made/evaluated/both/nut/metrics.parquet").is_file()
    assert "Data and pipelines are up to date." in call("dvc", "repro")
    assert "artefacts verify" in call("cadiff.cli", "verify")
    first = sha256_folder(root / "data" / "made")
    shutil.rmtree(root / ".cadiff")
    call("dvc", "repro", "--force")
    assert sha256_folder(root / "data" / "made") == first, "a second run from scratch gives other bytes"
