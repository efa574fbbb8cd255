"""A product's generated shards: planned row by row, drawn part by part, written as one Parquet file a type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cadiff.backbone import Backbone
from cadiff.cluster import run_parts
from cadiff.data.images import load_samples, to_tensor, to_uint8
from cadiff.errors import CADiffError
from cadiff.generator.planting import Cutting, plant, setting_of
from cadiff.generator.sample import Request, in_lanes, lanes, sample
from cadiff.generator.train import Generator, load_generator
from cadiff.masks import mask_of, masks_of_type, placed_mask
from cadiff.masks.exemplars import ProductFinder
from cadiff.params import RESULT_KEYS, GenerateParams, Params
from cadiff.progress import Progress
from cadiff.records import GENERATED_SCHEMA, REDRAWN, GeneratedRow, MaskRow, SampleRow, to_table
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.storage import digest, encode_png, read_table, sha256_bytes, write_table

DIGESTED = ("seed", "dataset", "base", "adapt", "prompt", "control", "train", "masks", "intensity", "generate")
GOOD = "good"
ROUND_TRIPS = 200  # normals that are sent through the autoencoder, at most


@dataclass(frozen=True)
class Source:
    """What draws a product's images; ``version`` changes when one of its files or parameters does."""

    params: Params
    product: str
    adapted: Path
    generator: Path
    version: str


@dataclass(frozen=True)
class Part:
    """Rows of one shard that are drawn together: masks of one anomaly type, or normals for ``good``."""

    shard: str
    start: int
    masks: tuple[MaskRow, ...]
    normals: tuple[SampleRow, ...]

    @property
    def name(self) -> str:
        return f"{self.shard}-{self.start:06d}.parquet"

    @property
    def size(self) -> int:
        return len(self.masks) or len(self.normals)


def generate_shards(
    params: Params, product: str, samples: list[SampleRow], adapted: Path, generator: Path, masks: list[MaskRow],
    out: Path, work: Path,
) -> None:  # fmt: skip
    """Writes ``out/<anomaly_type>.parquet`` for every type of ``masks``, and ``out/good.parquet``.

    Parts that ``work`` already holds are taken from there, so that a stopped run goes on where it was. The others are
    drawn where ``params.cluster`` says and written here.
    """
    shown = [row for row in samples if row.role in ("normal", "exemplar")]
    normals = [row for row in shown if row.role == "normal"]
    parts = plan_parts(params, product, normals, masks)
    todo = [part for part in parts if not (work / part.name).exists()]
    total = sum(part.size for part in parts)
    bar = Progress(f"generate {product}", total, total - sum(part.size for part in todo))
    source = Source(params, product, adapted, generator, version_of(params, adapted, generator))
    for index, table in run_parts(params.cluster, draw_part, (source, shown), [(part,) for part in todo]):
        write_table(work / todo[index].name, table)
        bar.advance(todo[index].size)
    _loaded.clear()
    shards = dict.fromkeys(part.shard for part in parts)
    for stale in (path for path in out.glob("*.parquet") if path.stem not in shards):
        stale.unlink()  # of a type that there was: a detector is trained on all shards
    for shard in shards:
        tables = [read_table(work / part.name, GENERATED_SCHEMA) for part in parts if part.shard == shard]
        write_table(out / f"{shard}.parquet", pa.concat_tables(tables).combine_chunks())


def plan_parts(params: Params, product: str, normals: list[SampleRow], masks: list[MaskRow]) -> list[Part]:
    """The shards of all anomaly types, by name, then ``good``, in parts of ``generate.part`` images.

    ``good`` is normals after the autoencoder, and with ``generate.redraw`` after the denoising of a place in them too: the
    detector must not tell generated images by the codec's or the sampler's trace.
    """
    size = params.generate.part
    parts = []
    for kind in sorted({row.anomaly_type for row in masks}):
        rows = sorted((row for row in masks if row.anomaly_type == kind), key=lambda row: row.index)
        parts += [Part(kind, k, tuple(rows[k : k + size]), ()) for k in range(0, len(rows), size)]
    order = numpy_generator(params.seed, "round-trips", product).permutation(len(normals))[:ROUND_TRIPS]
    chosen = [normals[i] for i in sorted(order)]
    return parts + [Part(GOOD, k, (), tuple(chosen[k : k + size])) for k in range(0, len(chosen), size)]


