import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier

import pytest
import yaml
from dvc.lock import make_lock
from parameters import bare

from cadiff.errors import CADiffError, TransientError, UsageError
from cadiff.params import DrawParams
from flows.pipeline import (
    Node,
    devices_for,
    execute,
    pipeline,
    plan_stages,
    product_of,
    require_inputs,
    threads_for,
    uses_accelerator,
)
from flows.rwlock import mend_rwlock
from flows.stage import checkout_lock, end_all, passing_reason, run_stage

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


def planned(address: str) -> Node:
    return Node(address, frozenset(), accelerator=False, force=False)


def start(root: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore, and their children
    )


def wait_until(condition, seconds: float = 90.0) -> None:
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


def test_images_that_are_not_there_are_named_before_anything_runs(tmp_path: Path) -> None:
    params = bare(products={"tile": {}, "wood": {}}, draw=DrawParams(products=["wood"]))
    params = params.model_copy(update={"dataset": params.dataset.model_copy(update={"layout": "mvtec", "root": "raw"})})
    plan = [planned("samples@wood"), planned("samples@tile")]
    with pytest.raises(UsageError, match=r"raw/tile: expected this product's images, .*set dataset.root and products"):
        require_inputs(tmp_path, params, plan)
    require_inputs(tmp_path, params, [planned("train@tile-cadiff"), planned("report")])  # they were read already
    (tmp_path / "raw" / "tile").mkdir(parents=True)
    require_inputs(tmp_path, params, plan)


def test_weights_that_are_not_there_are_named_before_anything_runs(tmp_path: Path) -> None:
    params = bare(products={"tile": {"classifier": {"network": "resnet34", "weights": str(tmp_path / "r.pth")}}, "wood": {}})
    require_inputs(tmp_path, params, [planned("detect-generated@wood-cadiff"), planned("train@tile-cadiff")])
    with pytest.raises(UsageError, match=r"classifier\.weights: expected .*r\.pth, which is not there"):
        require_inputs(tmp_path, params, [planned("detect-generated@tile-cadiff")])


def test_the_pipeline_asks_for_its_inputs_first(project: Path) -> None:
    graph = yaml.safe_load((project / "dvc.yaml").read_text())
    graph["stages"]["samples"] = {"foreach": ["a"], "do": {"cmd": "echo read > samples-${item}", "outs": ["samples-${item}"]}}
    (project / "dvc.yaml").write_text(yaml.safe_dump(graph))
    with pytest.raises(UsageError, match=r"/a: expected this product's images, but it is not there"):
        pipeline.fn(root=project)
    assert not (project / "samples-a").exists()
    assert not (project / "log").exists(), "no other stage ran either"


def test_a_checkout_that_another_dvc_holds_is_a_failure_that_may_pass(project: Path) -> None:
    folder = project / ".dvc" / "tmp"
    folder.mkdir(exist_ok=True)
    held = make_lock(str(folder / "lock"), tmp_dir=str(folder))
    with held, pytest.raises(TransientError, match="another DVC is at work here"):
        plan_stages(project)


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_needs_a_stage_that_was_not_run_is_not_run(jobs: int) -> None:
    """However far down, and when all else that it needs is done before the failure is known."""

    def call(node: Node, slot: int | None) -> None:
        if node.address == "make@b":
            time.sleep(0.2)
            raise CADiffError("no cloth left")

    needs = {"make@a": (), "make@b": (), "detect@b": ("make@b",), "report": ("make@a", "detect@b"), "page": ("report",)}
    plan = [Node(address, frozenset(needed), False, False) for address, needed in needs.items()]
    outcomes = {outcome.stage: outcome.state for outcome in execute(plan, call, jobs, lambda news: None)}
    blocked = dict.fromkeys(("detect@b", "report", "page"), "not run")
    assert outcomes == {"make@a": "done", "make@b": "failed", **blocked}


def test_independent_stages_run_side_by_side(project: Path) -> None:
    plan = [node for node in plan_stages(project) if node.address.startswith("make")]
    all_at_work = Barrier(3)  # one after the other, none would ever leave it
    outcomes = execute(plan, lambda node, slot: all_at_work.wait(60), 3, lambda news: None)
    assert [outcome.state for outcome in outcomes] == ["done"] * 3


