"""`kill -9` of the pipeline, a guard, DVC, a stage or a Dask worker at random moments; then a restart (`make test-kill`).

After each: no process of the run is left, and what the restart ends with has every part once, none lost or doubled.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.pipeline import plan_stages

PARAMS = """
dataset: {root: data/raw, table: .}
draw: {products: []}
products: {a: {}, b: {}}
methods: {generators: [cadiff], synthesizers: [exemplars], unions: [], detectors: []}
external: {images: [], maps: []}
ship: {methods: []}
"""

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 24
PARTS = 5
VICTIMS = ("pipeline", "guard", "dvc", "stage", "worker")
STAGE = '''
"""A stage as cadiff's are: parts that are skipped when present, drawn here or on workers, written by one writer."""
import sys, time
from pathlib import Path

def draw(product, part):
    time.sleep(0.25)
    return f"{product} {part}"

def computed(cluster, product, parts):
    if cluster == "null":
        yield from ((index, draw(product, part)) for index, part in enumerate(parts))
    else:
        from cadiff.cluster import run_parts
        yield from run_parts(cluster, draw, (product,), [(part,) for part in parts])

if __name__ == "__main__":
    from work import draw  # by its module's name, as workers know it
    cluster, product, turn = sys.argv[1:]
    work = Path(".cadiff/parts") / f"{product}-{turn}"
    work.mkdir(parents=True, exist_ok=True)
    parts = [part for part in range(%d) if not (work / str(part)).exists()]
    for index, text in computed(cluster, product, parts):
        temporary = work / f".{parts[index]}.tmp"
        temporary.write_text(text + "\\n")
        temporary.rename(work / str(parts[index]))
        with open(f"trace-{turn}", "a") as trace:
            trace.write(f"{product} {parts[index]}\\n")
    made = Path("made") / product
    made.parent.mkdir(exist_ok=True)
    made.write_text(f"turn {turn}\\n" + "".join((work / str(part)).read_text() for part in range(%d)))
''' % (PARTS, PARTS)  # fmt: skip  # noqa: UP031
DVC_YAML = """
stages:
  make:
    matrix: {product: "${products}"}
    cmd: python work.py ${cluster} ${item.product} ${turn}
    params: [turn]
    outs: ["made/${item.product}"]
  report:
    cmd: cat made/a made/b > report
    deps: [made/a, made/b]
    outs: [report]
"""


def expected(turn: int) -> str:
    return "".join(f"turn {turn}\n" + "".join(f"{product} {part}\n" for part in range(PARTS)) for product in "ab")


def kind_of(process: psutil.Process) -> str:
    """Which of VICTIMS a process below the pipeline is; empty for others."""
    with contextlib.suppress(psutil.Error):
        words = " ".join(process.cmdline())
        if "guard.py" in words:
            return "guard"
        if "-m dvc" in words:
            return "dvc"
        if "spawn_main" in words:
            return "worker"
        if "work.py" in words and "sh -c" not in words:
            return "stage"
    return ""


def of_run(marker: str) -> list[int]:
    """Processes that inherited the run's environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def wait_until(ask: Callable[[], object], seconds: float = 120.0) -> object:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s"
        time.sleep(0.05)
    return answer


@pytest.mark.kill
@pytest.mark.skipif(sys.platform != "linux", reason="orphans are prevented by Linux' PDEATHSIG")
def test_nothing_is_lost_doubled_or_orphaned(project: Path) -> None:
    rng = random.Random(0)
    (project / "work.py").write_text(STAGE)
    (project / "dvc.yaml").write_text(DVC_YAML)
    killed: list[str] = []
    for turn in range(ROUNDS):
        victim = VICTIMS[turn % len(VICTIMS)]
        cluster = "local:2" if victim == "worker" else "null"
        values = PARAMS
        # dvc.yaml's ${cluster} and ${turn}; cadiff's own reader knows no `turn`, so it lies in a file of its own
        (project / "params.yaml").write_text(values)
        (project / "turn.yaml").write_text(f"turn: {turn}\ncluster: {cluster!r}\n")
        (project / "dvc.yaml").write_text("vars: [turn.yaml]\n" + DVC_YAML.replace("[turn]", "[{turn.yaml: [turn]}]"))
        marker = f"CADIFF_KILL={uuid.uuid4()}"
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{project}", "CADIFF_KILL": marker.partition("=")[2]}

        def start() -> subprocess.Popen:
            log = (project / "log.txt").open("a")
            return subprocess.Popen(
                [sys.executable, "-m", "flows.pipeline"], cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT  # noqa: B023
            )

        run = start()

        def prey() -> list[psutil.Process]:
            if victim == "pipeline":  # noqa: B023
                return [psutil.Process(run.pid)]  # noqa: B023
            with contextlib.suppress(psutil.NoSuchProcess):
                return [p for p in psutil.Process(run.pid).children(recursive=True) if kind_of(p) == victim]  # noqa: B023
            return []

        wait_until(lambda: prey() or run.poll() is not None)  # noqa: B023
        assert run.returncode is None, (project / "log.txt").read_text()[-3000:]
        time.sleep(rng.uniform(0, 6.0 if victim == "pipeline" else 1.2))
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            rng.choice(prey()).kill()
            killed.append(victim)
        run.wait(180)
        wait_until(lambda: not of_run(marker), 20)  # noqa: B023
        tries = 0
        while run.returncode != 0:
            tries += 1
            assert tries <= 2, (project / "log.txt").read_text()[-3000:]
            run = start()
            run.wait(180)
        assert not of_run(marker), "a finished run left a process"
        assert (project / "report").read_text() == expected(turn), f"round {turn}, {victim} killed"
        assert plan_stages(project) == []
        written = (project / f"trace-{turn}").read_text().splitlines()
        assert len(written) == len(set(written)), f"a part was written twice: {written}"
    print(f"killed: { {name: killed.count(name) for name in VICTIMS} }")
    assert len(killed) >= 20, killed
