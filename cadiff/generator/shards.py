"""A product's generated shards: planned row by row, drawn part by part, written as one Parquet file a type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cadiff.backbone import Backbone
from cadiff.data.images import load_samples, to_tensor, to_uint8
from cadiff.errors import CADiffError
from cadiff.generator.sample import Request, in_lanes, lanes, sample
from cadiff.generator.train import Generator, load_generator
from cadiff.params import Params
from cadiff.progress import Progress
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, MaskRow, SampleRow, to_table
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.storage import decode_image, encode_png, read_table, sha256_bytes, write_table

DIGESTED = ("seed", "dataset", "base", "adapt", "prompt", "control", "train", "masks", "intensity", "generate")
ROUND_TRIPS = 200  # normals that are sent through the autoencoder, at most


def generate_shards(
    params: Params, product: str, samples: list[SampleRow], adapted: Path, generator: Path, masks: list[MaskRow],
    out: Path, work: Path,
) -> None:  # fmt: skip
    """Writes ``out/<anomaly_type>.parquet`` for every type of ``masks``, and ``out/good.parquet``.

    Parts that ``work`` already holds are taken from there, so that a stopped run goes on where it was.
    """
    drawn = load_generator(params, product, adapted, generator)
    normals = {row.sample_id: row for row in samples if row.role == "normal"}
    bar = Progress(f"generate {product}", len(masks))
    for kind in sorted({row.anomaly_type for row in masks}):
        chosen = sorted((row for row in masks if row.anomaly_type == kind), key=lambda row: row.index)
        parts = []
        for start in range(0, len(chosen), params.generate.part):
            rows, path = chosen[start : start + params.generate.part], work / f"{kind}-{start:06d}.parquet"
            if not path.exists():
                write_table(path, to_table(_draw(drawn, params, product, rows, normals), GENERATED_SCHEMA))
            parts.append(read_table(path, GENERATED_SCHEMA))
            bar.advance(len(rows))
        write_table(out / f"{kind}.parquet", pa.concat_tables(parts).combine_chunks())
    write_table(out / "good.parquet", to_table(_round_trips(drawn.backbone, params, product, list(normals.values())), GENERATED_SCHEMA))


def _draw(
    generator: Generator, params: Params, product: str, masks: Sequence[MaskRow], normals: dict[str, SampleRow]
) -> list[GeneratedRow]:
    rows: list[GeneratedRow] = []
    for start in range(0, len(masks), params.generate.batch):
        rows += draw_rows(generator, params, product, masks[start : start + params.generate.batch], normals)
    return rows


def draw_rows(
    generator: Generator, params: Params, product: str, masks: Sequence[MaskRow], normals: dict[str, SampleRow]
) -> list[GeneratedRow]:
    """One batch: a row per mask, its intensity, template, noise and normal all drawn from its own seed."""
    requests = [request_for(generator, params, row, normals) for row in masks]
    images, since = sample(generator, requests, params.generate, params.intensity)
    rows = []
    for row, request, picture, steps in zip(masks, requests, to_uint8(images), since.tolist(), strict=True):
        image = encode_png(picture)
        begun = [step for step in steps if 0 <= step < params.generate.steps]
        rows.append(
            GeneratedRow(
                sample_id=row.mask_id, product=product, anomaly_types=list(request.types),
                image={"bytes": image, "path": f"{row.mask_id}.png"},
                mask={"bytes": row.mask["bytes"], "path": f"{row.mask_id}_mask.png"}, mask_source=row.mask_source,
                prompt=request.prompt.text, intensity=request.intensities[0], seed=request.seed,
                steps=params.generate.steps, guidance_scale=params.generate.guidance_scale,
                focus_step=min(begun) if begun else None, base_digest=generator.backbone.digest,
                generator_digest=generator.digest, params_digest=params.digest_of(*DIGESTED), image_sha256=sha256_bytes(image),
            )
        )
    return rows


def request_for(generator: Generator, params: Params, row: MaskRow, normals: dict[str, SampleRow]) -> Request:
    """What a mask's image is drawn from: all of it from seeds that are named after the mask."""
    rng = numpy_generator(params.seed, "generate", row.mask_id)
    intensity = float(rng.uniform(params.intensity.low, params.intensity.high))
    prompt = generator.tokens.prompt(generator.backbone, [row.anomaly_type], int(rng.integers(1 << 30)))
    normal_id = row.normal_id or sorted(normals)[int(rng.integers(len(normals)))]
    mask = torch.from_numpy(decode_image(row.mask["bytes"], "L", row.mask_id) > 127)[None]
    background = _latents_of(generator.backbone, normals, normal_id, params) if params.generate.background == "real" else None
    seed = derive_seed(params.seed, "noise", row.mask_id)
    return Request(prompt, (row.anomaly_type,), mask, (intensity,), seed, background)


def _latents_of(backbone: Backbone, normals: dict[str, SampleRow], normal_id: str, params: Params) -> Tensor:
    if normal_id not in normals:
        raise CADiffError(f"masks: {normal_id} is not among the product's normals. Rerun the masks stage.")
    images, _ = load_samples([normals[normal_id]], params.base.size)
    return backbone.encode(to_tensor(images))[0]


def _round_trips(backbone: Backbone, params: Params, product: str, normals: list[SampleRow]) -> list[GeneratedRow]:
    """Normals after the autoencoder: the detector must not tell generated images by the codec's trace."""
    rng = numpy_generator(params.seed, "round-trips", product)
    order = rng.permutation(len(normals))[:ROUND_TRIPS]
    chosen = [normals[i] for i in sorted(order)]
    images, _ = load_samples(chosen, params.base.size)
    rows: list[GeneratedRow] = []
    for group in in_lanes(len(chosen), lanes(backbone, params.base.size) or params.generate.batch):
        decoded = to_uint8(backbone.decode(backbone.encode(to_tensor(images[group]))))
        rows += [_good_row(backbone, params, product, chosen[i], picture) for i, picture in zip(group, decoded, strict=True)]
    return rows[: len(chosen)]


def _good_row(backbone: Backbone, params: Params, product: str, row: SampleRow, picture: np.ndarray) -> GeneratedRow:
    image, mask = encode_png(picture), encode_png(np.zeros(picture.shape[:2], np.uint8))
    return GeneratedRow(
        sample_id=row.sample_id, product=product, anomaly_types=[], image={"bytes": image, "path": f"{row.sample_id}.png"},
        mask={"bytes": mask, "path": f"{row.sample_id}_mask.png"}, mask_source="none", prompt=None, intensity=None,
        seed=params.seed, steps=None, guidance_scale=None, focus_step=None, base_digest=backbone.digest,
        generator_digest=None, params_digest=params.digest_of(*DIGESTED), image_sha256=sha256_bytes(image),
    )
