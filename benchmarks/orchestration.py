"""What orchestration costs: ``python benchmarks/orchestration.py [--repeat 3] [--server]``.

1. A graph of 15 products (presets/mvtec-sd15.yaml) in which nothing is to do: `dvc repro` and `python -m flows.pipeline`.
   Its artefacts are placeholders that DVC was told to accept; their contents do not matter to a run that does nothing.
2. 24 stages that do nothing but end: seconds per stage of `dvc repro`, of the pipeline, and (--server) of the pipeline
   with a Prefect server. Times the stages of this checkout's params.yaml, over the seconds that they took when they were
   last run here (`cadiff times`): orchestration's share of such a run. Where a stage has no time, no share is given.

Each time stands with the CPU time of all processes that were started and waited for, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from cadiff.stages import TIMES
from cadiff.storage import read_json

ROOT = Path(__file__).resolve().parents[1]
LIGHT = 24
PATIENCE = 120.0  # seconds that a server may take to start
LIGHT_YAML = """
stages:
  light:
    matrix: {product: "${products}"}
    cmd: echo ${item.product} > out-${item.product}
    outs: ["out-${item.product}"]
"""
LIGHT_PARAMS = """
dataset: {root: data/raw, table: .}
draw: {products: []}
products: {%s}
methods: {generators: [cadiff], synthesizers: [exemplars], unions: [], detectors: []}
external: {images: [], maps: []}
ship: {methods: []}
"""


class Took(NamedTuple):
    """Seconds of the clock, and of the CPU in all processes that were waited for."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.cpu:.2f} s of CPU time)"


def median(times: list[Took], share: int = 1) -> Took:
    """The median of each, divided by ``share``."""
    return Took(statistics.median(took.wall for took in times) / share, statistics.median(took.cpu for took in times) / share)


def environment(home: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"DVC_SITE_CACHE_DIR": str(home / ".site"), "PREFECT_HOME": str(home / ".prefect"), "PYTHONPATH": str(ROOT), "PATH": path}
    kept = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return {**kept, **own, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def new_project(root: Path) -> None:
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n")


def accepted_project(root: Path, home: Path) -> int:
    """The real graph of 15 products with every artefact in place and recorded; returns the number of stages."""
    from dvc.repo import Repo

    new_project(root)
    for folder in ("cadiff", "presets"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / "presets" / "mvtec-sd15.yaml", root / "params.yaml")
    run(root, home, "cadiff.stages", "settings")  # its files are read, not only compared
    with Repo(str(root)) as repo:
        stages = list(repo.index.stages)
        made = {Path(out.fs_path) for stage in stages for out in stage.outs}
        needed = {Path(dep.fs_path) for stage in stages for dep in stage.deps if dep.protocol == "local"}
    for path in sorted(made | needed):
        if path.exists():
            continue
        file = path if path.suffix else path / "placeholder"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{path.relative_to(root)}\n")
    run(root, home, "dvc", "commit", "--force", "--quiet")
    return len(stages)


def run(root: Path, home: Path, *arguments: str, **more: str) -> tuple[Took, str]:
    """What a module's call took, and what it said."""
    started, before = time.monotonic(), os.times()
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, env={**environment(home), **more}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Took(time.monotonic() - started, cpu), done.stdout


@contextmanager
def server(home: Path) -> Iterator[str]:
    """A Prefect server on a loopback port of its own.

    Raises:
        SystemExit: if it ends, or does not become healthy within PATIENCE seconds; with what it said last.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", str(port)]
    said = home / "server.log"
    with said.open("w") as log:
        process = subprocess.Popen(command, env=environment(home), stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE
        while not is_healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                state = "runs" if process.poll() is None else f"ended with exit code {process.poll()}"
                last = said.read_text()[-2000:]
                raise SystemExit(f"{' '.join(command)}: expected a healthy server within {PATIENCE:.0f} s; it {state}:\n{last}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.terminate()
        process.wait()


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def last_run(root: Path) -> tuple[int, float | None]:
    """The number of stages of a checkout's graph, and the seconds that they took there; None if one has no time."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        commands = [shlex.split(str(stage.cmd)) for stage in repo.index.stages if stage.cmd]
    # python -m cadiff.stages STAGE --product P --method M leaves STAGE-P-M.json
    names = ["-".join(word for word in words[3:] if not word.startswith("--")) for words in commands]
    files = [root / TIMES / f"{name}.json" for name in names]
    if not all(file.is_file() for file in files):
        return len(files), None
    return len(files), sum(read_json(file)["seconds"] for file in files)


def per_stage(root: Path, home: Path, repeat: int, *arguments: str, **more: str) -> Took:
    """What a stage of nothing takes at the median, start-up included."""
    times = []
    for _ in range(repeat):
        for path in [*root.glob("out-*"), root / "dvc.lock"]:
            path.unlink(missing_ok=True)
        shutil.rmtree(root / ".dvc" / "cache", ignore_errors=True)
        times.append(run(root, home, *arguments, **more)[0])
        assert len(list(root.glob("out-*"))) == LIGHT
    return median(times, LIGHT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--server", action="store_true", help="with a Prefect server too")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load average before: {load:.1f} on {os.cpu_count()} cores{' (busy: clock times are upper bounds)' if load > 0.5 else ''}")
    stages, seconds = last_run(ROOT)
    if seconds is None:
        print(f"this checkout's {stages} stages have not all been run here (.cadiff/times): no share of a run is given")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        count = accepted_project(home / "graph", home)
        for words in (("dvc", "repro"), ("flows.pipeline",)):
            found = [run(home / "graph", home, *words) for _ in range(given.repeat)]
            assert "up to date" in found[-1][1], found[-1][1]
            print(f"nothing to do, 15 products, {count} stages: {' '.join(words)}: {median([took for took, _ in found])}", flush=True)
        new_project(home / "light")
        (home / "light" / "dvc.yaml").write_text(LIGHT_YAML)
        (home / "light" / "params.yaml").write_text(LIGHT_PARAMS % ", ".join(f"k{i}: {{}}" for i in range(LIGHT)))
        for words in (("dvc", "repro"), ("flows.pipeline", "--jobs", "1"), ("flows.pipeline", "--jobs", "2")):
            tell(" ".join(words), per_stage(home / "light", home, given.repeat, *words), stages, seconds)
        if given.server:
            with server(home) as url:
                for jobs in ("1", "2"):
                    words = ("flows.pipeline", "--jobs", jobs)
                    cost = per_stage(home / "light", home, given.repeat, *words, PREFECT_API_URL=url)
                    tell(" ".join(words) + " with a server", cost, stages, seconds)


def tell(what: str, cost: Took, stages: int, seconds: float | None) -> None:
    """``cost`` is a stage's; the share is of the last run's work (its stages' own seconds, one after the other)."""
    print(f"{LIGHT} stages of nothing: {what}: a stage {cost}", end="" if seconds else "\n", flush=True)
    if seconds:
        share = 100 * stages * cost.wall / seconds
        print(f"; x {stages} = {share:.1f} % of the {seconds:.0f} s that the last run's stages took", flush=True)


if __name__ == "__main__":
    main()
