"""One call for every method: real images in, shards (GENERATED_SCHEMA) out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool, UInt8

from cadiff.data.images import load_samples
from cadiff.errors import CADiffError, UsageError
from cadiff.params import Params
from cadiff.progress import Progress
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, SampleRow, to_table
from cadiff.seeds import derive_seed
from cadiff.storage import digest, encode_png, replacing, sha256_bytes
from cadiff.synthesis.cutpaste import cutpaste
from cadiff.synthesis.exemplars import warp
from cadiff.synthesis.nsa import nsa
from cadiff.synthesis.perlin import perlin

Image = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]
TYPELESS = "anomaly"  # the type of methods that know of no defect types
GOOD = "good"
TYPELESS_METHODS = {"cutpaste": cutpaste, "nsa": nsa, "perlin": perlin}
_ROWS = 64  # per row group, so that memory does not grow with the shard


class Drawn(NamedTuple):
    image: Image
    mask: Mask
    source: str


def synthesize(method: str, params: Params, product: str, samples: Sequence[SampleRow], out: Path) -> None:
    """Writes ``out/<type>.parquet`` with ``generate.per_type`` images at ``base.size`` for each type.

    - ``exemplars``: each exemplar in turn, warped (``train.crop``, ``translate``, ``rotate``) with its mask.
    The
      warp resamples pixels, so ``good.parquet`` has normals that were warped alike.
    - ``cutpaste``, ``nsa``, ``perlin``: no exemplar is used and there are no defect types; ``anomaly.parquet`` has
      ``per_type`` times the number of types, so that methods are compared at the same count.

    Row k depends on (seed, method, product, type, k) and the real images, not on the count.

    Raises:
        UsageError: if there is no such method.
        CADiffError: if the images that the method needs are missing.
    """
    params = params.for_product(product)
    rows = [row for row in samples if row.product == product]
    types = sorted({row.anomaly_type for row in rows if row.role == "exemplar" and row.anomaly_type})
    per_type = params.generate.per_type
    if method == "exemplars":
        if not types:
            raise CADiffError(f"{product}: expected exemplars to augment, found none. Check dataset.root.")
        for name in types:
            chosen = [row for row in rows if row.role == "exemplar" and row.anomaly_type == name]
            _write(out, method, params, product, name, per_type, _warped(params, chosen))
        _write(out, method, params, product, GOOD, per_type, _warped(params, _normals(rows, product)))
    elif method in TYPELESS_METHODS:
        normals, _ = load_samples(_normals(rows, product), params.base.size)
        draw = TYPELESS_METHODS[method]
        count = per_type * max(1, len(types))
        _write(
            out, method, params, product, TYPELESS, count, lambda k, seed: Drawn(*draw(normals, seed), method)
        )
    else:
        raise UsageError(f"methods: expected exemplars, cutpaste, nsa or perlin to synthesize, found {method!r}.")


def _normals(rows: Sequence[SampleRow], product: str) -> list[SampleRow]:
    normals = [row for row in rows if row.role == "normal"]
    if not normals:
        raise CADiffError(
            f"{product}: expected train normals to synthesize from, found none. Check dataset.root."
        )
    return normals


def _warped(params: Params, rows: Sequence[SampleRow]) -> Callable[[int, int], Drawn]:
    images, masks = load_samples(rows, params.base.size)
    for row, mask in zip(rows, masks, strict=True):
        if row.role == "exemplar" and not mask.any():
            raise CADiffError(
                f"{row.mask_path or row.image_path}: expected a mask with anomaly in it, found none."
            )

    def draw(k: int, seed: int) -> Drawn:
        which = k % len(rows)
        source = f"{rows[which].role}:{rows[which].sample_id}"
        return Drawn(*warp(images[which], masks[which], params.train, seed), source)

    return draw


def _write(
    out: Path,
    method: str,
    params: Params,
    product: str,
    kind: str,
    count: int,
    draw: Callable[[int, int], Drawn],
) -> None:
    """One shard, ``_ROWS`` images in memory at a time."""
    used = {"method": method, "seed": params.seed, "size": params.base.size}
    if method == "exemplars":
        used |= params.train.model_dump(include={"crop", "translate", "rotate"})
    bar = Progress(f"synthesize {product} {kind} {method}", count)
    with (
        replacing(Path(out) / f"{kind}.parquet") as temporary,
        pq.ParquetWriter(temporary, GENERATED_SCHEMA, compression="zstd", store_schema=True) as writer,
    ):
        for start in range(0, count, _ROWS):
            rows = []
            for k in range(start, min(start + _ROWS, count)):
                seed = derive_seed(params.seed, "synthesize", method, product, kind, k)
                rows.append(
                    _row(
                        f"{product}-{method}-{kind}-{k:05d}", product, kind, draw(k, seed), seed, digest(used)
                    )
                )
            writer.write_table(to_table(rows, GENERATED_SCHEMA))
            bar.advance(len(rows))


def _row(name: str, product: str, kind: str, drawn: Drawn, seed: int, made_by: str) -> GeneratedRow:
    png, mask_png = encode_png(drawn.image), encode_png(np.where(drawn.mask, 255, 0).astype(np.uint8))
    return GeneratedRow(
        sample_id=name, product=product, anomaly_types=[] if kind == GOOD else [kind],
        image={"bytes": png, "path": f"{name}.png"}, mask={"bytes": mask_png, "path": f"{name}-mask.png"},
        mask_source=drawn.source, prompt=None, intensity=None, seed=seed, steps=None, guidance_scale=None,
        focus_step=None, base_digest=None, generator_digest=None, params_digest=made_by,
        image_sha256=sha256_bytes(png),
    )  # fmt: skip
