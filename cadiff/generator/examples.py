"""What a generator learns from: real pictures, and the batches that are drawn of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cadiff.backbone import Backbone
from cadiff.data.augment import augment_pair
from cadiff.data.images import to_tensor
from cadiff.data.workers import batches, beside
from cadiff.errors import CADiffError
from cadiff.generator.setting import exposure_gain
from cadiff.generator.windows import REFINED, Box, Window, box_of, check_canvas, drawn_around, placed_like
from cadiff.params import Params
from cadiff.pictures import Pictures, canvas_of
from cadiff.prompt import CONTEXT, EMPTY, LearnedTokens, PlainWords, Prompt
from cadiff.records import SampleRow
from cadiff.seeds import torch_generator

CLOSE = 0.25  # of the examples of a mask that is gone over in drawing: a window at the base's own scale within it


@dataclass(frozen=True)
class Shown:
    """The real pictures that a generator learns from, at the canvas: exemplars with their types and masks' boxes, and normals."""

    exemplars: Pictures
    types: list[str]
    boxes: list[Box]
    normals: Pictures

    @classmethod
    def of(cls, samples: Sequence[SampleRow], params: Params) -> Shown:
        """
        Raises:
            CADiffError: if there is no exemplar.
            UsageError: if a picture is smaller than what the base draws.
        """
        rows = [row for row in samples if row.role == "exemplar"]
        if not rows:
            raise CADiffError("samples: expected at least one exemplar of one anomaly type, found none.")
        exemplars = Pictures(rows, params.dataset.size)
        normals = Pictures([row for row in samples if row.role == "normal"], params.dataset.size)
        for row in (*rows, *normals.rows) if params.window.cut == "around" else ():
            check_canvas(row.image_path, canvas_of(row, params.dataset.size), params.base.size)
        return cls(exemplars, [str(row.anomaly_type) for row in rows], [box_of(picture.mask) for picture in exemplars], normals)


class Example(NamedTuple):
    """One picture of a batch at ``base.size``: its mask, the types that its prompt names (``said``) and those that it shows, the prompt."""

    image: Float[Tensor, "3 s s"]
    mask: Bool[Tensor, "1 s s"]
    said: list[str]
    shown: list[str]
    prompt: Prompt
    everything: Prompt | None = None


@dataclass(frozen=True)
class View:
    """A training batch: pictures, their control masks, the masks their words may attend to, prompts, and which of their words w = 0
    silences (position in the prompt; -1: none). A silenced word is no concept of its picture. ``everything``: with
    ``prompt.contrastive_of: all`` for each picture a second prompt that names all types, its own first."""

    image: Float[Tensor, "b 3 h w"]
    mask: Float[Tensor, "b 1 h w"]
    concept_masks: Tensor  # b c h w, the context's first; a normal's anomaly masks are empty
    positions: Int[Tensor, "b c"]
    prompts: list[Prompt]
    silenced: Int[Tensor, " b"]
    everything: list[Prompt] = field(default_factory=list)

    def part(self, rows: slice) -> View:
        """Some of its pictures."""
        return View(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})


def draw_view(shown: Shown, tokens: LearnedTokens | PlainWords, backbone: Backbone, params: Params, generator: torch.Generator) -> View:
    """A batch of examples, each by itself (``draw_example``)."""
    return collate([draw_example(shown, tokens, backbone, params, generator) for _ in range(params.train.batch)], tokens)


def draw_ahead(
    shown: Shown, tokens: LearnedTokens | PlainWords, backbone: Backbone, params: Params, product: str, start: int, steps: int,
    workers: int | None = None,
) -> Iterator[tuple[list[Example], torch.Generator]]:  # fmt: skip
    """The examples of each step from ``start`` on, and the stream of its noise, where they have left it; drawn in ``workers`` processes
    ahead of the steps (None: as the device asks for). What is drawn depends on the seed and the step alone."""
    workers = beside(backbone.device) if workers is None else workers
    if workers:  # decoded once for all of them, who share it; and what cannot be read is said here, in a line
        list(shown.exemplars), list(shown.normals)

    def draw(step: int) -> tuple[list[tuple[np.ndarray, np.ndarray, Any]], np.ndarray]:
        rng = torch_generator(params.seed, "train", product, step)
        examples = [draw_example(shown, tokens, backbone, params, rng) for _ in range(params.train.batch)]
        return [(one.image.numpy(), one.mask.numpy(), one[2:]) for one in examples], rng.get_state().numpy()

    for drawn, state in batches(draw, start, steps, workers):
        rng = torch.Generator()
        rng.set_state(torch.from_numpy(state))
        yield [Example(torch.from_numpy(image), torch.from_numpy(mask), *rest) for image, mask, rest in drawn], rng


