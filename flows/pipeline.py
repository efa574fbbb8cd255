"""The whole pipeline: walks DVC's own graph and runs what is out of date, independent stages side by side.

``python -m flows.pipeline [--products P ...] [--force STAGE] [--jobs N]`` runs the same code with and without
Prefect: where a server answers (``PREFECT_API_URL`` or the profile) it is one flow run with a task and a nested flow
run for each stage, elsewhere plain calls, and no server is started. The edges are dvc.yaml's; none is written here.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Literal

from prefect import flow

from cadiff.errors import CADiffError, TransientError, UsageError, exit_code
from cadiff.params import Params, load_params, use_preset
from cadiff.progress import be_quiet, speaking
from cadiff.task import Task
from flows.artifacts import StageTable, publish_report
from flows.glimpse import Glimpse
from flows.rwlock import mend_rwlock
from flows.stage import checkout_lock, end_all, in_run, run_stage, server_answers, stage_task, teller

ACCELERATOR = "accelerator"  # the tag of stages that compute on a device, of which there are few
REPORT = "report"  # the stage that writes what a run shows
SETTINGS = "settings"  # the stage that resolves the parameters
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
        TransientError: if another DVC holds the checkout's lock.
    """
    import networkx as nx
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    params = load_params(root / "params.yaml")
    known = list(params.products)
    remote = params.cluster is not None and "://" in params.cluster
    if unknown := sorted(set(products) - set(known)):
        raise UsageError(f"products {', '.join(unknown)}: not in params.yaml; it has {', '.join(known)}")
    with Repo(str(root)) as repo:
        # addressing is relative to the working directory; a .dvc file (`dvc add`) is no stage and has no name
        stages = {stage.name: stage for stage in repo.index.graph if isinstance(stage, PipelineStage)}
        graph = nx.relabel_nodes(repo.index.graph, {stage: name for name, stage in stages.items()})
        try:
            status = repo.status()
        except LockError as error:  # of the checkout, or of what a stage that runs writes
            raise TransientError(
                f"{root.resolve()}: another DVC is at work here ({str(error).splitlines()[0]}); run again when it has ended"
            ) from None
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
            accelerator=uses_accelerator(stages[name].meta or {}, remote),
            force=name in forced,
        )
        for name in order
    ]


def resolve_and_plan(root: Path, products: Sequence[str] = (), force: str | None = None) -> list[Node]:
    """``plan_stages`` after the parameters have been resolved: until then all that reads some of them may have to run.

    Raises:
        UsageError, TransientError: as ``plan_stages``.
        CADiffError: if the parameters cannot be resolved.
    """
    plan = plan_stages(root, products, force)
    if not any(node.address == SETTINGS for node in plan):
        return plan
    run_stage(SETTINGS, root, force == SETTINGS)
    return plan_stages(root, products, None if force == SETTINGS else force)


def require_inputs(root: Path, params: Params, plan: Sequence[Node]) -> None:
    """That what a plan's stages read is there, before any of them runs: images, and what later stages ask for after hours of training. A
    product whose stage ``samples`` is to run is asked there, once its pictures are known.

    Raises:
        UsageError: if a product's images or a file of weights are not there, the weights are others than those that are meant, or as
            ``cadiff.ahead.check_ahead``.
    """
    stages: dict[str | None, set[str]] = {}
    for node in plan:
        stages.setdefault(product_of(node.address, list(params.products)), set()).add(node.address.partition("@")[0])
    for product in params.products:
        folder, ahead = root / params.dataset.root / product, stages.get(product, set())
        if "samples" in ahead and product not in params.draw.products and not folder.is_dir():  # the demo's are drawn by its first stage
            raise UsageError(
                f"{folder}: expected this product's images, but it is not there; set dataset.root and products in params.yaml "
                "(`cadiff inspect ROOT` lists what a folder holds)"
            )
        rows = root / "data/made/samples" / f"{product}.parquet"
        if ahead and "samples" not in ahead and rows.is_file():
            from cadiff.ahead import check_ahead  # which imports more than most plans need
            from cadiff.records import SAMPLE_SCHEMA, SampleRow, from_table
            from cadiff.storage import read_table

            check_ahead(Task(params.for_product(product), product, samples=from_table(read_table(rows, SAMPLE_SCHEMA), SampleRow)))
    scored = [params.for_product(name) for name in params.products if any(s.startswith("detect-") for s in stages.get(name, set()))]
    asking = [own for own in scored if own.classifier.weights or own.metrics.inception or own.metrics.lpips]
    for own in {own.digest_of("classifier", "metrics"): own for own in asking}.values():  # each file is read once
        from cadiff.metrics.networks import find_networks  # imports torch, which a plan does not need otherwise

        find_networks(own)


