"""A product's generated shards: scenes drawn part by part, written as one Parquet file a type."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import UInt8

from cadiff.cluster import run_parts
from cadiff.data.images import to_tensor, to_uint8
from cadiff.generator.draw import Drawn, draw_scenes
from cadiff.generator.methods import load_generator, settings_of
from cadiff.generator.model import Generator, Paster
from cadiff.generator.sample import in_lanes, lanes
from cadiff.generator.setting import Read, reader
from cadiff.params import RESULT_KEYS, Params
from cadiff.pictures import resize_picture
from cadiff.progress import Progress
from cadiff.records import ATTEMPTS, GENERATED_SCHEMA, REDRAWN, GeneratedRow, SampleRow, to_table
from cadiff.scene import Scene
from cadiff.seeds import numpy_generator
from cadiff.storage import digest, encode_png, read_table, sha256_bytes, table_writer, write_table
from cadiff.task import Task

DIGESTED = ("seed", "dataset", "base", "window", "adapt", "prompt", "control", "train", "masks", "intensity", "generate", "perturbed")
GOOD = "good"
UNTOUCHED = 200  # normals in which no place is drawn anew, at most


@dataclass(frozen=True)
class Source:
    """What draws a task's images; ``version`` changes when one of its files or parameters does."""

    task: Task
    adapted: Path
    generator: Path
    version: str


@dataclass(frozen=True)
class Part:
    """Rows of one shard that are made together: scenes to draw, or normals that take the generator's path and nothing else."""

    shard: str
    start: int
    scenes: tuple[Scene, ...]
    normals: tuple[SampleRow, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.shard}-{self.start:06d}.parquet"

    @property
    def size(self) -> int:
        return len(self.scenes) or len(self.normals)


def generate_shards(task: Task, adapted: Path, generator: Path, scenes: Sequence[Scene], out: Path, work: Path) -> None:
    """Writes ``out/<anomaly_type>.parquet`` for every type of the scenes, and ``out/good.parquet``.

    Parts that ``work`` already holds are taken from there, so that a stopped run goes on where it was. The others are
    drawn where ``cluster`` says and written here.
    """
    params, product, method = task.params, task.product, task.method
    normals = [row for row in task.samples if row.role == "normal"]
    parts = plan_parts(params, product, normals, scenes)
    todo = [part for part in parts if not (work / part.name).exists()]
    total = sum(part.size for part in parts)
    bar = Progress(f"generate {product} {method}", total, total - sum(part.size for part in todo))
    source = Source(replace(task, samples=()), adapted, generator, version_of(params, method, adapted, generator))
    for index, table in run_parts(params.cluster, draw_part, (source,), [(part,) for part in todo]):
        write_table(work / todo[index].name, table)
        bar.advance(todo[index].size)
    _loaded.clear()
    shards = dict.fromkeys(part.shard for part in parts)
    for stale in (path for path in out.glob("*.parquet") if path.stem not in shards):
        stale.unlink()  # of a type that there was: a detector is trained on all shards
    for shard in shards:
        lacking = rows = 0
        with table_writer(out / f"{shard}.parquet", GENERATED_SCHEMA) as append:  # a part in memory at a time
            for part in (part for part in parts if part.shard == shard):
                table = read_table(work / part.name, GENERATED_SCHEMA)
                append(table)
                lacking, rows = lacking + (pc.sum(pc.greater(table["attempts"], ATTEMPTS)).as_py() or 0), rows + table.num_rows
        if lacking:
            real = params.generate.background == "real"
            what = "are not seen, or fill too little of their masks," if real else "do not lie on the product that was drawn"
            print(
                f"generate {product} {method}: {lacking} of {rows} of {shard} {what} after {ATTEMPTS} drawings; the best are kept "
                f"(attempts: {ATTEMPTS + 1})", file=sys.stderr,
            )  # fmt: skip


def plan_parts(params: Params, product: str, normals: Sequence[SampleRow], scenes: Sequence[Scene]) -> list[Part]:
    """The shards of all anomaly types, by name, then ``good``, in parts of ``generate.batch`` images.

    ``good`` are normals that the detector must not tell from what is around an anomaly. Where scenes ask for nothing (``generate.redraw``)
    they are those, each with a place drawn anew: the untouched are a detector's own half of its normals already. Else they are normals
    as they are, or where no pixel of a picture is kept (``generate.blend``) as they come through the autoencoder.
    """
    size, parts = params.generate.batch, []
    for kind in sorted({scene.types[0] for scene in scenes if scene.named}):
        own = sorted((scene for scene in scenes if scene.named and scene.types[0] == kind), key=lambda scene: scene.scene_id)
        parts += [Part(kind, k, tuple(own[k : k + size])) for k in range(0, len(own), size)]
    if redrawn := [scene for scene in scenes if not scene.named]:
        return parts + [Part(GOOD, k, tuple(redrawn[k : k + size])) for k in range(0, len(redrawn), size)]
    order = numpy_generator(params.seed, "round-trips", product).permutation(len(normals))[:UNTOUCHED]
    chosen = [normals[i] for i in sorted(order)]
    return parts + [Part(GOOD, k, (), tuple(chosen[k : k + size])) for k in range(0, len(chosen), size)]