def test_each_accelerator_has_one_stage_at_a_time(project: Path) -> None:
    held: set[int] = set()
    most = 0

    def call(node: Node, slot: int | None) -> None:
        nonlocal most
        assert slot is not None
        assert slot not in held, "two stages on one accelerator"
        held.add(slot)
        most = max(most, len(held))
        time.sleep(0.1)
        held.remove(slot)

    plan = [Node(f"train@{k}", frozenset(), True, False) for k in range(6)]
    execute(plan, call, 4, lambda news: None, accelerators=2)
    assert most == 2
    assert uses_accelerator({"accelerator": True, "cluster": True}, remote=False)
    assert not uses_accelerator({"accelerator": True, "cluster": True}, remote=True), "its parts are computed elsewhere"
    assert uses_accelerator({"accelerator": True}, remote=True)


@pytest.mark.parametrize(
    ("status", "line", "expected"),
    [
        (255, "ERROR: failed to reproduce 'a': failed to run: sh x, exited with 75", "it said that the cause may pass"),
        (255, "ERROR: failed to reproduce 'a': failed to run: sh x, exited with -9", "it was killed from outside"),
        (-9, "", "it was killed from outside"),
        (255, "ERROR: 'made/a' is busy, it is being blocked by:", "another process held DVC's lock"),
        (255, "ERROR: failed to reproduce 'a': failed to run: sh x, exited with 1", None),
        (255, "ERROR: failed to reproduce 'a': failed to run: sh x, exited with 2", None),
    ],
)
def test_only_what_may_pass_is_tried_again(status: int, line: str, expected: str | None) -> None:
    reason = passing_reason(status, ["train 3/4", line, "more"])
    assert reason == expected or (expected and reason and reason.startswith(expected))


