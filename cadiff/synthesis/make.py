"""One call for every method: real images in, shards (GENERATED_SCHEMA) out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from cadiff.errors import CADiffError, UsageError
from cadiff.names import UNKNOWN
from cadiff.params import EXEMPLARS, Params
from cadiff.pictures import Pictures
from cadiff.progress import Progress
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, SampleRow, to_table
from cadiff.seeds import derive_seed
from cadiff.storage import digest, encode_png, sha256_bytes, table_writer
from cadiff.synthesis.cutpaste import cutpaste
from cadiff.synthesis.exemplars import warp
from cadiff.synthesis.nsa import nsa
from cadiff.synthesis.perlin import perlin
from cadiff.synthesis.photometric import Drawn
from cadiff.task import Task

GOOD = "good"
TYPELESS_METHODS = {"cutpaste": cutpaste, "nsa": nsa, "perlin": perlin}
SYNTHESIZERS = (EXEMPLARS, *TYPELESS_METHODS)
_ROWS = 16  # in memory at a time, so that it does not grow with the shard


class Made(NamedTuple):
    """What was drawn, and what its row says of where it came from."""

    drawn: Drawn
    source: str
    normal_id: str | None
    exemplar_ids: list[str | None]
    approximate: bool = False


@dataclass(frozen=True)
class _Images(Sequence[UInt8[np.ndarray, "_ _ 3"]]):
    """The images alone of pictures that are decoded when asked for."""

    pictures: Pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "_ _ 3"]:  # type: ignore[override]
        return self.pictures[index].image


def synthesize(task: Task, out: Path) -> None:
    """Writes ``out/<type>.parquet`` with ``generate.per_type`` images at the canvas for each type.

    - ``exemplars``: each exemplar in turn, warped (``train.crop``, ``translate``, ``rotate``) with its mask. The warp resamples
      pixels, so ``good.parquet`` has normals that were warped alike, and no row has a ``normal_id``.
    - ``cutpaste``, ``nsa``, ``perlin``: no exemplar is used and there are no defect types; ``anomaly.parquet`` has
      ``per_type`` times the number of types, so that methods are compared at the same count.

    Each image has the canvas of the normal or exemplar that it is made from. Row k depends on (seed, method, product, type, k)
    and the real images, not on the count.

    Raises:
        UsageError: if there is no such method.
        CADiffError: if the images that the method needs are missing.
    """
    rows = [row for row in task.samples if row.product == task.product]
    types = sorted({row.anomaly_type for row in rows if row.role == "exemplar" and row.anomaly_type})
    per_type = task.params.generate.per_type
    if task.method == EXEMPLARS:
        if not types:
            raise CADiffError(f"{task.product}: expected exemplars to augment, found none. Check dataset.root.")
        for name in types:
            chosen = [row for row in rows if row.role == "exemplar" and row.anomaly_type == name]
            _write(task, out, name, per_type, _warped(task.params, chosen))
        _write(task, out, GOOD, per_type, _warped(task.params, _normals(rows, task.product)))
    elif task.method in TYPELESS_METHODS:
        count = per_type * max(1, len(types))
        _write(task, out, UNKNOWN, count, _typeless(task.params, task.method, _normals(rows, task.product)))
    else:
        raise UsageError(f"methods: expected one of {', '.join(SYNTHESIZERS)} to synthesize, found {task.method!r}.")


def _normals(rows: Sequence[SampleRow], product: str) -> list[SampleRow]:
    normals = [row for row in rows if row.role == "normal"]
    if not normals:
        raise CADiffError(
            f"{product}: expected train normals to synthesize from, found none. Check dataset.root."
        )
    return normals


def _typeless(params: Params, method: str, normals: Sequence[SampleRow]) -> Callable[[int, int], Made]:
    images = _Images(Pictures(normals, params.dataset.size))

    def draw(k: int, seed: int) -> Made:
        drawn = TYPELESS_METHODS[method](images, seed)
        return Made(drawn, method, normals[drawn.base].sample_id, [])

    return draw


def _warped(params: Params, rows: Sequence[SampleRow]) -> Callable[[int, int], Made]:
    pictures = Pictures(rows, params.dataset.size)

    def draw(k: int, seed: int) -> Made:
        which = k % len(rows)
        row, (image, mask) = rows[which], pictures[which]
        if row.role == "exemplar" and not mask.any():
            raise CADiffError(f"{row.mask_path or row.image_path}: expected a mask with anomaly in it, found none.")
        drawn = Drawn(*warp(image, mask, params.train, seed), which)
        return Made(drawn, f"{row.role}:{row.sample_id}", None, [row.sample_id] if row.role == "exemplar" else [], row.approximate)

    return draw


def _write(task: Task, out: Path, kind: str, count: int, draw: Callable[[int, int], Made]) -> None:
    """One shard, ``_ROWS`` images in memory at a time."""
    used = {"method": task.method, "seed": task.params.seed, "size": task.params.dataset.size}
    if task.method == EXEMPLARS:
        used |= task.params.train.model_dump(include={"crop", "translate", "rotate"})
    bar = Progress(f"synthesize {task.product} {kind} {task.method}", count)
    with table_writer(Path(out) / f"{kind}.parquet", GENERATED_SCHEMA) as write:
        for start in range(0, count, _ROWS):
            rows = []
            for k in range(start, min(start + _ROWS, count)):
                seed = derive_seed(task.params.seed, "synthesize", task.method, task.product, kind, k)
                rows.append(_row(f"{task.product}-{task.method}-{kind}-{k:05d}", task.product, kind, draw(k, seed), seed, digest(used)))
            write(to_table(rows, GENERATED_SCHEMA))
            bar.advance(len(rows))


def _row(name: str, product: str, kind: str, made: Made, seed: int, made_by: str) -> GeneratedRow:
    png, mask_png = encode_png(made.drawn.image), encode_png(np.where(made.drawn.mask, 255, 0).astype(np.uint8))
    return GeneratedRow(
        sample_id=name, product=product, anomaly_types=[] if kind == GOOD else [kind],
        image={"bytes": png, "path": f"{name}.png"}, mask={"bytes": mask_png, "path": f"{name}-mask.png"},
        mask_source=made.source, prompt=None, intensity=None, seed=seed, steps=None, guidance_scale=None,
        focus_step=None, normal_id=made.normal_id, exemplar_ids=made.exemplar_ids, base_digest=None, generator_digest=None,
        params_digest=made_by, image_sha256=sha256_bytes(png), approximate=made.approximate,
    )  # fmt: skip
