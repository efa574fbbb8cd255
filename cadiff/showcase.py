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
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cadiff.generator.on_demand import Scene, draw_scenes, intensities_of
from cadiff.generator.planting import cuttings
from cadiff.generator.reweighting import Reading
from cadiff.generator.train import Generator, load_generator
from cadiff.intensity import reweight, touched_cells
from cadiff.masks import mask_of, placed_mask
from cadiff.masks.exemplars import ProductFinder
from cadiff.params import Params
from cadiff.progress import Progress
from cadiff.prompt.tokens import NORMAL_TEMPLATES, TEMPLATES
from cadiff.records import (
    ATTENTION_SCHEMA,
    SHOWCASE_SCHEMA,
    VECTOR_SCHEMA,
    AttentionRow,
    GeneratedRow,
    MaskRow,
    SampleRow,
    ShowcaseRow,
    VectorRow,
    to_table,
)
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.storage import decode_image, read_image, write_table

LADDER = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0)  # w, Fig. 3; the range that Eq. 11 allows is [-2, 2]
AMPLIFIED = 2.0  # w of the attention figure
EDITS = (0.0, 2.0)  # the concept silenced, amplified (Fig. 7)
TYPES = 4  # of a product, by name
PAIRS = 3
ATTENDED = 2  # types whose attention is shown
TRIES = 16  # placements of a second mask, until one does not touch the first
Figure = Literal["ladder", "attention", "composition", "edit"]


@dataclass(frozen=True)
class Studio:
    """A product's generator with the real images that its scenes are set in."""

    generator: Generator
    params: Params
    product: str
    normals: list[SampleRow]
    exemplars: list[SampleRow]
    find: ProductFinder

    @property
    def types(self) -> list[str]:
        return sorted(self.generator.tokens.types)[:TYPES]

    def with_intensity(self, w: float | None, **changes: object) -> Params:
        """The parameters with one w for all (None: drawn as for the shards) and other settings of ``intensity``."""
        fixed = {} if w is None else {"low": w, "high": w}
        return self.params.model_copy(update={"intensity": self.params.intensity.model_copy(update={**fixed, **changes})})

    def draw(self, scenes: Sequence[Scene], params: Params, readings: list[Reading] | None = None) -> list[GeneratedRow]:
        """Rows of all scenes, ``generate.batch`` at a time (with ``readings``: at once, so that they belong together)."""
        size = len(scenes) if readings is not None else params.generate.batch
        record = readings.append if readings is not None else None
        rows: list[GeneratedRow] = []
        for start in range(0, len(scenes), size):
            rows += draw_scenes(self.generator, params, self.product, scenes[start : start + size], record)
        return rows

    def normal_for(self, name: str) -> SampleRow:
        """A normal image by the seed."""
        rng = numpy_generator(self.params.seed, "showcase", self.product, name)
        return self.normals[int(rng.integers(len(self.normals)))]

    def scene(self, name: str, kinds: Sequence[str], picture: SampleRow) -> Scene:
        """A scene on a normal image with a mask for each of ``kinds``, placed as the shards' masks are. A kind that is
        named twice gets two places; a further mask takes the first place of TRIES that touches no other, else the
        one that touches least."""
        masks: dict[str, Bool[np.ndarray, "h w"]] = {}
        placed: list[MaskRow] = []
        for kind in kinds:
            taken = np.any(list(masks.values()), axis=0) if masks else None
            placed.append(self._place(name, kind, picture, taken))
            mask = mask_of(placed[-1])
            masks[kind] = masks[kind] | mask if kind in masks else mask
        background = Path(picture.image_path) if self.params.generate.background == "real" else None
        whole = read_image(picture.image_path, "RGB", self.params.base.size)
        chosen = cuttings(self.params, whole, placed, {row.sample_id: row for row in self.exemplars})
        return Scene(name, f"{self.product}/showcase/{name}", masks, "exemplars", background, cuttings=chosen)

    def _place(
        self, name: str, kind: str, picture: SampleRow, taken: Bool[np.ndarray, "h w"] | None
    ) -> MaskRow:
        best: tuple[int, MaskRow] | None = None
        for attempt in range(1 if taken is None else TRIES):
            seed = derive_seed(self.params.seed, "showcase", self.product, name, kind, attempt)
            own = self.params.model_copy(update={"seed": seed})
            row = placed_mask(own, self.product, [picture], self.exemplars, kind, self.find)
            touched = 0 if taken is None else int((mask_of(row) & taken).sum())
            if best is None or touched < best[0]:
                best = (touched, row)
            if touched == 0:
                break
        assert best is not None
        return best[1]


def make_showcase(
    params: Params, product: str, samples: list[SampleRow], adapted: Path, generator: Path, out: Path
) -> None:
    """Writes ``out/pictures.parquet`` (SHOWCASE_SCHEMA), ``out/attention.parquet`` (ATTENTION_SCHEMA) and
    ``out/vectors.parquet`` (VECTOR_SCHEMA).

    Args:
        params: the product's own, as ``Params.for_product`` gives them.

    Raises:
        CADiffError: if an artefact is absent or belongs to another base.
    """
    normals = [row for row in samples if row.role == "normal"]
    exemplars = [row for row in samples if row.role == "exemplar"]
    trained = load_generator(params, product, adapted, generator)
    studio = Studio(trained, params, product, normals, exemplars, ProductFinder(params.base.size))
    bar = Progress(f"showcase {product}", 4)
    pictures: list[ShowcaseRow] = []
    for figure in (ladder, compositions, edits):
        pictures += figure(studio)
        bar.advance(1)
    amplified, maps = attention(studio)
    bar.advance(1)
    write_table(out / "pictures.parquet", to_table([*pictures, *amplified], SHOWCASE_SCHEMA))
    write_table(out / "attention.parquet", to_table(maps, ATTENTION_SCHEMA))
    write_table(out / "vectors.parquet", to_table(list(vectors(trained, product)), VECTOR_SCHEMA))


