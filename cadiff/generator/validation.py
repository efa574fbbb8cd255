"""Validation pictures: the same few scenes, drawn with the same noise every so many steps of a training.

A ControlNet does not learn its condition little by little but all at once ("sudden convergence", Zhang et al., ICCV 2023, Fig. 4); only
pictures tell when. Nothing of the training depends on them: their noise is their own, and no gradient is kept.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cadiff.data.images import to_tensor, to_uint8
from cadiff.generator import board
from cadiff.generator.examples import Shown
from cadiff.generator.model import Generator
from cadiff.generator.sample import Request, in_lanes, lanes, sample
from cadiff.generator.windows import pieces, placed_like
from cadiff.params import GenerateParams, IntensityParams, Params
from cadiff.pictures import resize_picture
from cadiff.progress import say
from cadiff.records import VALIDATION_SCHEMA, ValidationRow, from_table, to_table
from cadiff.seeds import derive_seed
from cadiff.storage import decode_image, encode_png, read_table, write_bytes, write_table

FOLDER = "validation"  # in a training's work folder
PICTURES, SHEET = "pictures.parquet", "sheet.png"
SHARE = 0.04  # of a training's time that its pictures may take, counted in passes of the networks
BACKWARD = 3  # passes that a picture of a training step takes: forward, and about twice as much backward
DECODING = 3  # passes that encoding and decoding a picture take, about, of Stable Diffusion 1.5
MOST = 8  # sheets
TYPES = 4  # of a product, by name
STEPS = 8  # of denoising
# From noise, whatever images start from later: what is set in at the start would hide what was learned. And the same whatever
# `generate` and `intensity` say, so that a change of these trains nothing anew.
DRAWN, INTENSITY = GenerateParams(steps=STEPS, start="noise", blend=None), IntensityParams()
KEPT = 128  # px of a picture's side, at most
EXEMPLAR = -1  # the step of what is no drawing


def moments(params: Params, steps: int, drawn: int) -> list[int]:
    """The numbers of training steps after which ``drawn`` pictures are drawn: evenly, the first before any and the last after all; as
    many as ``SHARE`` of the training pays for, and none where that is fewer than two."""
    sheet = drawn * (STEPS * (2 if DRAWN.guidance_scale > 1 else 1) + DECODING)
    count = min(MOST, steps + 1, int(SHARE * BACKWARD * steps * params.train.batch / sheet))
    return [round(steps * k / (count - 1)) for k in range(count)] if count > 1 else []


@dataclass
class Watch:
    """Draws a training's validation pictures into ``folder``, and tells TensorBoard where that is asked for (cadiff.generator.board).

    A stopped training keeps there what was drawn, and goes on without drawing it again.
    """

    generator: Generator
    params: Params
    product: str
    folder: Path
    at: frozenset[int]
    requests: list[Request]
    rows: list[ValidationRow] = field(default_factory=list)
    told: board.Board | None = None

    @classmethod
    def of(cls, generator: Generator, params: Params, product: str, shown: Shown, steps: int, start: int, work: Path) -> Watch:
        """Of a training that goes on from step ``start``; one that begins removes what an earlier one left.

        Raises:
            UsageError: as ``board.opened``.
        """
        folder, kinds = work / FOLDER, sorted(set(shown.types))[:TYPES]
        if start == 0:
            shutil.rmtree(folder, ignore_errors=True)
        width = lanes(generator.backbone, params.base.size) or 1
        at = moments(params, steps, sum(len(group) for group in in_lanes(len(kinds), width)))
        made = [scene(generator, params, product, shown, kind) for kind in kinds] if at else []
        watch = cls(generator, params, product, folder, frozenset(at), [request for request, _ in made])
        watch.rows = [row for _, row in made]
        watch.told = board.opened(work.name, start)
        for path in sorted(folder.glob("step-*.parquet")):
            watch.rows += from_table(read_table(path, VALIDATION_SCHEMA), ValidationRow)
        return watch

    def losses(self, step: int, parts: Mapping[str, float], rates: Mapping[str, float]) -> None:
        if self.told is not None:
            self.told.numbers(step, {**{f"loss/{name}": value for name, value in parts.items()}, **rates})

    def after(self, step: int, curve: Sequence[Mapping[str, Any]]) -> None:
        """Draws if pictures are due after so many steps; the sheet shows all so far, below the losses so far."""
        path = self.folder / f"step-{step:07d}.parquet"
        if step not in self.at or path.exists():
            return
        drawn = [row(self.product, request, step, image) for request, image in zip(self.requests, self.draw(), strict=True)]
        self.rows += drawn
        write_table(self.folder / PICTURES, to_table(self.rows, VALIDATION_SCHEMA))
        write_bytes(self.folder / SHEET, sheet(self.rows, curve, self.product))
        write_table(path, to_table(drawn, VALIDATION_SCHEMA))  # last: what it holds is not drawn again
        if self.told is not None:
            self.told.pictures(step, {r.anomaly_type: decode_image(r.image["bytes"], "RGB", r.anomaly_type) for r in drawn})
        say(f"train {self.product}: pictures at step {step}: {self.folder / SHEET}")

    def draw(self) -> list[np.ndarray]:
        """One at a time on an accelerator, whose memory is the training's."""
        width = lanes(self.generator.backbone, self.params.base.size) or 1
        found: list[np.ndarray] = []
        for k in range(0, len(self.requests), width):
            found += list(to_uint8(sample(self.generator, self.requests[k : k + width], DRAWN, INTENSITY).drawn))
        return found

    def close(self) -> None:
        if self.told is not None:
            self.told.close()


