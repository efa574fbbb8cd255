"""One stage of one product and method: its parameters, and where what it reads and writes lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cadiff.params import READS, Params, parts_of, pick
from cadiff.records import SAMPLE_SCHEMA, SCENE_SCHEMA, SampleRow, SceneRow, from_table
from cadiff.stages.code import CODE, PACKAGE, content_digest
from cadiff.storage import digest, missing, read_table
from cadiff.task import Task
from cadiff.unchanged import Stamps, files_of, stamps

MADE = Path("data/made")
WORK = Path(".cadiff/work")
PACES = Path(".cadiff/paces")  # times, so no artefact: an output would have other bytes after each run


@dataclass(frozen=True)
class Run:
    """One stage of one product (and method), with its parameters and the paths of what it reads and writes.

    ``params`` are those of the product where there is one; all paths are relative to the repository root.
    """

    stage: str
    params: Params
    product: str = ""
    method: str = ""
    parts: dict[str, float] = field(default_factory=dict)  # seconds of what is worth telling apart, for record_times
    seen: Stamps = field(default_factory=dict)  # pictures as they were when the stage began
    used: set[Path] = field(default_factory=set)  # folders of ``work``

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.product, self.method) if part)

    @property
    def raw(self) -> Path:
        return Path(self.params.dataset.root) / self.product

    @property
    def samples_path(self) -> Path:
        return MADE / "samples" / f"{self.product}.parquet"

    @property
    def scenes_path(self) -> Path:
        return MADE / "scenes" / self.method / f"{self.product}.parquet"

    @property
    def adapted(self) -> Path:
        return MADE / "adapted" / self.product

    @property
    def generator(self) -> Path:
        return MADE / "generator" / self.method / self.product

    @property
    def validation(self) -> Path:
        return MADE / "reported" / "validation" / self.method / self.product

    @property
    def showcase(self) -> Path:
        return MADE / "reported" / "showcase" / self.method / self.product

    @property
    def quality_path(self) -> Path:
        return MADE / "reported" / "quality" / self.method / f"{self.product}.parquet"

    @property
    def detector(self) -> Path:
        return MADE / "detectors" / self.method / self.product

    @property
    def evaluated(self) -> Path:
        return MADE / "evaluated" / self.method / self.product

    @property
    def shipped(self) -> Path:
        return MADE / "shipped" / self.method / self.product

    @property
    def shipped_path(self) -> Path:
        return MADE / "reported" / "shipped" / self.method / f"{self.product}.json"

    @property
    def pace_path(self) -> Path:
        return PACES / self.method / f"{self.product}.json"

    @property
    def generated(self) -> Path:
        return MADE / "generated" / self.method / self.product

    @property
    def sources(self) -> list[Path]:
        """The shard folders that this method's detector is trained on.

        Raises:
            CADiffError: if one of them is absent or empty.
        """
        folders = [MADE / "generated" / method / self.product for method in parts_of(self.method)]
        for folder in folders:
            if not any(folder.glob("*.parquet")):
                raise missing(folder / "*.parquet")
        return folders

    @cached_property
    def samples(self) -> list[SampleRow]:
        rows = from_table(read_table(self.samples_path, SAMPLE_SCHEMA), SampleRow)
        self.seen.update(stamps(files_of(rows)))
        return rows

    @cached_property
    def task(self) -> Task:
        """What the run is asked for, with the product's rows."""
        return Task(self.params, self.product, self.method, self.samples)

    @cached_property
    def scenes(self) -> list[SceneRow]:
        return from_table(read_table(self.scenes_path, SCENE_SCHEMA), SceneRow)

    def work(self, *inputs: Path) -> Path:
        """The folder of this run's resumable state; its name changes with all that the result depends on."""
        params = {name: pick(self.params, name) for name in READS[self.stage]}
        if "detector" in params:  # what is set after training would have it trained anew
            later = ("false_alarms", "threshold", "published")
            params["detector"] = {name: value for name, value in params["detector"].items() if name not in later}
        key = {
            "params": params,
            "code": [content_digest(PACKAGE / part) for part in CODE[self.stage]],
            "inputs": [content_digest(path) for path in (self.samples_path, *inputs)],
        }
        folder = WORK / self.stage / f"{self.name}-{digest(key)}"
        folder.mkdir(parents=True, exist_ok=True)
        self.used.add(folder)
        return folder
