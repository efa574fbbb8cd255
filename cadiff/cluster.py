"""Parts of a stage, computed in this process or on a Dask cluster, and handed back to the one process that writes them.

A part is a call of a module's function whose result depends on its arguments and on the artefacts that they name.
Workers read artefacts from storage that they share with this process; results come back over the network. A part
whose worker is lost is computed again by another one; parts that came back are not.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cadiff.errors import CADiffError, TransientError, UsageError
from cadiff.storage import digest, sha256_file

LOCAL = "local:"
PATIENCE = 60.0  # seconds that a cluster may take to show its first worker


@dataclass(frozen=True)
class Site:
    """What a worker must have in common with the process that sends it parts."""

    root: str
    code: str
    threads: int


def run_parts(
    cluster: str | None, work: Callable[..., Any], shared: tuple[Any, ...], parts: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    """Yields ``(index, work(*shared, *parts[index]))`` as they come: in order here, in any order from a cluster.

    Args:
        cluster: None, ``local:N`` or a scheduler's address (``Params.cluster``).
        work: a function at the top of a module of this package; on a cluster it must not write.
        shared: what every part is given; a worker receives it once.
        parts: each part's own arguments.

    Raises:
        UsageError: if Dask is not installed, or a worker has several threads, another code or no access to this folder.
        TransientError: if the cluster does not answer, or is lost.
        CADiffError: if a part fails, or one part's workers are lost time and again.
    """
    if not parts:
        return
    if cluster is None:
        for index, part in enumerate(parts):
            yield index, work(*shared, *part)
        return
    with _client(cluster) as client:
        yield from _from_workers(client, work, shared, parts)


def _from_workers(
    client: Any, work: Callable[..., Any], shared: tuple[Any, ...], parts: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    from distributed import as_completed

    site = Site(os.getcwd(), code_digest(), _threads())
    # a task, not a scattered value: the scheduler can make it again when the worker that holds it is lost
    given = client.submit(_same, shared, pure=False)
    futures = {client.submit(run_at, site, work, given, part, pure=False): index for index, part in enumerate(parts)}
    done = as_completed(futures)
    del given
    try:
        for future in done:
            index = futures.pop(future)
            yield index, _result(future, f"part {index + 1} of {len(parts)}")
    except (CancelledError, OSError) as error:  # a lost scheduler cancels what was asked of it
        raise TransientError(f"cluster: the scheduler is lost ({error}); finished parts are kept") from None


def _result(future: Any, name: str) -> Any:
    """What a part returned; a part's own error is told apart from the connection's.

    The cluster lets go of the part at once: as long as it is held, losing the worker that has it is to compute it again.
    """
    from distributed import KilledWorker

    try:
        result = future.result()
        future.release()
        return result
    except KilledWorker as error:
        raise CADiffError(
            f"cluster: {name} lost {error.allowed_failures + 1} workers, the last at {error.last_worker.address}; "
            "expected one to finish it. See that worker's log, memory first."
        ) from None
    except OSError as error:
        if future.status != "error":
            raise
        raise CADiffError(f"cluster: {name} failed on its worker ({error}); see that machine's disk and mounts") from error


def _same(value: Any) -> Any:
    return value


def run_at(site: Site, work: Callable[..., Any], shared: tuple[Any, ...], part: tuple[Any, ...]) -> Any:
    """A part on a worker: in the sender's folder, with its code and its number of threads, so with its bytes."""
    from distributed import get_worker

    if (slots := get_worker().state.nthreads) != 1:  # parts of one process would share torch's threads and the device's memory
        raise UsageError(
            f"cluster: expected workers that compute one part at a time, found {slots} at {get_worker().address}; "
            "start them with `dask worker --nthreads 1`"
        )
    if code_digest() != site.code:
        raise UsageError("cluster: a worker has another version of cadiff than this process; install the same on all")
    try:
        os.chdir(site.root)
    except OSError as error:
        raise UsageError(f"cluster: expected {site.root} on every worker (shared storage), found none ({error})") from None
    _threads(site.threads)
    return work(*shared, *part)


def _threads(count: int | None = None) -> int:
    """torch's number of threads, set first if a count is given."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
    return torch.get_num_threads()


@cache
def code_digest() -> str:
    """16 hex digits over the package's source."""
    root = Path(__file__).parent
    return digest([(path.relative_to(root).as_posix(), sha256_file(path)) for path in sorted(root.rglob("*.py"))])


@contextlib.contextmanager
def _client(cluster: str) -> Iterator[Any]:
    """A connection to the cluster's scheduler; ``local:N`` is started here and ends here."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise UsageError(f"cluster: {cluster} needs Dask, which is not installed; `pip install 'cadiff[scale]'`") from None
    with contextlib.ExitStack() as stack:
        address = cluster
        if cluster.startswith(LOCAL):
            workers = int(cluster.removeprefix(LOCAL))
            _warn_of_crowding(workers)
            try:
                # no memory limit: a worker above it would be killed, and its part tried again in vain
                options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "memory_limit": None}
                started = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, **options))
            except (RuntimeError, OSError, TimeoutError) as error:
                raise TransientError(f"cluster: a worker of {cluster} ended while it started ({error})") from None
            address = started.scheduler_address
        try:
            client = stack.enter_context(Client(address, timeout=PATIENCE))
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, TimeoutError) as error:
            raise TransientError(
                f"cluster: expected a Dask scheduler with a worker at {address} within {PATIENCE:.0f} s, found none ({error})"
            ) from None
        yield client


def _warn_of_crowding(workers: int) -> None:
    """More threads than cores are slow, but fewer per worker than here might give other bytes: the user decides."""
    threads, cores = _threads(), os.cpu_count() or 1
    if workers * threads > cores > 1:
        print(
            f"cluster: {workers} workers of {threads} threads each on {cores} cores get into each other's way; "
            f"OMP_NUM_THREADS={max(1, cores // workers)} is faster",
            file=sys.stderr,
        )
