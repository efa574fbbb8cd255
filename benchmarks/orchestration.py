"""What orchestration costs: ``python benchmarks/orchestration.py [--repeat 3] [--server]``.

1. A graph of 15 products (presets/mvtec-sd15.yaml) in which nothing is to do: `dvc repro` and `python -m flows.pipeline`.
   Its artefacts are placeholders that DVC was told to accept; their contents do not matter to a run that does nothing.
2. 24 stages that do nothing but end: seconds per stage of `dvc repro`, of the pipeline, and (--server) of the pipeline
   with a Prefect server. Times 37 stages, over the demo's seconds: orchestration's share of a demo run.
"""

from __future__ import annotations

import argparse
import os
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

import httpx

ROOT = Path(__file__).resolve().parents[1]
DEMO_STAGES, DEMO_SECONDS = 37, 991  # docs/results.md
LIGHT = 24
LIGHT_YAML = """
stages:
  light:
    matrix: {key: [%s]}
    cmd: echo ${item.key} > out-${item.key}
    outs: ["out-${item.key}"]
"""


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
    shutil.copytree(ROOT / "cadiff", root / "cadiff", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / "presets" / "mvtec-sd15.yaml", root / "params.yaml")
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


def run(root: Path, home: Path, *arguments: str, **more: str) -> tuple[float, str]:
    """Wall seconds of a module's call, and what it said."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, env={**environment(home), **more}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
    return time.monotonic() - started, done.stdout


@contextmanager
def server(home: Path) -> Iterator[str]:
    """A Prefect server on a loopback port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", str(port)]
    process = subprocess.Popen(command, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.terminate()
        process.wait()


def per_stage(root: Path, home: Path, repeat: int, *arguments: str, **more: str) -> float:
    """Median seconds of a stage of nothing, start-up included."""
    times = []
    for _ in range(repeat):
        for path in [*root.glob("out-*"), root / "dvc.lock"]:
            path.unlink(missing_ok=True)
        shutil.rmtree(root / ".dvc" / "cache", ignore_errors=True)
        times.append(run(root, home, *arguments, **more)[0])
        assert len(list(root.glob("out-*"))) == LIGHT
    return statistics.median(times) / LIGHT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--server", action="store_true", help="with a Prefect server too")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load average before: {load:.1f} on {os.cpu_count()} cores{' (busy: these are upper bounds)' if load > 0.5 else ''}")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        count = accepted_project(home / "graph", home)
        for words in (("dvc", "repro"), ("flows.pipeline",)):
            found = [run(home / "graph", home, *words) for _ in range(given.repeat)]
            assert "up to date" in found[-1][1], found[-1][1]
            print(f"nothing to do, 15 products, {count} stages: {' '.join(words)}: {statistics.median(t for t, _ in found):.2f} s")
        new_project(home / "light")
        (home / "light" / "dvc.yaml").write_text(LIGHT_YAML % ", ".join(f"k{i}" for i in range(LIGHT)))
        shutil.copy(ROOT / "presets" / "demo.yaml", home / "light" / "params.yaml")
        for words in (("dvc", "repro"), ("flows.pipeline", "--jobs", "1"), ("flows.pipeline", "--jobs", "2")):
            tell(" ".join(words), per_stage(home / "light", home, given.repeat, *words))
        if given.server:
            with server(home) as url:
                for jobs in ("1", "2"):
                    words = ("flows.pipeline", "--jobs", jobs)
                    tell(" ".join(words) + " with a server", per_stage(home / "light", home, given.repeat, *words, PREFECT_API_URL=url))


def tell(what: str, seconds: float) -> None:
    share = 100 * DEMO_STAGES * seconds / DEMO_SECONDS
    print(f"{LIGHT} stages of nothing: {what}: {seconds:.2f} s a stage; x {DEMO_STAGES} = {share:.1f} % of a demo of {DEMO_SECONDS} s")


if __name__ == "__main__":
    main()
