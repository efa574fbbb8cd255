"""The optional filter by rule: which generated images a detector does not learn from, decided by their quality signals alone.

No image is left out by hand, and none because of what a detector says of test images; off unless ``detector.protocol`` is
``filtered``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cadiff.detection.batches import GOOD
from cadiff.errors import CADiffError
from cadiff.metrics.quality import assess
from cadiff.params import EXEMPLARS
from cadiff.records import GENERATED_SCHEMA, MetricRow, QualityRow
from cadiff.storage import digest, read_table, write_table
from cadiff.task import Task

KEPT, UNKNOWN = "images_kept", "images_kept_unknown"


class Judged(NamedTuple):
    """The images of one type: ``left_out`` by sample_id for each rule, and the kept ones that a rule could not judge."""

    total: int
    left_out: dict[str, set[str]]
    unknown: int

    @property
    def out(self) -> set[str]:
        return set().union(*self.left_out.values())


def filter_shards(task: Task, sources: Mapping[str, Path], out: Path, foreign: bool = False) -> tuple[dict[str, Path], list[MetricRow]]:
    """The shard folders to train on in place of each source's (by method), and how many images they kept.

    Without rules these are the sources, and no rows. With rules, copies of them in ``out/<source>`` without the rows that
    a rule leaves out; normal images (``good``) and augmented exemplars all stay. ``foreign``: the sources were made
    elsewhere, so that one is not augmented exemplars because it has that name. Rows, as shares of the ``n`` images that
    were judged: ``images_kept``, and ``images_kept_unknown`` of those that stay because a signal is unknown; each also
    ``.../<type>``.

    Raises:
        CADiffError: if nothing is left of a type, or a source has no shards.
    """
    rules = task.params.filter.rules
    if not rules:
        return dict(sources), []
    kept, judged = dict(sources), []
    for source, folder in sources.items():
        if source == EXEMPLARS and not foreign:  # real images, of which a rule against copies of exemplars would leave none
            continue
        found = judge(assess(replace(task, method=source), folder), rules)
        for kind, verdict in found.items():
            _check_some_stay(f"{task.product}: {source}", kind, verdict, rules)
            _copy(folder / f"{kind}.parquet", out / source, verdict.out)
        if (folder / GOOD).is_file():
            shutil.copyfile(folder / GOOD, out / source / GOOD)
        kept[source] = out / source
        judged.append(found)
    return kept, _rows(task, judged)


def judge(rows: Sequence[QualityRow], rules: Mapping[str, float]) -> dict[str, Judged]:
    """Each type's generated images against the least values of the signals (``FilterParams.rules``)."""
    found = {}
    for kind in sorted({row.anomaly_type for row in rows if row.source == "generated"}):
        own = [row for row in rows if row.source == "generated" and row.anomaly_type == kind]
        left_out = {
            signal: {row.sample_id for row in own if (value := getattr(row, signal)) is not None and value < least}
            for signal, least in rules.items()
        }
        verdict = Judged(len(own), left_out, 0)
        kept = [row for row in own if row.sample_id not in verdict.out]
        unknown = sum(any(getattr(row, signal) is None for signal in rules) for row in kept)
        found[kind] = verdict._replace(unknown=unknown)
    return found


def _check_some_stay(name: str, kind: str, verdict: Judged, rules: Mapping[str, float]) -> None:
    if len(verdict.out) < verdict.total:
        return
    counts = {signal: len(names) for signal, names in verdict.left_out.items()}
    strictest = max(counts, key=lambda signal: counts[signal])
    said = ", ".join(f"filter.min_{signal}: {rules[signal]:g} leaves out {count}" for signal, count in counts.items())
    raise CADiffError(
        f"{name}: expected the filter to keep some of the {verdict.total} images of type {kind}, found none left ({said}). "
        f"Lower filter.min_{strictest}."
    )


def _copy(shard: Path, out: Path, left_out: set[str]) -> None:
    table = read_table(shard, GENERATED_SCHEMA)
    names = pa.array(sorted(left_out), pa.string())
    write_table(out / shard.name, table.filter(pc.invert(pc.is_in(table["sample_id"], names))))


def _rows(task: Task, judged: Sequence[Mapping[str, Judged]]) -> list[MetricRow]:
    """Of several sources, a type's images are counted together, as they are trained on."""
    made = digest([task.params.digest_of("filter"), task.params.dataset.size])
    result = []
    for kind in ["", *sorted({kind for found in judged for kind in found})]:
        chosen = [verdict for found in judged for name, verdict in found.items() if kind in ("", name)]
        total = sum(verdict.total for verdict in chosen)
        counts = {KEPT: total - sum(len(verdict.out) for verdict in chosen), UNKNOWN: sum(verdict.unknown for verdict in chosen)}
        result += [
            MetricRow(
                task.params.dataset.name, task.product, task.method, "images", f"{name}/{kind}" if kind else name, count / total,
                task.params.seed, total, task.params.detector.protocol, None, made,
            )
            for name, count in counts.items() if total
        ]  # fmt: skip
    return result
