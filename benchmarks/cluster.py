"""Two Dask workers of one thread each against one, same work: ``python benchmarks/cluster.py [--images 96]``.

Draws one product's anomalies with the embedded base and an untrained control (speed does not depend on what it learnt),
once in this process, then on `local:1` and `local:2`; prints seconds, the ratio, and whether the bytes are equal. Needs
an idle machine with two cores; start-up of the workers is timed apart, so that the ratio is of the work alone.
"""

from __future__ import annotations

import os

from cadiff.task import Task

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before torch is imported

import argparse
import tempfile
import time
from pathlib import Path

from distributed import Client, LocalCluster

from cadiff.data import read_samples
from cadiff.data.demo import draw_product
from cadiff.generator import adapt_base, generate_shards, train_generator
from cadiff.masks import make_scenes
from cadiff.params import load_params
from cadiff.storage import sha256_folder

ROOT = Path(__file__).resolve().parents[1]


def warm(address: str, workers: int) -> None:
    """Waits for the workers, and has each import what drawing needs."""
    with Client(address) as client:
        client.wait_for_workers(workers)
        client.run(load)


def load() -> None:
    import cadiff.generator  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96, help="of each of the product's three types")
    given = parser.parse_args()
    load_average = os.getloadavg()[0]
    busy = " (busy: the ratio says little)" if load_average > 0.3 else ""
    print(f"load average before: {load_average:.1f} on {os.cpu_count()} cores{busy}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = load_params(ROOT / "presets" / "smoke.yaml")
        params = params.model_copy(
            update={
                "dataset": params.dataset.model_copy(update={"root": str(folder / "data")}),
                "adapt": params.adapt.model_copy(update={"steps": 0}),
                "train": params.train.model_copy(update={"steps": 1}),
                "generate": params.generate.model_copy(update={"per_type": given.images, "steps": 20, "batch": 8}),
            }
        ).for_product("nut")
        draw_product(params.draw, "nut", params.seed, folder / "data" / "nut", side=params.base.size)
        samples = read_samples(params.dataset, "nut")
        adapt_base(Task(params, "nut", samples=samples), folder / "adapted", folder / "a")
        train_generator(Task(params, "nut", "cadiff", samples), folder / "adapted", folder / "generator", folder / "t")
        scenes = [scene for scene in make_scenes(Task(params, "nut", samples=samples)) if scene.named]

        def timed(title: str, cluster: str | None) -> float:
            started = time.monotonic()
            here = params.model_copy(update={"cluster": cluster})
            arguments = (Task(here, "nut", "cadiff", samples), folder / "adapted", folder / "generator", scenes)
            generate_shards(*arguments, folder / f"out-{title}", folder / f"work-{title}")
            return time.monotonic() - started

        seconds = {"here": timed("here", None)}
        for workers in (1, 2):
            with LocalCluster(
                n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=None
            ) as cluster:
                warm(cluster.scheduler_address, workers)
                seconds[str(workers)] = timed(str(workers), cluster.scheduler_address)
        same = {sha256_folder(folder / f"out-{title}") for title in seconds}
        print(f"{len(scenes)} images: here {seconds['here']:.1f} s, one worker {seconds['1']:.1f} s, two {seconds['2']:.1f} s")
        print(f"two workers against one: {seconds['1'] / seconds['2']:.2f} times as fast; bytes equal: {len(same) == 1}")


if __name__ == "__main__":
    main()
