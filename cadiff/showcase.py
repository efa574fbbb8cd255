"""What the report's figures need from a trained generator: an intensity ladder, attention over the denoising steps,
compositions, edits of real images, and the learned tokens' vectors (Fig. 3, 4, 6 and 7).

Everything follows from the seed and the order of names; nothing is picked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cadiff.generator import Generator, draw_scenes, generated_row, load_generator, settings_of
from cadiff.generator.reweighting import Reading
from cadiff.generator.windows import pieces
from cadiff.intensity import mask_cells, reweight, strength, touched_cells
from cadiff.masks import Placed, Placer
from cadiff.params import Params
from cadiff.pictures import read_picture, resize_mask
from cadiff.progress import Progress
from cadiff.prompt.tokens import NORMAL_TEMPLATES, TEMPLATES, LearnedTokens
from cadiff.records import (
    ATTENTION_SCHEMA,
    SHOWCASE_SCHEMA,
    VECTOR_SCHEMA,
    AttentionRow,
    GeneratedRow,
    SampleRow,
    ShowcaseRow,
    VectorRow,
    to_table,
)
from cadiff.scene import Anomaly, Outline, Scene, union
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.storage import decode_image, write_table
from cadiff.task import Task

LADDER = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0)  # w, Fig. 3; the range that Eq. 11 allows is [-2, 2]
AMPLIFIED = 2.0  # w of the attention figure
EDITS = (0.0, 2.0)  # the concept silenced, amplified (Fig. 7)
TYPES = 4  # of a product, by name
PAIRS = 3
ATTENDED = 2  # types whose attention is shown
UNMOVED = "exemplars, unmoved"  # mask source of an edit: the real mask itself
Figure = Literal["ladder", "attention", "composition", "edit"]


@dataclass(frozen=True)
class Studio:
    """A product's generator with the real images that its scenes are set in. ``tokens`` are the generator's learned ones."""

    generator: Generator
    tokens: LearnedTokens
    params: Params
    product: str
    normals: list[SampleRow]
    exemplars: list[SampleRow]
    placer: Placer

    @property
    def types(self) -> list[str]:
        return sorted(self.tokens.types)[:TYPES]

    def with_intensity(self, **changes: object) -> Params:
        """The parameters with other settings of ``intensity``."""
        return self.params.model_copy(update={"intensity": self.params.intensity.model_copy(update=changes)})

    def draw(self, scenes: Sequence[Scene], params: Params | None = None, readings: list[Reading] | None = None) -> list[GeneratedRow]:
        """Rows of all scenes, ``generate.batch`` at a time (with ``readings``: at once, so that they belong together)."""
        settings = params or self.params
        size = len(scenes) if readings is not None else settings.generate.batch
        record = readings.append if readings is not None else None
        rows: list[GeneratedRow] = []
        for start in range(0, len(scenes), size):
            drawn = draw_scenes(self.generator, settings, scenes[start : start + size], record, again=False)
            rows += [generated_row(self.generator, settings, one) for one in drawn]
        return rows

    def normal_for(self, name: str) -> SampleRow:
        """A normal image by the seed."""
        rng = numpy_generator(self.params.seed, "showcase", self.product, name)
        return self.normals[int(rng.integers(len(self.normals)))]

    def scene(self, name: str, kinds: Sequence[str], picture: SampleRow) -> Scene:
        """A scene on a normal image with a mask for each of ``kinds``, placed as the shards' masks are, each beside those before."""
        placed: list[Placed] = []
        for number, kind in enumerate(kinds):
            taken = union([one.outline for one in placed]) if placed else None
            stream = (self.params.seed, "showcase", self.product, name, kind, number)
            placed.append(self.placer.place(kind, stream, picture, taken, moved=True))
        return self._scene(name, kinds, placed, picture)

    def _scene(self, name: str, kinds: Sequence[str], placed: Sequence[Placed], picture: SampleRow) -> Scene:
        """A type has one w, however often it is named."""
        low, high, scene_id = self.params.intensity.low, self.params.intensity.high, f"{self.product}/showcase/{name}"
        weights = {kind: float(numpy_generator(self.params.seed, "intensity", scene_id, kind).uniform(low, high)) for kind in kinds}
        anomalies = [one.anomaly(kind, weights[kind]) for kind, one in zip(kinds, placed, strict=True)]
        real = picture if self.params.generate.background == "real" else None
        seed = derive_seed(self.params.seed, "noise", scene_id)
        return Scene(scene_id, self.product, tuple(anomalies), real, real, seed, self.template(scene_id))

    def template(self, scene_id: str) -> int:
        return int(numpy_generator(self.params.seed, "template", scene_id).integers(1 << 30))