def version_of(params: Params, adapted: Path, generator: Path) -> str:
    """Cheap to compute, unlike a digest of gigabytes: names, sizes and times of the files that are loaded."""
    files = sorted(path for folder in (adapted, generator) for path in folder.rglob("*") if path.is_file())
    stats = [(path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digest([params.digest_of(*RESULT_KEYS), stats])


_loaded: dict[str, Generator] = {}


def load_source(source: Source) -> Generator:
    """The generator, loaded once for all of a process's parts."""
    if source.version not in _loaded:
        _loaded.clear()  # one at a time: it may fill a device
        _loaded[source.version] = load_generator(source.params, source.product, source.adapted, source.generator)
    return _loaded[source.version]


def draw_part(source: Source, samples: list[SampleRow], part: Part) -> pa.Table:
    """One part's rows (GENERATED_SCHEMA); they depend on the part alone, not on where or when it is drawn.

    ``samples`` are the product's normals and exemplars.
    """
    generator, params, batch = load_source(source), source.params, source.params.generate.batch
    rows: list[GeneratedRow] = []
    by_id = {row.sample_id: row for row in samples}
    for start in range(0, len(part.masks), batch):
        rows += draw_rows(generator, params, source.product, part.masks[start : start + batch], by_id)
    if part.normals:
        rows += _round_trips(generator.backbone, params, source.product, part.normals)
    for start in range(0, len(part.normals) if params.generate.redraw else 0, batch):
        rows += _redrawn(generator, params, source.product, part.normals[start : start + batch], samples)
    return to_table(rows, GENERATED_SCHEMA)


def draw_rows(
    generator: Generator, params: Params, product: str, masks: Sequence[MaskRow], samples: dict[str, SampleRow]
) -> list[GeneratedRow]:
    """One batch: a row per mask, its intensity, template, noise and normal all drawn from its own seed."""
    requests = [request_for(generator, params, row, samples) for row in masks]
    images, since = sample(generator, requests, params.generate, params.intensity)
    drawn = zip(masks, requests, to_uint8(images), since.tolist(), strict=True)
    return [
        generated_row(
            generator, params, product, request, picture, steps,
            sample_id=row.mask_id, name=row.mask_id, mask=row.mask["bytes"], mask_source=row.mask_source,
        )
        for row, request, picture, steps in drawn
    ]  # fmt: skip


def generated_row(
    generator: Generator, params: Params, product: str, request: Request, picture: UInt8[np.ndarray, "h w 3"], since: Sequence[int],
    *, sample_id: str, name: str, mask: bytes, mask_source: str,
) -> GeneratedRow:  # fmt: skip
    """A drawn image with its provenance; ``name`` is the stem of its files, ``since`` the step at which each type's
    re-weighting began, ``mask`` a PNG. ``intensity`` is null where the image's types have different ones."""
    image, weights = encode_png(picture), set(request.intensities)
    begun = [step for step in since if 0 <= step < params.generate.steps]
    return GeneratedRow(
        sample_id=sample_id, product=product, anomaly_types=list(request.types),
        image={"bytes": image, "path": f"{name}.png"}, mask={"bytes": mask, "path": f"{name}_mask.png"}, mask_source=mask_source,
        prompt=request.prompt.text, intensity=weights.pop() if len(weights) == 1 else None, seed=request.seed,
        steps=params.generate.steps, guidance_scale=params.generate.guidance_scale, focus_step=min(begun, default=None),
        base_digest=generator.backbone.digest, generator_digest=generator.digest, params_digest=params.digest_of(*DIGESTED),
        image_sha256=sha256_bytes(image),
    )  # fmt: skip


def request_for(generator: Generator, params: Params, row: MaskRow, samples: dict[str, SampleRow]) -> Request:
    """What a mask's image is drawn from: all of it from seeds that are named after the mask."""
    rng = numpy_generator(params.seed, "generate", row.mask_id)
    intensity = float(rng.uniform(params.intensity.low, params.intensity.high))
    prompt = generator.tokens.prompt(generator.backbone, [row.anomaly_type], int(rng.integers(1 << 30)))
    normal_id = row.normal_id or _any_normal(samples, rng)
    mask = torch.from_numpy(mask_of(row))[None]
    seed = derive_seed(params.seed, "noise", row.mask_id)
    if params.generate.background == "generated":
        return Request(prompt, (row.anomaly_type,), mask, (intensity,), seed)
    if normal_id not in samples:
        raise CADiffError(f"masks: {normal_id} is not among the product's normals. Rerun the masks stage.")
    normal = load_samples([samples[normal_id]], params.base.size)[0][0]
    picture, chosen = setting_of(params, normal, row, samples)
    background, start = backdrop(generator.backbone, params.generate, picture, chosen, {row.anomaly_type: intensity})
    return Request(prompt, (row.anomaly_type,), mask, (intensity,), seed, background, start=start)


def _any_normal(samples: dict[str, SampleRow], rng: np.random.Generator) -> str:
    normals = sorted(name for name, row in samples.items() if row.role == "normal")
    return normals[int(rng.integers(len(normals)))]


def backdrop(
    backbone: Backbone, params: GenerateParams, picture: UInt8[np.ndarray, "h w 3"], chosen: Sequence[Cutting], weights: Mapping[str, float]
) -> tuple[Float[Tensor, "c hl wl"], Float[Tensor, "c hl wl"] | None]:
    """The latents of the picture that an image is set in, and of what it starts from (``strength``, ``start``).

    The latter is None, for noise, at a strength of 1 and where exemplars are to be started from and none is ``chosen``.
    ``weights`` are the w of the types.
    """
    background = backbone.encode(to_tensor(picture[None]))[0]
    if params.strength == 1:
        return background, None
    if params.start == "background":
        return background, background
    return background, backbone.encode(to_tensor(plant(picture, chosen, weights)[None]))[0] if chosen else None


def _redrawn(
    generator: Generator, params: Params, product: str, normals: Sequence[SampleRow], samples: Sequence[SampleRow]
) -> list[GeneratedRow]:
    """Normals in which an exemplar's mask, moved, was drawn anew with the prompt of a good product: no anomaly, but all its traces.

    In the share of masks that stay in place it is the exemplar's own picture without its anomaly that takes the normal's place,
    or the detector would only ever see those pieces with one.
    """
    images, _ = load_samples(normals, params.base.size)
    exemplars, find = [row for row in samples if row.role == "exemplar"], ProductFinder(params.base.size)
    from_noise = params.generate.strength == 1 or (params.generate.start == "exemplar" and params.masks.source == "folder")  # as anomalies
    requests, by_id = [], {row.sample_id: row for row in exemplars}
    for row, picture in zip(normals, images, strict=True):
        seed = derive_seed(params.seed, "redraw", row.sample_id)
        rng, masks = numpy_generator(seed, "prompt"), params.masks.model_copy(update={"source": "exemplars"})
        own = params.model_copy(update={"seed": seed, "masks": masks})
        kind = generator.tokens.types[int(rng.integers(len(generator.tokens.types)))]
        if params.masks.in_place and rng.random() < params.masks.in_place:
            still = own.model_copy(update={"masks": masks.model_copy(update={"in_place": 1.0})})
            placed = masks_of_type(still, product, [row, *exemplars], kind, 1, find)[0]
            picture, _ = setting_of(params, picture, placed, by_id)
        else:
            placed = placed_mask(own, product, [row], exemplars, kind, find)
        mask = torch.from_numpy(mask_of(placed))[None]
        background = generator.backbone.encode(to_tensor(picture[None]))[0]
        start = None if from_noise else background
        prompt = generator.tokens.prompt(generator.backbone, [], int(rng.integers(1 << 30)))
        requests.append(Request(prompt, (kind,), mask, (1.0,), derive_seed(seed, "noise"), background, start=start))
    pictures = to_uint8(sample(generator, requests, params.generate, params.intensity)[0])
    named = [replace(row, sample_id=f"{row.sample_id}-redrawn") for row in normals]
    return [
        replace(
            _good_row(generator.backbone, params, product, row, picture), mask_source=REDRAWN, prompt=request.prompt.text,
            seed=request.seed, steps=params.generate.steps, guidance_scale=params.generate.guidance_scale,
            generator_digest=generator.digest,
        )
        for row, request, picture in zip(named, requests, pictures, strict=True)
    ]  # fmt: skip


def _round_trips(backbone: Backbone, params: Params, product: str, normals: Sequence[SampleRow]) -> list[GeneratedRow]:
    images, _ = load_samples(normals, params.base.size)
    rows: list[GeneratedRow] = []
    for group in in_lanes(len(normals), lanes(backbone, params.base.size) or params.generate.batch):
        decoded = to_uint8(backbone.decode(backbone.encode(to_tensor(images[group]))))
        rows += [_good_row(backbone, params, product, normals[i], picture) for i, picture in zip(group, decoded, strict=True)]
    return rows[: len(normals)]


def _good_row(backbone: Backbone, params: Params, product: str, row: SampleRow, picture: np.ndarray) -> GeneratedRow:
    image, mask = encode_png(picture), encode_png(np.zeros(picture.shape[:2], np.uint8))
    return GeneratedRow(
        sample_id=row.sample_id, product=product, anomaly_types=[], image={"bytes": image, "path": f"{row.sample_id}.png"},
        mask={"bytes": mask, "path": f"{row.sample_id}_mask.png"}, mask_source="none", prompt=None, intensity=None,
        seed=params.seed, steps=None, guidance_scale=None, focus_step=None, base_digest=backbone.digest,
        generator_digest=None, params_digest=params.digest_of(*DIGESTED), image_sha256=sha256_bytes(image),
    )
