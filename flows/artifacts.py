"""What a run publishes on its page in Prefect's UI: the stages' table, progress, the report's figures and pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

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

from cadiff.params import load_params
from cadiff.storage import decode_image, read_json, read_table

EVERY = 5.0  # seconds between two updates of a stage's progress
PROGRESS = re.compile(r"(?P<title>.+?) (?P<done>\d+)/(?P<total>\d+)(?= \(|$| )")
SHOWN = ("pixel_ap", "pixel_auroc", "pixel_f1max", "pro", "image_auroc")
PER_TYPE, MOST_ROWS, GAP = 6, 24, 4


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
        if self.bar is None:
            key = "progress-" + re.sub(r"[^a-z0-9]+", "-", self.address.lower()).strip("-")
            self.bar = create_progress_artifact(percent, key=key, description=line)
        else:
            update_progress_artifact(self.bar, percent, description=line)


class StageTable:
    """The run's stages with state and time, kept up to date while it runs, and the share that is done."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.rows = {name: {"stage": name, "state": "waiting", "seconds": "", "message": ""} for name in addresses}
        self.finished = 0
        self.bar: Any = create_progress_artifact(0.0, key="progress", description="stages")
        self.table: Any = create_table_artifact(list(self.rows.values()), key="stages", description="stages of this run")

    def show(self, address: str, state: str, seconds: float | None = None, message: str = "") -> None:
        """A stage's new state; one with seconds is over."""
        time_taken = "" if seconds is None else f"{seconds:.1f}"
        self.rows[address] |= {"state": state, "seconds": time_taken, "message": message}
        assert isinstance(self.table, UUID)
        with get_client(sync_client=True) as client:
            client.update_artifact(self.table, ArtifactUpdate(data=json.dumps(list(self.rows.values()))))
        if seconds is not None:
            self.finished += 1
            update_progress_artifact(self.bar, 100 * self.finished / len(self.rows))


def publish_report(root: Path, folder: Path) -> None:
    """The report's summary, headline table, pictures and address, as far as they are there."""
    if (folder / "summary.md").is_file():
        create_markdown_artifact((folder / "summary.md").read_text(), key="report", description="key figures of the report")
    if rows := headline(folder / "metrics.json"):
        create_table_artifact(rows, key="headline", description="means over products and seeds, in %")
    sheet = contact_sheet(root)
    if sheet is not None:
        create_image_artifact(
            image_url="data:image/png;base64," + base64.b64encode(sheet).decode(),
            key="pictures",
            description=f"generated anomalies, a row per product and type: the first {PER_TYPE} of each shard",
        )
    page = folder / "index.html"
    if page.is_file():
        create_link_artifact(link=address_of(page, root), link_text="the report", key="page", description=str(page.resolve()))


def address_of(page: Path, root: Path) -> str:
    """Below ``CADIFF_REPORTS_URL`` where something serves the checkout's ``reports``, else a file's address, which opens
    on this machine only (and by copying it: browsers do not follow it from a page that was served)."""
    served = os.environ.get("CADIFF_REPORTS_URL")
    if served:
        return f"{served.rstrip('/')}/{page.relative_to(root / 'reports').as_posix()}"
    return page.resolve().as_uri()


def headline(metrics: Path) -> list[dict[str, str]]:
    """A row per method of ``metrics.json``; empty where there is none."""
    if not metrics.is_file():
        return []
    return [
        {"method": method, **{name: f"{100 * values[name]:.1f}" for name in SHOWN if name in values}}
        for method, values in read_json(metrics).items()
    ]


def contact_sheet(root: Path) -> bytes | None:
    """A PNG of generated images, a row per product and type, none picked out; None where none were generated."""
    from cadiff.records import GENERATED_SCHEMA  # with torch behind it, which planning does not need

    strips = []
    for product in load_params(root / "params.yaml").products:
        for shard in sorted((root / "data/made/generated/cadiff" / product).glob("*.parquet")):
            if shard.stem != "good":
                rows = read_table(shard, GENERATED_SCHEMA).slice(0, PER_TYPE).to_pylist()
                strips.append([decode_image(row["image"]["bytes"], "RGB", row["sample_id"]) for row in rows])
    strips = strips[:MOST_ROWS]
    if not strips:
        return None
    side = max(image.shape[0] for strip in strips for image in strip) + GAP
    sheet = np.full((side * len(strips) + GAP, side * max(map(len, strips)) + GAP, 3), 255, np.uint8)
    for i, strip in enumerate(strips):
        for j, image in enumerate(strip):
            y, x = GAP + i * side, GAP + j * side
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG")
    return buffer.getvalue()