def test_a_second_try_is_logged_with_its_reason(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.stage.PAUSE", 0.0)
    (project / "work-a.sh").write_text("echo try >> tries; test -e tried || { touch tried; exit 75; }\n")
    (project / "work-b.sh").write_text("echo try >> tries-b; exit 1\n")
    with pytest.raises(CADiffError, match=r"1 of 4 stages failed"):
        pipeline.fn(["a", "b"], root=project)
    assert (project / "tries").read_text().split() == ["try"] * 2
    assert (project / "tries-b").read_text().split() == ["try"], "an error of the work itself was tried again"
    assert "[make@a] make@a failed, but it said that the cause may pass: attempt 2 of 2 in 0 s" in capsys.readouterr().out


def test_one_pipeline_at_a_time_on_a_checkout(project: Path) -> None:
    said: list[str] = []
    other = rf"another pipeline run \(process {os.getpid()}\) works on this checkout"
    with checkout_lock(project), pytest.raises(CADiffError, match=other), checkout_lock(project, said.append, patience=0.1):
        pass
    (line,) = said
    assert re.fullmatch(other + ": waiting 0 s for it to end", line)
    with checkout_lock(project, patience=0.1):
        pass


@pytest.mark.parametrize("left", ["", '{"read": {"/somewhere": [{"pid": 1, "c'])
def test_a_lock_file_that_a_killed_dvc_left_cut_off_stops_no_run(
    project: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    """DVC itself reads it no more: without the mending the run ends in RWLockFileCorruptedError."""
    path = project / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(left)
    assert pipeline.fn(["a"], root=project)[0].state == "done"
    assert f"{path}: removed, a DVC that was killed had left it cut off" in capsys.readouterr().out


def test_a_lock_file_that_is_whole_stays(project: Path) -> None:
    path, said = project / ".dvc" / "tmp" / "rwlock", []  # type: tuple[Path, list[str]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"read": {}, "write": {}}')
    mend_rwlock(project, said.append)
    assert path.is_file()
    assert not said


SETTINGS = """
  settings:
    cmd: mkdir -p made/settings; for p in a b b-2; do grep "^# $p" params.yaml > made/settings/$p; done; echo settings >> log
    deps: [params.yaml]
    outs: [made/settings]
"""


def test_parameters_are_resolved_before_a_run_is_planned(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that what reads none of what was edited is not planned."""
    graph = (project / "dvc.yaml").read_text().replace("stages:\n", f"stages:{SETTINGS}", 1)
    graph = graph.replace('deps: ["work-${item.product}.sh"]', 'deps: ["work-${item.product}.sh", "made/settings/${item.product}"]')
    (project / "dvc.yaml").write_text(graph)
    params = (project / "params.yaml").read_text() + "# a 1\n# b 1\n# b-2 1\n"
    (project / "params.yaml").write_text(params)
    assert len(pipeline.fn(root=project)) == 7
    (project / "params.yaml").write_text(params.replace("# b 1", "# b 2"))
    capsys.readouterr()
    assert [outcome.stage for outcome in pipeline.fn(root=project)] == ["make@b", "detect@b", "report"]
    assert "3 stages to run: make@b, detect@b, report" in capsys.readouterr().out
    (project / "params.yaml").write_text(params.replace("# b 1", "# b 2") + "# nobody reads this\n")
    assert pipeline.fn(root=project) == []
    assert (project / "log").read_text().split().count("settings") == 3
    assert pipeline.fn(root=project, force="settings") == []
    assert (project / "log").read_text().split().count("settings") == 4


def test_nothing_is_started_once_the_run_is_ending(project: Path) -> None:
    (project / "work-a.sh").write_text("touch began\n")
    with checkout_lock(project):
        end_all()
        with pytest.raises(CADiffError, match="make@a: not started, because the run is ending"):
            run_stage("make@a", project)
    assert not (project / "began").exists()
    assert pipeline.fn(["a"], root=project)[0].state == "done", "the next run cannot start a stage"


@pytest.mark.parametrize(("visible", "devices"), [(None, ["0", "1"]), ("2,5,7", ["2", "5"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])])
def test_accelerators_are_among_the_visible_devices(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, devices: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices_for(2) == devices
    assert devices_for(1) == [None], "a single one is left as the user set it"


def test_stages_that_compute_side_by_side_share_the_cores(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the stage's own process has it; what the user set stays, and one at a time has all of them."""
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_for(count) for count in (1, 2, 4, 12)] == [{}, *({"OMP_NUM_THREADS": each} for each in ("3", "1", "1"))]
    (project / "dvc.yaml").write_text("stages:\n  said: {cmd: 'printenv OMP_NUM_THREADS > said || echo unset > said', outs: [said]}\n")
    for count, own, expected in ((1, None, "unset"), (2, None, "3"), (2, "5", "5")):
        if own is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", own)
        pipeline.fn(jobs=2, root=project, accelerators=count, force="said")
        assert (project / "said").read_text().strip() == expected


def test_counts_that_make_no_sense_are_usage_errors(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="jobs: expected at least 1, found 0"):
        pipeline.fn(jobs=0, root=project)
    with pytest.raises(UsageError, match="accelerators: expected at least 1, found -1"):
        pipeline.fn(accelerators=-1, root=project)
    for visible, count in (("3", 1), ("", 0), ("0,-1,1", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(UsageError, match=f"at most the {count} that CUDA_VISIBLE_DEVICES={visible} names, found 2"):
            pipeline.fn(accelerators=2, root=project)


@pytest.mark.slow
def test_24_independent_stages_at_8_at_once_are_all_recorded(project: Path) -> None:
    stages = "".join(f"  s{k}: {{cmd: echo {k} > out-{k}, outs: [out-{k}]}}\n" for k in range(24))
    (project / "dvc.yaml").write_text(f"stages:\n{stages}")
    outcomes = pipeline.fn(jobs=8, root=project)
    assert [outcome.state for outcome in outcomes] == ["done"] * 24
    assert set(yaml.safe_load((project / "dvc.lock").read_text())["stages"]) == {f"s{k}" for k in range(24)}
    assert plan_stages(project) == []


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
    wait_until(lambda: alive(marker))
    run.send_signal(sign)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9, signal.SIGINT: 130}[sign], errors
    assert "Traceback" not in errors
    wait_until(lambda: not alive(marker))
    (project / "work-a.sh").write_text("true\n")
    outcomes = pipeline.fn(["a"], root=project)
    assert {outcome.state for outcome in outcomes} == {"done"}, "a lock was left behind"
