import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cadiff.errors import CADiffError, UsageError
from flows.pipeline import execute, pipeline, plan_stages, product_of

ROOT = Path(__file__).resolve().parents[2]


def alive(marker: str) -> list[int]:
    """Processes whose command line holds ``marker``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if marker.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def addresses(root: Path, *products: str, force: str | None = None) -> set[str]:
    return {node.address for node in plan_stages(root, products, force)}


def start(root: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_product_of_takes_the_longest_product() -> None:
    products = ["b", "b-2"]
    assert product_of("make@b-2-cadiff", products) == "b-2"
    assert product_of("make@b-cadiff", products) == "b"
    assert product_of("report", products) is None
    assert product_of("draw@other", products) == "other"


def test_runs_only_what_is_out_of_date_and_one_failure_leaves_the_others(project: Path) -> None:
    (project / "work-b.sh").write_text("echo 'error: no cloth left' >&2; exit 3\n")
    with pytest.raises(CADiffError, match=r"1 of 7 stages failed, 2 were not run .*make@b:.*no cloth left"):
        pipeline.fn(jobs=3, root=project)
    assert (project / "found-a").exists()
    assert (project / "found-b-2").exists()
    assert not (project / "report").exists()
    log = (project / "log").read_text().split()
    assert log == ["start", "end"] * 2, "two accelerator stages overlapped"

    assert addresses(project) == {"make@b", "detect@b", "report"}
    (project / "work-b.sh").write_text("true\n")
    assert {outcome.state for outcome in pipeline.fn(root=project)} == {"done"}
    assert (project / "report").read_text() == "done\n" * 3
    assert pipeline.fn(root=project) == []

    (project / "made" / "a").write_text("changed\n")
    assert addresses(project) == {"make@a", "detect@a", "report"}
    assert addresses(project, "b") == set()
    assert addresses(project, "a", force="detect") == {"make@a", "detect@a", "report"}
    assert addresses(project, "b", force="detect") == {"detect@b"}, "the report waits for product a"


def test_plan_is_in_order_and_its_needs_are_the_edges_of_dvc(project: Path) -> None:
    plan = plan_stages(project)
    seen: set[str] = set()
    for node in plan:
        assert node.needs <= seen
        seen.add(node.address)
    needs = {node.address: node.needs for node in plan}
    assert needs["report"] == {"detect@a", "detect@b", "detect@b-2"}
    assert needs["detect@a"] == {"make@a"}
    assert [node.accelerator for node in plan if node.address.startswith("detect")] == [True] * 3


def test_unknown_products_and_stages_are_usage_errors(project: Path) -> None:
    with pytest.raises(UsageError, match=r"products c: not in params.yaml; it has a, b, b-2"):
        plan_stages(project, ["c"])
    with pytest.raises(UsageError, match="--force nothing: no such stage"):
        plan_stages(project, force="nothing")


def test_independent_stages_run_side_by_side(project: Path) -> None:
    plan = [node for node in plan_stages(project) if node.address.startswith("make")]
    started = time.monotonic()
    outcomes = execute(plan, lambda node: time.sleep(0.4), 3, lambda outcome: None)
    assert time.monotonic() - started < 0.8
    assert [outcome.state for outcome in outcomes] == ["done"] * 3


@pytest.mark.parametrize(
    "sign",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="orphans are prevented by Linux' PDEATHSIG")
def test_nothing_outlives_a_stopped_pipeline(project: Path, sign: signal.Signals) -> None:
    marker = f"31.4{os.getpid()}{int(sign)}"
    (project / "work-a.sh").write_text(f"touch began; sleep {marker}\n")
    run = start(project, "--products", "a")
    wait_until(lambda: (project / "began").exists())
    assert alive(marker)
    run.send_signal(sign)
    _, errors = run.communicate(timeout=20)
    assert run.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9, signal.SIGINT: 130}[sign], errors
    assert "Traceback" not in errors
    wait_until(lambda: not alive(marker))
    (project / "work-a.sh").write_text("true\n")
    outcomes = pipeline.fn(["a"], root=project)
    assert {outcome.state for outcome in outcomes} == {"done"}, "a lock was left behind"
