"""The whole pipeline: walks DVC's own graph and runs what is out of date, independent stages side by side.

``python -m flows.pipeline [--products P ...] [--force STAGE] [--jobs N]`` runs the same code with and without
Prefect: where an API is set (``PREFECT_API_URL`` or the profile) it is one flow run whose tasks are the
stages, elsewhere plain calls, and no server is started. The edges are dvc.yaml's; none is written here.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal
from uuid import UUID

from prefect import flow
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import get_current_settings

from cadiff.errors import CADiffError, UsageError, exit_code
from cadiff.params import load_params
from flows.stage import end_all, in_run, run_stage, stage_task, teller

State = Literal["done", "failed", "not run"]


@dataclass(frozen=True)
class Node:
    """A stage that has to run. ``needs`` are the stages of the same plan that must succeed before it."""

    address: str
    needs: frozenset[str]
    accelerator: bool
    force: bool


@dataclass(frozen=True)
class Outcome:
    stage: str
    state: State
    seconds: float
    message: str = ""


def plan_stages(root: Path, products: Sequence[str] = (), force: str | None = None) -> list[Node]:
    """What is out of date in DVC's graph, upstream first, with what depends on it.

    ``products`` leaves out the other products' stages, and a common stage (the report) that waits for one of
    them. ``force`` is a stage's name (``train``: of every selected product) that runs even if up to date.

    Raises:
        UsageError: if a product or the forced stage is unknown.
    """
    import networkx as nx
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    known = list(load_params(root / "params.yaml").products)
    if unknown := sorted(set(products) - set(known)):
        raise UsageError(f"products {', '.join(unknown)}: not in params.yaml; it has {', '.join(known)}")
    with Repo(str(root)) as repo:
        # addressing is relative to the working directory; a .dvc file (`dvc add`) is no stage and has no name
        stages = {stage.name: stage for stage in repo.index.graph if isinstance(stage, PipelineStage)}
        graph = nx.relabel_nodes(repo.index.graph, {stage: name for name, stage in stages.items()})
        status = repo.status()
        changed = {name for name, stage in stages.items() if stage.addressing in status}
    forced = {name for name in stages if force in (name, name.partition("@")[0])}
    if force is not None and not forced:
        raise UsageError(f"--force {force}: no such stage; `dvc stage list --name-only` names them")
    others = {name for name in stages if product_of(name, known) not in (None, *(products or known))}
    forced -= others
    pending = changed | forced  # an edge leads from a stage to what it needs
    pending |= {user for name in pending for user in nx.ancestors(graph, name)}
    chosen = {name for name in pending - others if not nx.descendants(graph, name) & pending & others}
    order = [name for name in nx.topological_sort(graph.reverse()) if name in chosen]
    return [
        Node(
            address=name,
            needs=frozenset(set(graph.successors(name)) & chosen),
            accelerator=bool((stages[name].meta or {}).get("accelerator")),
            force=name in forced,
        )
        for name in order
    ]


def product_of(address: str, products: Sequence[str]) -> str | None:
    """The product in ``stage@product`` or ``stage@product-method``; None for a stage of all products."""
    key = address.partition("@")[2]
    matches = [product for product in products if key == product or key.startswith(f"{product}-")]
    return max(matches, key=len, default=key or None)


def execute(
    plan: Sequence[Node], call: Callable[[Node], None], jobs: int, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Runs a plan, at most ``jobs`` stages at a time and of these one on the accelerator.

    A failure stops only what needs the failed stage.

    ``tell`` hears of each outcome as it comes. On any interruption the running stages are ended.
    """
    waiting = {node.address: node for node in plan}
    running: dict[Future[Outcome], Node] = {}
    outcomes: dict[str, Outcome] = {}

    def settle(outcome: Outcome) -> None:
        outcomes[outcome.stage] = outcome
        tell(outcome)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                for node in [node for node in waiting.values() if is_blocked(node, outcomes)]:
                    del waiting[node.address]
                    settle(Outcome(node.address, "not run", 0.0, "what it needs failed"))
                while len(running) < jobs and (ready := next_ready(waiting, outcomes, running.values())):
                    del waiting[ready.address]
                    running[pool.submit(copy_context().run, attempt, ready, call)] = ready
                if running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[future]
                        settle(future.result())
        except BaseException:
            end_all()
            raise
    return [outcomes[node.address] for node in plan]