def uses_accelerator(meta: dict[str, bool], remote: bool) -> bool:
    """Whether a stage computes on a device of this machine: not if a cluster elsewhere computes its parts."""
    return bool(meta.get("accelerator")) and not (remote and meta.get("cluster"))


def product_of(address: str, products: Sequence[str]) -> str | None:
    """The product in ``stage@product`` or ``stage@product-method``; None for a stage of all products."""
    key = address.partition("@")[2]
    matches = [product for product in products if key == product or key.startswith(f"{product}-")]
    return max(matches, key=len, default=key or None)


def execute(
    plan: Sequence[Node],
    call: Callable[[Node, int | None], None],
    jobs: int,
    tell: Callable[[Node | Outcome], None],
    accelerators: int = 1,
) -> list[Outcome]:
    """Runs a plan, at most ``jobs`` stages at a time and of these one on each accelerator.

    A failure stops only what needs the failed stage. ``call`` is given a stage and the number of the accelerator that it
    may use. ``tell`` hears of each stage as it starts and of its outcome. On any interruption the running stages are
    ended.
    """
    waiting = {node.address: node for node in plan}
    running: dict[Future[Outcome], tuple[Node, int | None]] = {}
    outcomes: dict[str, Outcome] = {}
    free = list(range(accelerators))

    def settle(outcome: Outcome) -> None:
        outcomes[outcome.stage] = outcome
        tell(outcome)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                for node in [node for node in waiting.values() if is_blocked(node, outcomes)]:
                    del waiting[node.address]
                    settle(Outcome(node.address, "not run", 0.0, "what it needs failed"))
                while len(running) < jobs and (ready := next_ready(waiting, outcomes, bool(free))):
                    del waiting[ready.address]
                    slot = free.pop(0) if ready.accelerator else None
                    tell(ready)
                    running[pool.submit(copy_context().run, attempt, ready, slot, call)] = ready, slot
                if running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        _, slot = running.pop(future)
                        if slot is not None:
                            free.append(slot)
                        settle(future.result())
        except BaseException:  # Ctrl-C and SIGTERM too: no stage may outlive its run
            end_all()
            raise
    return [outcomes[node.address] for node in plan]


def is_blocked(node: Node, outcomes: dict[str, Outcome]) -> bool:
    return any(name in outcomes and outcomes[name].state != "done" for name in node.needs)


def next_ready(waiting: dict[str, Node], outcomes: Mapping[str, Outcome], accelerator_free: bool) -> Node | None:
    """The first stage whose needs are met, so all done, and for which an accelerator, if it wants one, is free."""
    done = {name for name, outcome in outcomes.items() if outcome.state == "done"}
    ready = (node for node in waiting.values() if node.needs <= done)
    return next((node for node in ready if accelerator_free or not node.accelerator), None)


def attempt(node: Node, slot: int | None, call: Callable[[Node, int | None], None]) -> Outcome:
    """Runs one stage and says how it went."""
    started = time.monotonic()
    try:
        call(node, slot)
    except Exception as error:
        return Outcome(node.address, "failed", round(time.monotonic() - started, 1), str(error))
    return Outcome(node.address, "done", round(time.monotonic() - started, 1))


@flow(name="cadiff", flow_run_name="cadiff pipeline", validate_parameters=True)
def pipeline(
    products: list[str] | None = None,
    force: str | None = None,
    jobs: int = 2,
    preset: str | None = None,
    accelerators: int = 1,
    root: Path = Path(),
) -> list[Outcome]:
    """Brings every product (or the named ones) up to date.

    Raises:
        UsageError: if ``jobs`` or ``accelerators`` is below 1, or CUDA_VISIBLE_DEVICES names fewer devices.
        CADiffError: if a stage failed; the message names each, after all others have run.
    """
    for name, given in (("jobs", jobs), ("accelerators", accelerators)):
        if given < 1:
            raise UsageError(f"{name}: expected at least 1, found {given}")
    devices, say = devices_for(accelerators), teller("pipeline")
    with checkout_lock(root, say):
        if preset is not None:
            say(use_preset(root, preset))
        mend_rwlock(root, say)
        with speaking("planning", tell=say):  # DVC hashes what has changed
            plan = resolve_and_plan(root, products or (), force)
            require_inputs(root, load_params(root / "params.yaml"), plan)
        say(f"{len(plan)} stages to run: {', '.join(node.address for node in plan)}" if plan else "everything is up to date")
        glimpse = Glimpse(root, say)
        outcomes = execute(plan, caller(root, devices), jobs, Board(plan, say, glimpse).tell, accelerators) if plan else []
        glimpse.end(report_is_current(outcomes, whole=not products))
        if in_run() and report_is_current(outcomes, whole=not products):
            publish_report(root, root / "reports")
    if failed := [outcome for outcome in outcomes if outcome.state == "failed"]:
        blocked = len([outcome for outcome in outcomes if outcome.state == "not run"])
        lines = "; ".join(outcome.message or outcome.stage for outcome in failed)
        raise CADiffError(
            f"{len(failed)} of {len(plan)} stages failed, {blocked} were not run for lack of them: {lines}. "
            "The others are done; mend the cause and run again, or see what there is with "
            "`python -m flows.report --partial`."
        )
    return outcomes