@torch.no_grad()
def scene(generator: Generator, params: Params, product: str, shown: Shown, kind: str) -> tuple[Request, ValidationRow]:
    """A type's first exemplar: its mask in its window, at w = 1, on the first normal where there is one; and the exemplar itself."""
    size, chosen = params.base.size, shown.types.index(kind)
    exemplar = shown.exemplars[chosen]
    piece = pieces(exemplar.mask, params.window, size)[0]
    mask, background = piece.window.mask(exemplar.mask, size), None
    if len(shown.normals):
        window = placed_like(piece.window, shown.exemplars.shape(chosen), shown.normals.shape(0))
        background = generator.backbone.encode(to_tensor(window.picture(shown.normals[0].image, size)[None]))[0]
    seed = derive_seed(params.seed, "validation", product, kind)
    request = Request(generator.prompt([kind], 0), (kind,), torch.from_numpy(mask)[None], (1.0,), seed, background)
    return request, row(product, request, EXEMPLAR, piece.window.picture(exemplar.image, size))


def row(product: str, request: Request, step: int, image: np.ndarray) -> ValidationRow:
    side = min(KEPT, image.shape[0])
    kind, mask = request.types[0], np.repeat(request.masks[0].numpy()[..., None] * np.uint8(255), 3, axis=2)
    name = f"{kind}-{step}"
    small, outline = (encode_png(resize_picture(pixels, (side, side))) for pixels in (image, mask))
    return ValidationRow(
        product, kind, step, {"bytes": small, "path": f"{name}.png"}, {"bytes": outline, "path": f"{name}-mask.png"},
        None if step == EXEMPLAR else request.prompt.text, request.seed,
    )  # fmt: skip


def gather(work: Path, out: Path) -> None:
    """Copies a training's pictures and their sheet from its work folder to ``out``; of one that drew none the table is empty."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (PICTURES, SHEET):
        if (work / FOLDER / name).is_file():
            shutil.copyfile(work / FOLDER / name, out / name)
    if not (out / PICTURES).is_file():
        write_table(out / PICTURES, VALIDATION_SCHEMA.empty_table())


def sheet(rows: Sequence[ValidationRow], curve: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """A PNG: the parts of the loss over steps, and below them a row a type with its exemplar, its mask and what was drawn when."""
    from matplotlib.figure import Figure

    kinds, steps = list(dict.fromkeys(r.anomaly_type for r in rows)), sorted({r.step for r in rows})
    by_place = {(r.anomaly_type, r.step): r for r in rows}
    figure = Figure(figsize=(1.2 * (len(steps) + 1), 2.4 + 1.3 * len(kinds)), layout="constrained", dpi=100)
    grid = figure.add_gridspec(1 + len(kinds), len(steps) + 1, height_ratios=[2.0, *[1.2] * len(kinds)])
    loss = figure.add_subplot(grid[0, :])
    for name in dict.fromkeys(str(point["name"]) for point in curve):
        own = [point for point in curve if point["name"] == name]
        loss.plot([point["step"] for point in own], [point["value"] for point in own], label=name, linewidth=0.8)
    loss.set(title=title, xlabel="step", yscale="log")
    if curve:
        loss.legend(fontsize=7)
    for i, kind in enumerate(kinds):
        shown = [("exemplar", by_place[kind, EXEMPLAR].image), ("mask", by_place[kind, EXEMPLAR].mask)]
        shown += [(f"step {step}", by_place[kind, step].image) for step in steps if (kind, step) in by_place and step != EXEMPLAR]
        for j, (said, image) in enumerate(shown):
            axes = figure.add_subplot(grid[1 + i, j])
            axes.imshow(decode_image(image["bytes"], "RGB", said), interpolation="nearest")
            axes.set(xticks=[], yticks=[], ylabel=kind if j == 0 else "")
            axes.set_title(said if i == 0 else "", fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