def ladder(studio: Studio) -> list[ShowcaseRow]:
    """Fig. 3: one scene of each type over w; changes are from w = 0."""
    scenes = [studio.scene(f"ladder-{kind}", [kind], studio.normal_for(f"ladder-{kind}")) for kind in studio.types]
    drawn = {w: studio.draw(scenes, studio.with_intensity(w)) for w in LADDER}
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
    rows = studio.draw(scenes, studio.params)
    return [
        _row("composition", name, name, row, list(intensities_of(studio.params, scene).values()), scene)
        for name, row, scene in zip(names, rows, scenes, strict=True)
    ]


def edits(studio: Studio) -> list[ShowcaseRow]:
    """Fig. 7: the first exemplar of each type, its anomaly's word silenced and amplified inside the real
    mask; changes are from the real image."""
    size, rows = studio.params.base.size, []
    shown = [next(row for row in studio.exemplars if row.anomaly_type == kind) for kind in studio.types]
    masks = [read_image(str(row.mask_path), "L", size) > 127 for row in shown]
    scenes = [
        Scene(f"edit-{kind}", f"{studio.product}/showcase/edit-{kind}", {kind: mask}, "exemplars, unmoved", Path(row.image_path), True)
        for kind, mask, row in zip(studio.types, masks, shown, strict=True)
    ]
    drawn = {w: studio.draw(scenes, studio.with_intensity(w)) for w in EDITS}
    for k, kind in enumerate(studio.types):
        real = read_image(shown[k].image_path, "RGB", size)
        rows += [_compared(_row("edit", kind, f"w = {w:g}", drawn[w][k], [w], scenes[k]), real) for w in EDITS]
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
    scenes = [replace(scene, cuttings=()) for scene in scenes]  # what is set into a start follows w by itself
    pictures: list[ShowcaseRow] = []
    maps: list[AttentionRow] = []
    plain: list[UInt8[np.ndarray, "h w 3"]] = []
    for label, (w, changes) in variants.items():
        params = studio.with_intensity(w, **changes)
        readings: list[Reading] = []
        rows = studio.draw(scenes, params, readings)
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
    inside = touched_cells(torch.from_numpy(np.stack(list(scene.masks.values())))[None], side)
    acting = reading.acting[b : b + 1, :1].cpu()
    used: Float[Tensor, "1 1 cells 1"] = reweight(
        seen.transpose(1, 2)[:, None], torch.zeros(1, 1, dtype=torch.long), inside, torch.tensor([[w]]), acting,
        params.intensity.masked_focus,
    )  # fmt: skip
    values = used.flatten().float().tolist()
    return AttentionRow(product, kind, label, reading.step, side, values, float(reading.focus[b, 0]), bool(acting))


def vectors(generator: Generator, product: str) -> Iterator[VectorRow]:
    """Every token's contextual vector in every template: alone, beside each other type, and in a good part's prompt."""
    tokens, backbone = generator.tokens, generator.backbone
    said = [(list(kinds), t) for n in (1, 2) for kinds in combinations(tokens.types, n) for t in range(len(TEMPLATES))]
    said += [([], t) for t in range(len(NORMAL_TEMPLATES)) if not tokens.single]
    for kinds, template in said:
        prompt = tokens.prompt(backbone, kinds, template)
        with torch.no_grad():
            hidden = tokens.encode(backbone, [prompt])[0].float().cpu()
        for concept, position in prompt.positions.items():
            yield VectorRow(product, concept, prompt.text, hidden[position].tolist())


def _pixels(row: GeneratedRow) -> UInt8[np.ndarray, "h w 3"]:
    return decode_image(row.image["bytes"], "RGB", row.sample_id)


def _row(figure: Figure, group: str, label: str, row: GeneratedRow, intensities: list[float], scene: Scene) -> ShowcaseRow:
    name = f"{figure}-{group}-{label}".replace(" ", "-")
    image, mask = ({"bytes": picture["bytes"], "path": f"{name}{end}.png"} for picture, end in ((row.image, ""), (row.mask, "-mask")))
    return ShowcaseRow(figure, group, label, row.product, list(scene.masks), intensities, image, mask, row.prompt, row.seed,
                       row.focus_step, None, None)  # fmt: skip


def _compared(row: ShowcaseRow, reference: UInt8[np.ndarray, "h w 3"]) -> ShowcaseRow:
    """The row with its mean absolute difference from the reference, inside and outside of the mask."""
    image = decode_image(row.image["bytes"], "RGB", row.label)
    mask = decode_image(row.mask["bytes"], "L", row.label) > 127
    change = np.abs(image.astype(float) - reference).mean(-1) / 255
    inside, outside = (float(change[where].mean()) if where.any() else None for where in (mask, ~mask))
    return replace(row, change_inside=inside, change_outside=outside)
