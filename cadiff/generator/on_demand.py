"""Images on demand: scenes of one or several anomaly types, each with its own mask and its own intensity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from cadiff.data.images import to_uint8
from cadiff.generator.planting import Cutting
from cadiff.generator.reweighting import Reading
from cadiff.generator.sample import Request, sample
from cadiff.generator.shards import backdrop, generated_row
from cadiff.generator.train import Generator, load_generator
from cadiff.params import Params
from cadiff.progress import Progress
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, to_table
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.storage import encode_png, read_image, write_bytes, write_image, write_json, write_table


@dataclass(frozen=True)
class Scene:
    """One image to draw: a mask at ``base.size`` for each anomaly type, and the picture whose latents are kept
    outside of them (None: the whole image is generated). ``name`` is the stem of its files. ``edits``: the picture
    is one that the call names, from which a type with w <= 0 is healed. ``weights``: the w of types that have their own.
    ``cuttings`` are the masks' exemplars, for ``generate.start: exemplar``; none: from noise."""

    name: str
    sample_id: str
    masks: dict[str, Bool[np.ndarray, "h w"]]
    mask_source: str
    background: Path | None = None
    edits: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)
    cuttings: Sequence[Cutting] = ()


def draw_on_demand(
    params: Params, product: str, adapted: Path, generator: Path, scenes: Sequence[Scene], out: Path
) -> list[GeneratedRow]:
    """Draws every scene with the product's trained generator.

    Writes ``out/<name>.png`` and ``out/<name>_mask.png`` (all types together); for several types also each one's
    own, ``out/masks/<type>/<name>.png``; at the end ``out/rows.parquet`` (GENERATED_SCHEMA) and
    ``out/scenes.json``: each sample_id's intensity by type, and its background. The column ``intensity`` is null
    where an image's types have different ones.

    Raises:
        CADiffError: if an artefact is absent or belongs to another base.
    """
    drawn = load_generator(params, product, adapted, generator)
    rows: list[GeneratedRow] = []
    bar = Progress(f"generate {product}", len(scenes))
    for start in range(0, len(scenes), params.generate.batch):
        batch = scenes[start : start + params.generate.batch]
        for scene, row in zip(batch, draw_scenes(drawn, params, product, batch), strict=True):
            _write_images(scene, row, out)
            rows.append(row)
        bar.advance(len(batch))
    write_json(out / "scenes.json", {scene.sample_id: _describe(params, scene) for scene in scenes})
    write_table(out / "rows.parquet", to_table(rows, GENERATED_SCHEMA))
    return rows


def draw_scenes(
    generator: Generator, params: Params, product: str, scenes: Sequence[Scene],
    record: Callable[[Reading], None] | None = None,
) -> list[GeneratedRow]:  # fmt: skip
    """One batch of scenes, a row each; what a scene draws at random depends on its ``sample_id`` alone, so that
    scenes that differ in intensity share their noise. ``record`` is told of every denoising step."""
    requests = [_request(generator, params, scene) for scene in scenes]
    images, since = sample(generator, requests, params.generate, params.intensity, record)
    drawn = zip(scenes, requests, to_uint8(images), since.tolist(), strict=True)
    return [_row(generator, params, product, *each) for each in drawn]


def intensities_of(params: Params, scene: Scene) -> dict[str, float]:
    """Each type's own w (Eq. 11): the scene's, else uniform in [intensity.low, intensity.high]."""
    low, high = params.intensity.low, params.intensity.high
    streams = {kind: numpy_generator(params.seed, "intensity", scene.sample_id, kind) for kind in scene.masks}
    return {kind: scene.weights.get(kind, float(rng.uniform(low, high))) for kind, rng in streams.items()}


def _request(generator: Generator, params: Params, scene: Scene) -> Request:
    types = tuple(scene.masks)
    template = int(numpy_generator(params.seed, "template", scene.sample_id).integers(1 << 30))
    prompt = generator.tokens.prompt(generator.backbone, list(types), template)
    masks = torch.from_numpy(np.stack(list(scene.masks.values())))
    weights = intensities_of(params, scene)
    heals = scene.edits and min(weights.values()) <= 0  # what is to go must not be there at the start
    background = start = None
    if scene.background is not None:
        picture = read_image(scene.background, "RGB", params.base.size)
        background, start = backdrop(generator.backbone, params.generate, picture, scene.cuttings, weights)
    seed = derive_seed(params.seed, "noise", scene.sample_id)
    return Request(prompt, types, masks, tuple(weights.values()), seed, background, scene.edits, None if heals else start)


def _row(
    generator: Generator, params: Params, product: str, scene: Scene, request: Request,
    picture: UInt8[np.ndarray, "h w 3"], since: list[int],
) -> GeneratedRow:  # fmt: skip
    mask = encode_png(_pixels(np.any(list(scene.masks.values()), axis=0)))
    return generated_row(
        generator, params, product, request, picture, since,
        sample_id=scene.sample_id, name=scene.name, mask=mask, mask_source=scene.mask_source,
    )  # fmt: skip


def _write_images(scene: Scene, row: GeneratedRow, out: Path) -> None:
    for picture in (row.image, row.mask):
        write_bytes(out / picture["path"], picture["bytes"])
    if len(scene.masks) > 1:
        for kind, mask in scene.masks.items():
            write_image(out / "masks" / kind / f"{scene.name}.png", _pixels(mask))


def _pixels(mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    return np.where(mask, 255, 0).astype(np.uint8)


def _describe(params: Params, scene: Scene) -> dict[str, object]:
    background = scene.background.as_posix() if scene.background else None
    return {"intensities": intensities_of(params, scene), "background": background}
