"""The graph for real: `dvc repro` on a tiny data set, what a change reruns, and what `verify` finds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cadiff.cli import main as cadiff

STAGES_OF_TRAY = {
    "adapt@tray", "synthesize@tray-exemplars", "quality-synthesized@tray-exemplars", "detect-synthesized@tray-exemplars",
    "ship@tray-exemplars",
}  # fmt: skip


def dvc(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ran(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def code_of(*call: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        cadiff(list(call))
    return ended.value.code


@pytest.mark.slow
def test_repro_reruns_one_product_and_verify_finds_what_changed(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = dvc("repro")
    everything = ran(first)
    assert {"samples@plate", "report", *STAGES_OF_TRAY} <= everything
    assert Path("reports/index.html").is_file()
    assert "report: reports/index.html: Not compared" in first, "where the result is, and what it says"
    assert ran(dvc("repro")) == set()
    shutil.copy("data/made/evaluated/exemplars/plate/metrics.parquet", "data/ablations/ablations.parquet")
    assert ran(dvc("repro")) == {"report"}, "the ablations' table is none of the graph's, and makes the report out of date"

    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("samples_per_epoch: 8", "samples_per_epoch: 12"))
    assert ran(dvc("repro")) == {"settings", "detect-synthesized@tray-exemplars", "ship@tray-exemplars", "report"}
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("ship:\n  methods:\n  - exemplars\n", "ship:\n  methods: []\n"))
    shutil.rmtree("data/made/shipped")
    shutil.rmtree("data/made/reported/shipped")
    assert ran(dvc("repro")) == {"settings", "report"}, "none to take away is nothing that is missing"
    assert "shipped/exemplars" not in Path("reports/index.html").read_text()
    Path("params.yaml").write_text(text)
    assert ran(dvc("repro")) <= {"settings", "ship@plate-exemplars", "ship@tray-exemplars", "report"}
    assert code_of("verify") == 0
    assert "artefacts verify" in capsys.readouterr().out

    shard = next(Path("data/made/generated/exemplars/plate").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-7])
    Path("data/made/reported/quality/exemplars/tray.parquet").unlink()
    assert code_of("verify") == 1
    found = capsys.readouterr()
    assert "data/made/generated/exemplars/plate: has other content than dvc.lock says" in found.out
    assert "data/made/reported/quality/exemplars/tray.parquet: is missing" in found.out
    assert "dvc.lock: 2 of" in found.err
