"""A scheduled run from nothing: a server, a work pool, the project's own deployment, a worker and a schedule, each real,
on a loopback port and in a home of their own (`make test-schedule`)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: str, ask: Callable[[], object], seconds: float = 240.0) -> object:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.5)
    return answer


class Place:
    """A checkout with its own Prefect: environment, API address, and the processes that a user would start."""

    def __init__(self, checkout: Path, home: Path) -> None:
        self.checkout, self.port = checkout, free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.processes: list[subprocess.Popen] = []
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_UI_API_URL": self.api,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "CADIFF_HOME": str(checkout),
            "PYTHONPATH": str(ROOT),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }

    def start(self, name: str, *arguments: str) -> None:
        log = (self.checkout.parent / f"{name}.log").open("w")
        options = {"cwd": self.checkout, "env": self.environment, "stdout": log, "stderr": subprocess.STDOUT}
        self.processes.append(subprocess.Popen(["prefect", *arguments], start_new_session=True, **options))

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            ["prefect", *arguments], cwd=self.checkout, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path: str, body: dict | None = None) -> list[dict]:
        answer = httpx.post(f"{self.api}/{path}/filter", json=body or {}, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def logs(self) -> str:
        return "".join(path.read_text()[-3000:] for path in self.checkout.parent.glob("*.log"))


@pytest.fixture
def place(project: Path) -> Iterator[Place]:
    shutil.copy(ROOT / "prefect.yaml", project / "prefect.yaml")
    shutil.copytree(ROOT / "flows", project / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    place = Place(project, project.parent / "prefect")
    try:
        yield place
    finally:
        for process in reversed(place.processes):  # the worker first, so that it can say good-bye
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.schedule
def test_a_scheduled_run_completes_end_to_end(place: Place) -> None:
    place.start("server", "server", "start", "--port", str(place.port))
    wait_for("the server", place.is_up)
    place.call("work-pool", "create", "--type", "process", "cadiff")
    place.call("--no-prompt", "deploy", "--all")
    (deployment,) = place.ask("deployments")
    assert deployment["concurrency_limit"] == 1 or deployment["global_concurrency_limit"]["limit"] == 1
    (shipped,) = deployment["schedules"]
    assert not shipped["active"], "the schedule must be shipped paused"

    place.start("worker", "worker", "start", "--pool", "cadiff")
    place.call("deployment", "schedule", "create", "cadiff/nightly", "--interval", "15", "--replace", "--accept-yes")

    def finished() -> list[dict]:
        runs = [run for run in place.ask("flow_runs") if run["auto_scheduled"]]
        assert not [run for run in runs if run["state_type"] in ("FAILED", "CRASHED")], place.logs()
        return [run for run in runs if run["state_type"] == "COMPLETED"]

    (run,) = wait_for("a completed scheduled run", finished)[:1]
    place.call("deployment", "schedule", "clear", "cadiff/nightly", "--accept-yes")
    assert (place.checkout / "report").read_text() == "done\n" * 3

    found = place.ask("task_runs", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    tasks = [task for task in found if task["task_key"].startswith("stage_task")]  # the others stand for the nested flow runs
    assert {task["name"].rpartition("@")[0] or task["name"] for task in tasks} == {"make", "detect", "report"}
    assert {tuple(task["tags"]) for task in tasks if task["name"].startswith("detect")} == {("accelerator",)}
    nested = [other["name"] for other in place.ask("flow_runs") if other["parent_task_run_id"]]
    assert sorted(nested) == sorted(task["name"] for task in tasks), "a nested flow run for each stage"
    artifacts = {artifact["key"]: artifact for artifact in place.ask("artifacts")}
    rows = json.loads(artifacts["stages"]["data"])
    assert {row["state"] for row in rows} == {"done"}
    assert all(float(row["seconds"]) > 0 for row in rows)