def draw_example(
    shown: Shown, tokens: LearnedTokens | PlainWords, backbone: Backbone, params: Params, generator: torch.Generator
) -> Example:
    """An exemplar of any type, in a window; with probability ``normal_share`` a normal takes its place and keeps the mask.

    The normals teach that the word carries the anomaly, not the mask's shape (docs/method.md); a share of them, ``silenced``, names
    the anomaly and has w = 0 for it, so that nothing but the word's own attention does. Both are warped alike, or a
    warp's own marks (its blur, what it mirrors in) would tell one from the other. With ``train.exposure: normals`` an
    exemplar takes the exposure of a normal drawn for it. A share ``empty_prompts`` has an empty prompt, whatever it shows.
    """
    train, size, kinds = params.train, params.base.size, tokens.types
    kind = kinds[_below(len(kinds), generator)]
    members = [i for i, name in enumerate(shown.types) if name == kind]
    chosen = members[_below(len(members), generator)]
    said, seen, normal, gain = [kind], [kind], None, 1.0
    if float(torch.rand(1, generator=generator)) < train.normal_share:
        normal, seen = _below(len(shown.normals), generator), []
        said = [kind] if float(torch.rand(1, generator=generator)) < train.silenced else []
    elif train.exposure == "normals":
        gain = exposure_gain(*shown.exemplars[chosen], shown.normals[_below(len(shown.normals), generator)].image)
    window = window_of(shown, chosen, params, generator)
    whole, canvas = shown.exemplars[chosen], shown.exemplars.shape(chosen)
    if normal is None:
        pixels = window.picture(whole.image, size)
    else:
        pixels = placed_like(window, canvas, shown.normals.shape(normal)).picture(shown.normals[normal].image, size)
    image = (to_tensor(pixels[None])[0] + 1).mul(gain).clamp(max=2) - 1 if gain != 1 else to_tensor(pixels[None])[0]
    mask = torch.from_numpy(window.mask(whole.mask, size))[None]
    image, mask = augment_pair(image, mask, train.crop, train.translate, train.rotate, generator)
    template = _below(1 << 30, generator)
    prompt, everything = tokens.prompt(backbone, said, template), None
    if params.prompt.contrastive and params.prompt.contrastive_of == "all" and tokens.concepts:
        everything = tokens.prompt(backbone, [kind, *(other for other in kinds if other != kind)], template)
    if train.empty_prompts and float(torch.rand(1, generator=generator)) < train.empty_prompts:
        prompt = EMPTY
    return Example(image, mask, said, seen, prompt, everything)


def window_of(shown: Shown, chosen: int, params: Params, generator: torch.Generator) -> Window:
    """A window around an exemplar's mask; of one so large that it is seen shrunk (``REFINED``) now and then a close one within it, since
    that is how such a mask is gone over in drawing."""
    canvas, size = shown.exemplars.shape(chosen), params.base.size
    window = drawn_around(shown.boxes[chosen], canvas, params.window, size, generator)
    if params.window.cut == "whole" or window.scale(size) <= REFINED or float(torch.rand(1, generator=generator)) >= CLOSE:
        return window
    rows, columns = shown.exemplars[chosen].mask.nonzero()
    at = _below(len(rows), generator)
    row, column = int(rows[at]), int(columns[at])
    return drawn_around((row, column, row + 1, column + 1), canvas, params.window, size, generator)


def collate(examples: Sequence[Example], tokens: LearnedTokens | PlainWords) -> View:
    """Examples as one batch."""
    concept_masks, positions, silenced = [], [], []
    for example in examples:
        anomaly = example.mask[0] if example.shown else torch.zeros_like(example.mask[0])
        own = {CONTEXT: ~anomaly, **dict.fromkeys(example.shown, anomaly)}
        present = (CONTEXT, *example.shown)
        concept_masks.append([own.get(c, torch.zeros_like(anomaly)) for c in tokens.concepts])
        positions.append([example.prompt.positions.get(c, -1) if c in present else -1 for c in tokens.concepts])
        silenced.append(example.prompt.positions.get(example.said[0], -1) if example.said and not example.shown else -1)
    masks = torch.stack([example.mask for example in examples])
    concepts = [torch.stack(own) for own in concept_masks] if tokens.concepts else [torch.zeros(0, *masks.shape[-2:])] * len(examples)
    return View(
        torch.stack([example.image for example in examples]), masks.float(), torch.stack(concepts), torch.tensor(positions),
        [example.prompt for example in examples], torch.tensor(silenced),
        [example.everything for example in examples if example.everything is not None],
    )  # fmt: skip


def _below(count: int, generator: torch.Generator) -> int:
    """A number from 0 to ``count`` - 1."""
    return int(torch.randint(0, count, (1,), generator=generator))
