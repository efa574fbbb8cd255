"""The one door through which the report reads: an absent file is an error, or noted when a part is enough."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cadiff.errors import CADiffError
from cadiff.names import UNKNOWN
from cadiff.params import KINDS, METHODS, OURS, Params, parts_of
from cadiff.records import (
    ATTENTION_SCHEMA,
    CURVE_SCHEMA,
    GENERATED_SCHEMA,
    METRIC_SCHEMA,
    QUALITY_SCHEMA,
    SAMPLE_SCHEMA,
    SCORED_SCHEMA,
    SHOWCASE_SCHEMA,
    VALIDATION_SCHEMA,
    VECTOR_SCHEMA,
    AttentionRow,
    GeneratedRow,
    Levels,
    QualityRow,
    SampleRow,
    ScoredRow,
    ShowcaseRow,
    ValidationRow,
    VectorRow,
    from_table,
)
from cadiff.storage import missing, read_batches, read_image, read_json, read_sealed, read_table

ABLATIONS = Path("data/ablations")  # where benchmarks/ablations.py leaves a table for each data set
SHOWN = OURS  # the generator whose words, attention and intensities the page shows
WITH_SHOWN = {name for name in METHODS if SHOWN in parts_of(name)}


def shipped_folder(method: str, product: str) -> str:
    return f"data/made/shipped/{method}/{product}"


def pace_path(method: str, product: str) -> str:
    return f".cadiff/paces/{method}/{product}.json"


def ablations_of(dataset: str) -> Path:
    return ABLATIONS / f"{dataset}.parquet"


def claims_of(dataset: str) -> Path:
    """Where benchmarks/claims.py leaves its table of a data set."""
    return ABLATIONS / "claims" / f"{dataset}.parquet"


@dataclass
class Artefacts:
    """What the stages left below ``root``. With ``partial`` an absent file reads as empty and is listed in
    ``absent``; without, it is a CADiffError that names it."""

    params: Params
    root: Path
    partial: bool = False
    absent: list[str] = field(default_factory=list)

    def table(self, relative: str, schema: pa.Schema) -> pa.Table:
        """The Parquet file at ``root/relative``."""
        if self._is_there(relative):
            return read_table(self.root / relative, schema)
        return schema.empty_table()

    def samples(self, product: str) -> list[SampleRow]:
        return from_table(self.table(f"data/made/samples/{product}.parquet", SAMPLE_SCHEMA), SampleRow)

    def exemplars(self, product: str) -> list[SampleRow]:
        """The anomalies that may be trained on, with their masks, by type and name."""
        rows = [row for row in self.samples(product) if row.role == "exemplar" and row.anomaly_type]
        return sorted(rows, key=lambda row: (row.anomaly_type or "", row.sample_id))

    def types(self, product: str, method: str) -> list[str]:
        """The anomaly types that a method's images are of; none where it has no images of its own."""
        kind = self.params.kind_of(method)
        if "quality" not in KINDS[kind]:
            return []
        if method in METHODS and METHODS[method].typed:
            return sorted({str(row.anomaly_type) for row in self.exemplars(product)})
        if kind == "synthesizer":
            return [UNKNOWN]
        folder = self.root / "data/made/generated" / method / product  # the shards say what there is
        return sorted(path.stem for path in folder.glob("*.parquet") if path.stem != "good")

    def lack_good(self, method: str) -> list[str]:
        """The products whose shards of this method have no normal images that took its generator's path."""
        folders = {product: self.root / "data/made/generated" / method / product for product in self.params.products}
        return [product for product, folder in folders.items() if folder.is_dir() and not (folder / "good.parquet").is_file()]

    def generated(self, method: str, product: str, anomaly_type: str) -> list[GeneratedRow]:
        name = f"data/made/generated/{method}/{product}/{anomaly_type}.parquet"
        return from_table(self.table(name, GENERATED_SCHEMA), GeneratedRow)

    def mask_sources(self, method: str, product: str, anomaly_type: str) -> list[str]:
        """How each image's mask came to lie where it does."""
        return [str(source) for source in self._of_generated(method, product, anomaly_type, "mask_source")]

    def approximate(self, method: str, product: str, anomaly_type: str) -> list[bool]:
        """Of each image whether its mask is approximate."""
        return [bool(one) for one in self._of_generated(method, product, anomaly_type, "approximate")]

    def attempts(self, method: str, product: str, anomaly_type: str) -> list[int | None]:
        """Of each image the drawing that had what was asked for (``GeneratedRow``); None: nothing was looked for."""
        return self._of_generated(method, product, anomaly_type, "attempts")

    def _of_generated(self, method: str, product: str, anomaly_type: str, column: str) -> list[Any]:
        name = f"data/made/generated/{method}/{product}/{anomaly_type}.parquet"
        return read_table(self.root / name, GENERATED_SCHEMA, [column])[column].to_pylist() if self._is_there(name) else []

    def metrics(self, method: str, product: str) -> pa.Table:
        return self.table(f"data/made/evaluated/{method}/{product}/metrics.parquet", METRIC_SCHEMA)

    def published(self, method: str, product: str) -> pa.Table:
        """What the published evaluation gave; empty, and nothing absent, where it was not asked for."""
        path = self.root / f"data/made/evaluated/{method}/{product}/published.parquet"
        return read_table(path, METRIC_SCHEMA) if path.is_file() else METRIC_SCHEMA.empty_table()

    def ablations(self, dataset: str) -> pa.Table:
        """Variants of the method measured on a data set; empty, and nothing absent, where they were not run: no stage runs them. So an
        older table, of days of trainings, is read too: whether its figures rest on approximate masks it does not know."""
        path = self.root / ablations_of(dataset)
        if not path.is_file():
            return METRIC_SCHEMA.empty_table()
        older = METRIC_SCHEMA.names[:-1]
        if (table := read_table(path)).column_names == older:
            return table.append_column(METRIC_SCHEMA.field("approximate"), pa.nulls(table.num_rows, pa.bool_()))
        return read_table(path, METRIC_SCHEMA)

    def claims(self, dataset: str) -> pa.Table:
        """What else of the paper was measured on a data set; empty, and nothing absent, where it was not: no stage does."""
        path = self.root / claims_of(dataset)
        return read_table(path, METRIC_SCHEMA) if path.is_file() else METRIC_SCHEMA.empty_table()

    def scored(self, method: str, product: str, only: Collection[str] | None = None, seed: int | None = None) -> Iterator[ScoredRow]:
        """What the detector of a seed (None: the lowest) said of each image that it did not learn from (``only``: of these), a few in
        memory at a time."""
        name = f"data/made/evaluated/{method}/{product}/scored.parquet"
        if not self._is_there(name):
            return
        wanted = pc.min(read_table(self.root / name, SCORED_SCHEMA, ["seed"])["seed"]) if seed is None else seed
        for table in read_batches(self.root / name, SCORED_SCHEMA):
            kept = pc.equal(table["seed"], wanted)
            if only is not None:
                kept = pc.and_(kept, pc.is_in(table["sample_id"], pa.array(sorted(only), pa.string())))
            yield from from_table(table.filter(kept), ScoredRow)

    def image_scores(self, method: str, product: str, seed: int) -> dict[str, float]:
        """{sample_id: score} of the held-out, good test and calibration images, by the detector of a seed; no map is read."""
        name = f"data/made/evaluated/{method}/{product}/scored.parquet"
        if not self._is_there(name):
            return {}
        table = read_table(self.root / name, SCORED_SCHEMA, ["sample_id", "seed", "image_score"])
        own = table.filter(pc.equal(table["seed"], seed))
        return dict(zip(own["sample_id"].to_pylist(), own["image_score"].to_pylist(), strict=True))

    def shipped(self, method: str, product: str) -> dict[str, Any] | None:
        """What ``detector.json`` says of a detector that was made ready to be taken away; None if absent. Read where the stage ``ship``
        leaves it for the report; the folder itself must be there too.

        Raises:
            CADiffError: if it was changed, there or in the folder.
        """
        name, folder = f"data/made/reported/shipped/{method}/{product}.json", shipped_folder(method, product)
        if not (self._is_there(name) and self._is_there(folder)):
            return None
        said, own = read_sealed(self.root / name), self.root / folder / "detector.json"
        if read_sealed(own) != said:
            raise CADiffError(f"{own}: expected the detector that {self.root / name} tells of, found another. Ship it again (dvc repro).")
        return said

    def pace(self, method: str, product: str, detector: str) -> tuple[float, int] | None:
        """The seconds that a shipped detector takes for a picture where it was made ready, and of how many they are the median; None, and
        nothing absent, where it was not timed. ``detector`` is its digest: of another nothing is told."""
        path = self.root / pace_path(method, product)
        told = read_json(path) if path.is_file() else {}
        return (told["seconds"], told["pictures"]) if told.get("detector") == detector else None

    def quality(self, method: str, product: str) -> list[QualityRow]:
        name = f"data/made/reported/quality/{method}/{product}.parquet"
        return from_table(self.table(name, QUALITY_SCHEMA), QualityRow)

    def showcase(self, product: str) -> list[ShowcaseRow]:
        return from_table(self._of_showcase(product, "pictures", SHOWCASE_SCHEMA), ShowcaseRow)

    def attention(self, product: str) -> list[AttentionRow]:
        return from_table(self._of_showcase(product, "attention", ATTENTION_SCHEMA), AttentionRow)

    def vectors(self, product: str) -> list[VectorRow]:
        return from_table(self._of_showcase(product, "vectors", VECTOR_SCHEMA), VectorRow)

    def _of_showcase(self, product: str, name: str, schema: pa.Schema) -> pa.Table:
        """Empty where no generator was trained."""
        if not WITH_SHOWN & set(self.params.methods):
            return schema.empty_table()
        return self.table(f"data/made/reported/showcase/{SHOWN}/{product}/{name}.parquet", schema)

    def generator_curve(self, method: str, product: str) -> pa.Table:
        """Empty, and nothing absent, where another generator than the page's own left none: not each of them learns."""
        name = f"data/made/generator/{method}/{product}/curve.parquet"
        if method != SHOWN and not (self.root / name).is_file():
            return CURVE_SCHEMA.empty_table()
        return self.table(name, CURVE_SCHEMA)

    def validation(self, product: str) -> list[ValidationRow]:
        """What the page's own generator drew while it was trained; empty where none was."""
        if not WITH_SHOWN & set(self.params.methods):
            return []
        return from_table(self.table(f"data/made/reported/validation/{SHOWN}/{product}/pictures.parquet", VALIDATION_SCHEMA), ValidationRow)

    def detector_curve(self, method: str, product: str, seed: int) -> pa.Table:
        return self.table(f"data/made/detectors/{method}/{product}/curve-{seed}.parquet", CURVE_SCHEMA)

    def image(
        self, path: str, mode: str = "RGB", shape: tuple[int, int] | None = None, levels: Levels | None = None
    ) -> np.ndarray | None:
        """A real image or mask (its path is relative to the root, or absolute) at a height and a width; None if absent."""
        return read_image(self.root / path, mode, shape, levels=levels) if self._is_there(path) else None

    def _is_there(self, relative: str) -> bool:
        if (self.root / relative).exists():
            return True
        if not self.partial:
            raise missing(self.root / relative)
        if relative not in self.absent:
            self.absent.append(relative)
        return False