def make_showcase(task: Task, adapted: Path, generator: Path, out: Path) -> None:
    """Writes ``out/pictures.parquet`` (SHOWCASE_SCHEMA), ``out/attention.parquet`` (ATTENTION_SCHEMA) and
    ``out/vectors.parquet`` (VECTOR_SCHEMA); without rows for a generator that learns no tokens, whose words nothing re-weights.

    Raises:
        CADiffError: if an artefact is absent or belongs to another base.
    """
    trained = load_generator(task, adapted, generator)
    pictures: list[ShowcaseRow] = []
    maps: list[AttentionRow] = []
    told: list[VectorRow] = []
    if isinstance(trained, Generator) and isinstance(trained.tokens, LearnedTokens):
        settings = settings_of(task.method, task.params)
        normals, exemplars = ([row for row in task.samples if row.role == role] for role in ("normal", "exemplar"))
        studio = Studio(trained, trained.tokens, settings, task.product, normals, exemplars, Placer(replace(task, params=settings)))
        bar = Progress(f"showcase {task.product} {task.method}", 4)
        for figure in (ladder, compositions, edits):
            pictures += figure(studio)
            bar.advance(1)
        amplified, maps = attention(studio)
        bar.advance(1)
        pictures, told = [*pictures, *amplified], list(vectors(studio))
    write_table(out / "pictures.parquet", to_table(pictures, SHOWCASE_SCHEMA))
    write_table(out / "attention.parquet", to_table(maps, ATTENTION_SCHEMA))
    write_table(out / "vectors.parquet", to_table(told, VECTOR_SCHEMA))


def ladder(studio: Studio) -> list[ShowcaseRow]:
    """Fig. 3: one scene of each type over w; changes are from w = 0."""
    scenes = [studio.scene(f"ladder-{kind}", [kind], studio.normal_for(f"ladder-{kind}")) for kind in studio.types]
    drawn = {w: studio.draw([scene.at(w) for scene in scenes]) for w in LADDER}
    rows = []
    for k, kind in enumerate(studio.types):
        silent = _pixels(drawn[0.0][k])
        rows += [
            _compared(_row("ladder", kind, f"w = {w:g}", drawn[w][k], [w], scenes[k]), silent) for w in LADDER
        ]
    return rows


def compositions(studio: Studio) -> list[ShowcaseRow]:
    """Fig. 1 and 7: two types in one image, each with its own mask and w, and one type in two places."""
    kinds = studio.types
    pairs: list[tuple[str, ...]] = [*list(combinations(kinds, 2))[:PAIRS], *((kind, kind) for kind in kinds)]
    names = [" and ".join(pair) if len(set(pair)) > 1 else f"{pair[0]} twice" for pair in pairs]
    scenes = [
        studio.scene(f"composition-{'-'.join(pair)}", pair, studio.normal_for(f"composition-{'-'.join(pair)}"))
        for pair in pairs
    ]
    rows = studio.draw(scenes)
    return [
        _row("composition", name, name, row, list(dict(zip(scene.types, scene.intensities, strict=True)).values()), scene)
        for name, row, scene in zip(names, rows, scenes, strict=True)
    ]


def edits(studio: Studio) -> list[ShowcaseRow]:
    """Fig. 7: the first exemplar of each type, its anomaly's word silenced and amplified inside the real
    mask; changes are from the real image."""
    size, rows = studio.params.dataset.size, []
    shown = [next(row for row in studio.exemplars if row.anomaly_type == kind) for kind in studio.types]
    real = [read_picture(row, size) for row in shown]
    scenes = []
    for kind, row, picture in zip(studio.types, shown, real, strict=True):
        scene_id = f"{studio.product}/showcase/edit-{kind}"
        seed, template = derive_seed(studio.params.seed, "noise", scene_id), studio.template(scene_id)
        unmoved = Anomaly(kind, Outline.of(picture.mask), 1.0, UNMOVED)
        scenes.append(Scene(scene_id, studio.product, (unmoved,), row, None, seed, template, edits=True))
    drawn = {w: studio.draw([scene.at(w) for scene in scenes]) for w in EDITS}
    for k, kind in enumerate(studio.types):
        rows += [_compared(_row("edit", kind, f"w = {w:g}", drawn[w][k], [w], scenes[k]), real[k].image) for w in EDITS]
    return rows