def report_is_current(outcomes: Sequence[Outcome], whole: bool) -> bool:
    """Whether the report tells of what a run left: it was made in it, or in a run over all products nothing was to do."""
    state = {outcome.stage: outcome.state for outcome in outcomes}
    return state.get(REPORT) == "done" or (whole and not outcomes)


def devices_for(accelerators: int) -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES is to each accelerator's stages; None: as the user set it.

    One of several devices is the only one that its stage sees, and is one of those that the user lets this run see.

    Raises:
        UsageError: if these are fewer.
    """
    if accelerators == 1:
        return [None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(number) for number in range(accelerators)]
    named = list(takewhile(lambda name: name not in ("", "-1"), map(str.strip, visible.split(","))))  # as CUDA reads it
    if len(named) < accelerators:
        raise UsageError(
            f"accelerators: expected at most the {len(named)} that CUDA_VISIBLE_DEVICES={visible} names, found {accelerators}; "
            "name more, or unset it"
        )
    return list(named[:accelerators])


def threads_for(accelerators: int) -> dict[str, str]:
    """OMP_NUM_THREADS where stages that compute run side by side, as the user set it or else each one's share of the cores: two processes
    that both have a thread for each core are many times slower than one after the other."""
    if accelerators == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // accelerators))}


def caller(root: Path, devices: Sequence[str | None]) -> Callable[[Node, int | None], None]:
    """How a stage is run here: as a tagged task with a nested flow run, or plainly."""
    threads = threads_for(len(devices))

    def call(node: Node, slot: int | None) -> None:
        device = None if slot is None else devices[slot]
        environment = threads if device is None else {**threads, "CUDA_VISIBLE_DEVICES": device}
        if in_run():
            tags = [ACCELERATOR] if node.accelerator else []
            stage_task.with_options(tags=tags)(node.address, root, node.force, environment)
        else:
            run_stage(node.address, root, node.force, environment)

    return call


class Board:
    """Tells people how far the run is: a line per finished stage, the report so far, and a table and a bar in Prefect's UI."""

    def __init__(self, plan: Sequence[Node], say: Callable[[str], None], glimpse: Glimpse) -> None:
        self.total, self.finished, self.say, self.glimpse = len(plan), 0, say, glimpse
        self.table = StageTable([node.address for node in plan]) if in_run() else None

    def tell(self, news: Node | Outcome) -> None:
        if isinstance(news, Node):
            if self.table:
                self.table.show(news.address, "running")
            return
        self.finished += 1
        self.say(f"{self.finished}/{self.total} {news.stage}: {news.state} ({news.seconds:.1f} s)")
        if self.table:
            self.table.show(news.stage, news.state, news.seconds, news.message)
        if news.state == "done":
            self.glimpse.after(news.stage)


def on_sigterm(signum: int, frame: FrameType | None) -> None:
    print("stopped: finished artefacts and parts (.cadiff/work) are kept; run again", file=sys.stderr)
    raise SystemExit(128 + signum)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Run what is out of date.")
    parser.add_argument("--products", nargs="+", default=None, metavar="PRODUCT", help="only these")
    parser.add_argument("--force", metavar="STAGE", help="run this stage even if it is up to date")
    parser.add_argument("--jobs", type=int, default=2, help="stages side by side (default: 2)")
    parser.add_argument("--accelerators", type=int, default=1, help="devices, one for each accelerator stage (default: 1)")
    parser.add_argument("--preset", metavar="NAME", help="first make presets/NAME.yaml the parameters")
    parser.add_argument("--quiet", action="store_true", help="no progress of the stages")
    given = parser.parse_args(arguments)
    if given.quiet:
        be_quiet()
    signal.signal(signal.SIGTERM, on_sigterm)

    def run() -> object:
        chosen = pipeline if server_answers() else pipeline.fn
        return chosen(given.products, given.force, given.jobs, given.preset, given.accelerators)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
