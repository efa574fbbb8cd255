"""A run that is killed again and again, its parts on Dask workers, against one that was left alone: the same bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from parameters import file_text, values_of
from test_flows_smoke import checkout

from cadiff.storage import sha256_file, sha256_folder

KILLS = 3


def one_product(root: Path, cluster: str | None) -> None:
    """The smoke preset on one product, with a checkpoint after every step."""
    values = values_of("smoke")
    values["draw"]["products"], values["products"], values["cluster"] = ["nut"], {"nut": {}}, cluster
    values["train"]["steps"] = 6
    values["detector"] |= {"samples_per_epoch": 64, "seeds": [0, 1]}
    (root / "params.yaml").write_text(file_text(values))
    code = root / "cadiff" / "checkpoint.py"
    text = code.read_text().replace("SECONDS = 30.0", "SECONDS = 1e-6").replace("SHARE = 0.03", "SHARE = 1e6")
    assert "SECONDS = 1e-6" in text
    assert "SHARE = 1e6" in text
    code.write_text(text)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="orphans are prevented by Linux' PDEATHSIG")
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm" / "repository", tmp_path / "killed" / "repository"
    call_calm, call_killed = checkout(calm), checkout(killed)
    one_product(calm, None)
    one_product(killed, "local:2")
    started = time.monotonic()
    call_calm("flows.pipeline", "--jobs", "1")
    length = time.monotonic() - started
    rng, environment = random.Random(0), {**os.environ, "CADIFF_QUIET": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "killed" / ".site")}
    environment.pop("PREFECT_API_URL", None)
    kills = 0
    for _ in range(KILLS):
        run = subprocess.Popen([sys.executable, "-m", "flows.pipeline"], cwd=killed, env=environment, stdout=subprocess.DEVNULL)
        try:
            run.wait(rng.uniform(0.3, 0.7) * length)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            kills += 1
    assert kills, "no run was under way long enough to be killed"
    call_killed("flows.pipeline")
    assert sha256_folder(killed / "data" / "made") == sha256_folder(calm / "data" / "made")
    assert sha256_file(killed / "reports" / "metrics.parquet") == sha256_file(calm / "reports" / "metrics.parquet")