def attention(studio: Studio) -> tuple[list[ShowcaseRow], list[AttentionRow]]:
    """Fig. 4: one scene of each type amplified with and without masked and delayed focus, and the type's attention
    at every step; changes are from the same scene at w = 1. No exemplar is started from, so that attention alone acts."""
    variants: dict[str, tuple[float, dict[str, object]]] = {
        "w = 1": (1.0, {}),
        "both": (AMPLIFIED, {"masked_focus": True, "delayed_focus": True}),
        "without masked focus": (AMPLIFIED, {"masked_focus": False, "delayed_focus": True}),
        "without delayed focus": (AMPLIFIED, {"masked_focus": True, "delayed_focus": False}),
    }
    kinds = studio.types[:ATTENDED]
    scenes = [studio.scene(f"attention-{kind}", [kind], studio.normal_for(f"attention-{kind}")) for kind in kinds]
    # what is pasted into a start follows w by itself
    scenes = [replace(scene, anomalies=tuple(replace(a, exemplar=None) for a in scene.anomalies)) for scene in scenes]
    pictures: list[ShowcaseRow] = []
    maps: list[AttentionRow] = []
    plain: list[UInt8[np.ndarray, "h w 3"]] = []
    for label, (w, changes) in variants.items():
        params = studio.with_intensity(**changes)
        readings: list[Reading] = []
        rows = studio.draw([scene.at(w) for scene in scenes], params, readings)
        plain = plain or [_pixels(row) for row in rows]
        for k, (kind, scene) in enumerate(zip(kinds, scenes, strict=True)):
            pictures.append(_compared(_row("attention", kind, label, rows[k], [w], scene), plain[k]))
            own = [reading for reading in readings if k in reading.images]
            maps += [_attention_row(studio.product, kind, label, reading, k, scene, w, params) for reading in own]
    return pictures, maps


def _attention_row(
    product: str, kind: str, label: str, reading: Reading, k: int, scene: Scene, w: float, params: Params
) -> AttentionRow:
    """The map that image k was drawn with: Eq. 11 applied to what was read, where it acted."""
    b = reading.images.index(k)
    seen = reading.attention[b : b + 1, :1].cpu()
    side = round(seen.shape[-1] ** 0.5)
    first, size = pieces(scene.mask, params.window, params.base.size)[0], params.base.size
    masks = np.stack([resize_mask(first.window.shown(a.outline) & first.part, (size, size)) for a in scene.anomalies])
    inside = touched_cells(torch.from_numpy(masks)[None], side)
    acting = reading.acting[b : b + 1, :1].cpu()
    settings = params.intensity
    weight = strength(torch.tensor([[w]]), mask_cells(torch.from_numpy(masks)[None], side), settings.norm)
    used: Float[Tensor, "1 1 cells 1"] = reweight(
        seen.transpose(1, 2)[:, None], torch.zeros(1, 1, dtype=torch.long), inside, weight, acting, settings.masked_focus, settings.outside,
    )  # fmt: skip
    values = used.flatten().float().tolist()
    return AttentionRow(product, kind, label, reading.step, side, values, float(reading.focus[b, 0]), bool(acting))


def vectors(studio: Studio) -> Iterator[VectorRow]:
    """Every token's contextual vector in every template: alone, beside each other type, and in a good part's prompt."""
    tokens, backbone = studio.tokens, studio.generator.backbone
    said = [(list(kinds), t) for n in (1, 2) for kinds in combinations(tokens.types, n) for t in range(len(TEMPLATES))]
    said += [([], t) for t in range(len(NORMAL_TEMPLATES)) if not tokens.single]
    for kinds, template in said:
        prompt = tokens.prompt(backbone, kinds, template)
        with torch.no_grad():
            hidden = tokens.encode(backbone, [prompt])[0].float().cpu()
        for concept, position in prompt.positions.items():
            yield VectorRow(studio.product, concept, prompt.text, hidden[position : position + prompt.vectors].mean(0).tolist())


def _pixels(row: GeneratedRow) -> UInt8[np.ndarray, "h w 3"]:
    return decode_image(row.image["bytes"], "RGB", row.sample_id)


def _row(figure: Figure, group: str, label: str, row: GeneratedRow, intensities: list[float], scene: Scene) -> ShowcaseRow:
    name = f"{figure}-{group}-{label}".replace(" ", "-")
    image, mask = ({"bytes": picture["bytes"], "path": f"{name}{end}.png"} for picture, end in ((row.image, ""), (row.mask, "-mask")))
    return ShowcaseRow(figure, group, label, row.product, list(dict.fromkeys(scene.types)), intensities, image, mask, row.prompt, row.seed,
                       row.focus_step, None, None)  # fmt: skip


def _compared(row: ShowcaseRow, reference: UInt8[np.ndarray, "h w 3"]) -> ShowcaseRow:
    """The row with its mean absolute difference from the reference, inside and outside of the mask."""
    image = decode_image(row.image["bytes"], "RGB", row.label)
    mask = decode_image(row.mask["bytes"], "L", row.label) > 127
    change = np.abs(image.astype(float) - reference).mean(-1) / 255
    inside, outside = (float(change[where].mean()) if where.any() else None for where in (mask, ~mask))
    return replace(row, change_inside=inside, change_outside=outside)