def version_of(params: Params, method: str, adapted: Path, generator: Path) -> str:
    """Cheap to compute, unlike a digest of gigabytes: names, sizes and times of the files that are loaded."""
    files = sorted(path for folder in (adapted, generator) for path in folder.rglob("*") if path.is_file())
    stats = [(path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digest([params.digest_of(*RESULT_KEYS), method, stats])


_loaded: dict[str, Generator | Paster] = {}


def load_source(source: Source) -> Generator | Paster:
    """The generator, loaded once for all of a process's parts."""
    if source.version not in _loaded:
        _loaded.clear()  # one at a time: it may fill a device
        _loaded[source.version] = load_generator(source.task, source.adapted, source.generator)
    return _loaded[source.version]


def draw_part(source: Source, part: Part) -> pa.Table:
    """One part's rows (GENERATED_SCHEMA); they depend on the part alone, not on where or when it is drawn."""
    generator, params = load_source(source), settings_of(source.task.method, source.task.params)
    read, batch = reader(params), params.generate.batch
    rows: list[GeneratedRow] = []
    for start in range(0, len(part.scenes), batch):
        drawn = draw_scenes(generator, params, part.scenes[start : start + batch], read=read)
        rows += [generated_row(generator, params, one) for one in drawn]
    if part.normals:
        rows += _kept_normals(generator, params, source.task.product, part.normals, read)
    return to_table(rows, GENERATED_SCHEMA)


def generated_row(generator: Generator | Paster, params: Params, drawn: Drawn, name: str | None = None) -> GeneratedRow:
    """A drawn scene with its provenance; ``name`` is the stem of its files. ``intensity`` is null where its types have different ones. The
    mask of a scene that asks for nothing says where a normal was drawn anew."""
    scene, image, weights = drawn.scene, encode_png(drawn.image), set(drawn.scene.intensities)
    begun = [step for step in drawn.since if 0 <= step < params.generate.steps]
    stem = name or scene.scene_id
    in_place = scene.picture is not None and scene.normal is not None and scene.picture.sample_id != scene.normal.sample_id
    return GeneratedRow(
        sample_id=scene.scene_id, product=scene.product, anomaly_types=list(dict.fromkeys(scene.types)) if scene.named else [],
        image={"bytes": image, "path": f"{stem}.png"},
        mask={"bytes": encode_png(scene.mask.astype(np.uint8) * 255), "path": f"{stem}_mask.png"},
        mask_source=scene.source if scene.named else REDRAWN, prompt=drawn.prompt,
        intensity=weights.pop() if len(weights) == 1 and scene.named else None, seed=scene.seed,
        steps=params.generate.steps if drawn.windows else None,
        guidance_scale=params.generate.guidance_scale if drawn.windows else None, focus_step=min(begun, default=None),
        normal_id=scene.normal.sample_id if scene.normal and scene.picture and not in_place and not scene.edits else None,
        exemplar_ids=[a.exemplar.sample_id if a.exemplar else None for a in scene.anomalies] if scene.named else [],
        base_digest=generator.base_digest, generator_digest=generator.digest, params_digest=params.digest_of(*DIGESTED),
        image_sha256=sha256_bytes(image), attempts=drawn.attempts, approximate=scene.approximate,
    )  # fmt: skip


def _kept_normals(
    generator: Generator | Paster, params: Params, product: str, normals: Sequence[SampleRow], read: Read
) -> list[GeneratedRow]:
    """Normals as what is around an anomaly looks: as they are, or where no pixel of theirs is kept as the autoencoder gives them back."""
    pictures = [read(row).image for row in normals]
    if isinstance(generator, Generator) and (params.generate.blend is None or params.generate.background != "real"):
        pictures = _round_trips(generator, params, pictures)
    return [_good_row(generator, params, product, row, picture) for row, picture in zip(normals, pictures, strict=True)]


def _round_trips(generator: Generator, params: Params, pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[UInt8[np.ndarray, "h w 3"]]:
    backbone, size = generator.backbone, params.base.size
    found: list[np.ndarray] = []
    for group in in_lanes(len(pictures), lanes(backbone, size) or params.generate.batch):
        seen = np.stack([resize_picture(pictures[i], (size, size)) for i in group])
        decoded = to_uint8(backbone.decode(backbone.encode(to_tensor(seen))))
        found += [resize_picture(one, pictures[i].shape[:2]) for i, one in zip(group, decoded, strict=True)]
    return found[: len(pictures)]


def _good_row(generator: Generator | Paster, params: Params, product: str, row: SampleRow, picture: np.ndarray) -> GeneratedRow:
    image, mask = encode_png(picture), encode_png(np.zeros(picture.shape[:2], np.uint8))
    return GeneratedRow(
        sample_id=row.sample_id, product=product, anomaly_types=[], image={"bytes": image, "path": f"{row.sample_id}.png"},
        mask={"bytes": mask, "path": f"{row.sample_id}_mask.png"}, mask_source="none", prompt=None, intensity=None,
        seed=params.seed, steps=None, guidance_scale=None, focus_step=None, normal_id=row.sample_id, exemplar_ids=[],
        base_digest=generator.base_digest, generator_digest=None, params_digest=params.digest_of(*DIGESTED),
        image_sha256=sha256_bytes(image),
    )  # fmt: skip