def is_blocked(node: Node, outcomes: dict[str, Outcome]) -> bool:
    return any(name in outcomes and outcomes[name].state != "done" for name in node.needs)


def next_ready(
    waiting: dict[str, Node], outcomes: dict[str, Outcome], running: Collection[Node]
) -> Node | None:
    """The first stage whose needs are met and for which the accelerator, if it wants it, is free."""
    busy = any(node.accelerator for node in running)
    ready = (node for node in waiting.values() if node.needs <= outcomes.keys())
    return next((node for node in ready if not (busy and node.accelerator)), None)


def attempt(node: Node, call: Callable[[Node], None]) -> Outcome:
    """Runs one stage and says how it went."""
    started = time.monotonic()
    try:
        call(node)
    except Exception as error:
        return Outcome(node.address, "failed", round(time.monotonic() - started, 1), str(error))
    return Outcome(node.address, "done", round(time.monotonic() - started, 1))


@flow(name="cadiff", flow_run_name="cadiff pipeline", validate_parameters=True)
def pipeline(
    products: list[str] | None = None, force: str | None = None, jobs: int = 2, root: Path = Path()
) -> list[Outcome]:
    """Brings every product (or the named ones) up to date.

    Raises:
        CADiffError: if a stage failed; the message names each, after all others have run.
    """
    plan = plan_stages(root, products or (), force)
    say = teller("pipeline")
    if not plan:
        say("everything is up to date")
        return []
    say(f"{len(plan)} stages to run: {', '.join(node.address for node in plan)}")
    board = Board(len(plan), say)
    work = stage_task if in_run() else run_stage
    outcomes = execute(plan, lambda node: work(node.address, root, node.force), jobs, board.tell)
    publish(outcomes, root)
    if failed := [outcome for outcome in outcomes if outcome.state == "failed"]:
        blocked = len([outcome for outcome in outcomes if outcome.state == "not run"])
        lines = "; ".join(outcome.message or outcome.stage for outcome in failed)
        raise CADiffError(
            f"{len(failed)} of {len(plan)} stages failed, {blocked} were not run for lack of them: {lines}. "
            "The others are done; mend the cause and run again, or see what there is with "
            "`python -m flows.report --partial`."
        )
    return outcomes


class Board:
    """Tells people how far the run is: a line per finished stage, and a progress bar in Prefect's UI."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.total, self.finished, self.say = total, 0, say
        self.bar = create_progress_artifact(0.0, key="progress", description="stages") if in_run() else None

    def tell(self, outcome: Outcome) -> None:
        self.finished += 1
        self.say(f"{self.finished}/{self.total} {outcome.stage}: {outcome.state} ({outcome.seconds:.1f} s)")
        if isinstance(self.bar, UUID):
            update_progress_artifact(self.bar, 100 * self.finished / self.total)


def publish(outcomes: Sequence[Outcome], root: Path) -> None:
    """A table of the stages, and the report's summary, on the flow run's page."""
    if not in_run():
        return
    rows = [asdict(outcome) for outcome in outcomes]
    create_table_artifact(rows, key="stages", description="stages of this run")
    summary = root / "reports" / "summary.md"
    if summary.is_file():
        create_markdown_artifact(summary.read_text(), key="report", description="key figures of the report")


def on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Run what is out of date.")
    parser.add_argument("--products", nargs="+", default=None, metavar="PRODUCT", help="only these")
    parser.add_argument("--force", metavar="STAGE", help="run this stage even if it is up to date")
    parser.add_argument("--jobs", type=int, default=2, help="stages side by side (one on the accelerator)")
    given = parser.parse_args(arguments)
    if given.jobs < 1:
        parser.error(f"--jobs: expected at least 1, found {given.jobs}")
    signal.signal(signal.SIGTERM, on_sigterm)
    run = pipeline if get_current_settings().api.url else pipeline.fn
    return exit_code(lambda: run(given.products, given.force, given.jobs))


if __name__ == "__main__":
    sys.exit(main())
