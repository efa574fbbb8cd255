"""What a run publishes on its page in Prefect's UI: the stages' table, progress, the report's figures and pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.logging import get_run_logger

from cadiff.params import OURS, load_params
from cadiff.records import GENERATED_SCHEMA
from cadiff.storage import decode_image, read_json, read_table

PICTURES = re.compile(r".+: pictures at step \d+: (?P<sheet>.+\.png)$")  # of cadiff.generator.validation
EVERY = 5.0  # seconds between two updates of a stage's progress
PROGRESS = re.compile(r"(?P<title>.+?) (?P<done>\d+)/(?P<total>\d+)(?= \(|$| )")
SHOWN = ("pixel_ap", "pixel_ap_types", "pixel_auroc", "pixel_f1max", "pro", "image_auroc", "false_alarm_rate", "miss_rate")
PER_TYPE, MOST_ROWS, GAP = 6, 24, 4
MOST_SIDE = 160  # px of a picture on the contact sheet
T = TypeVar("T")


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """What a run shows is not its work: where it cannot be shown, the run's log says so and the run goes on."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning(f"{what}: cannot be shown ({type(error).__name__}: {error}); the run goes on")


class StageBar:
    """A long stage's own progress, read off its lines (cadiff.progress); a stage that shows none has no bar."""

    def __init__(self, address: str) -> None:
        self.address, self.title, self.updated = address, "", -1e9
        self.bar: Any = None

    def see(self, line: str) -> None:
        found = PROGRESS.match(line)
        if not found or not int(found["total"]):
            return
        now, percent = time.monotonic(), 100 * int(found["done"]) / int(found["total"])
        if now - self.updated < EVERY and percent < 100 and found["title"] == self.title:
            return
        self.title, self.updated = found["title"], now
        with harmless(f"progress of {self.address}"):
            if self.bar is None:
                self.bar = create_progress_artifact(percent, key=f"progress-{_key(self.address)}", description=line)
            else:
                update_progress_artifact(self.bar, percent, description=line)


def publish_sheet(address: str, line: str, root: Path) -> None:
    """A training's pictures and losses so far, where its line says that there are new ones; each sheet is a version of one artifact."""
    if not (found := PICTURES.match(line)):
        return
    with harmless(f"pictures of {address}"):
        create_image_artifact(image_url=_png_uri((root / found["sheet"]).read_bytes()), key=f"training-{_key(address)}", description=line)


def _png_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _key(address: str) -> str:
    """A stage's address as Prefect takes it in an artifact's key."""
    return re.sub(r"[^a-z0-9]+", "-", address.lower()).strip("-")


class StageTable:
    """The run's stages with state and time, kept up to date while it runs, and the share that is done."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.rows = {name: {"stage": name, "state": "waiting", "seconds": "", "message": ""} for name in addresses}
        self.finished = 0
        self.bar: Any = None
        self.table: Any = None
        self.publish()

    def show(self, address: str, state: str, seconds: float | None = None, message: str = "") -> None:
        """A stage's new state; one with seconds is over."""
        time_taken = "" if seconds is None else f"{seconds:.1f}"
        self.rows[address] |= {"state": state, "seconds": time_taken, "message": message}
        self.finished += seconds is not None
        self.publish()

    def publish(self) -> None:
        percent, rows = 100 * self.finished / len(self.rows), list(self.rows.values())
        with harmless("the table of stages"):
            if self.bar is None:  # each on its own: a table that could not be made must not cost a new bar at every call
                self.bar = create_progress_artifact(percent, key="progress", description="stages")
            else:
                update_progress_artifact(self.bar, percent)
            if self.table is None:
                self.table = create_table_artifact(rows, key="stages", description="stages of this run")
                return
            with get_client(sync_client=True) as client:
                client.update_artifact(self.table, ArtifactUpdate(data=json.dumps(rows)))


def publish_report(root: Path, folder: Path) -> None:
    """The report's summary, headline table, pictures and address, as far as they are there."""
    summary, page = folder / "summary.md", folder / "index.html"
    with harmless("the report's summary"):
        if summary.is_file():
            text = with_addresses(summary.read_text(), folder)
            create_markdown_artifact(text, key="report", description="key figures of the report, and the detectors to take away")
    with harmless("the report's headline"):
        if rows := headline(folder / "metrics.json"):
            create_table_artifact(rows, key="headline", description="means over products and seeds, in %")
    with harmless("generated pictures"):
        if (sheet := contact_sheet(root)) is not None:
            create_image_artifact(
                image_url=_png_uri(sheet),
                key="pictures",
                description=f"generated anomalies, a row per product and type: {PER_TYPE} of each shard, evenly spaced",
            )
    with harmless("the report's address"):
        if page.is_file():
            create_link_artifact(link=address_of(page, root), link_text="the report", key="page", description=str(page.resolve()))


def address_of(page: Path, root: Path) -> str:
    """Below ``CADIFF_REPORTS_URL`` where something serves the checkout's ``reports``, else a file's address, which opens
    on this machine only (and by copying it: browsers do not follow it from a page that was served)."""
    served = os.environ.get("CADIFF_REPORTS_URL")
    if served:
        return f"{served.rstrip('/')}/{page.relative_to(root / 'reports').as_posix()}"
    return page.resolve().as_uri()


def with_addresses(summary: str, folder: Path) -> str:
    """The report's Markdown, whose links lead from ``folder``, with the folders' own addresses: a page in Prefect's UI lies elsewhere."""
    return re.sub(r"\]\((\.\./[^)]*)\)", lambda found: f"]({(folder / found[1]).resolve().as_uri()})", summary)


def headline(metrics: Path) -> list[dict[str, str]]:
    """A row per method of ``metrics.json``; empty where there is none."""
    if not metrics.is_file():
        return []
    return [
        {"method": method, **{name: f"{100 * values[name]:.1f}" for name in SHOWN if name in values}}
        for method, values in read_json(metrics).items()
    ]


def spread(values: Sequence[T], count: int) -> list[T]:
    """``count`` of the values, evenly spaced from the first on; all where there are no more."""
    return [values[k * len(values) // count] for k in range(count)] if len(values) > count else list(values)


def contact_sheet(root: Path) -> bytes | None:
    """A PNG of generated images, a row per product and type, none picked out; None where none were generated."""
    generated, params = root / "data/made/generated" / OURS, load_params(root / "params.yaml")
    products = params.products if OURS in params.methods else ()  # shards of a method that was taken out may still lie there
    shards = [shard for product in products for shard in sorted((generated / product).glob("*.parquet")) if shard.stem != "good"]
    strips = []
    for shard in spread(shards, MOST_ROWS):
        table = read_table(shard, GENERATED_SCHEMA).select(["sample_id", "image"])
        rows = table.take(spread(range(table.num_rows), PER_TYPE)).to_pylist()
        strips.append([thumbnail(decode_image(row["image"]["bytes"], "RGB", row["sample_id"])) for row in rows])
    if not strips:
        return None
    side = max(max(image.shape[:2]) for strip in strips for image in strip) + GAP
    sheet = np.full((side * len(strips) + GAP, side * max(map(len, strips)) + GAP, 3), 255, np.uint8)
    for i, strip in enumerate(strips):
        for j, image in enumerate(strip):
            y, x = GAP + i * side, GAP + j * side
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG")
    return buffer.getvalue()


def thumbnail(image: np.ndarray) -> np.ndarray:
    """At most ``MOST_SIDE`` px wide and high."""
    picture = Image.fromarray(image)
    picture.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture)
