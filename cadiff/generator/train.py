"""Joint training of one product's tokens, ControlNet and SAIM (Eq. 8)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cadiff.backbone import Backbone
from cadiff.checkpoint import cosine, load_training, save_training
from cadiff.control import SpatialControl
from cadiff.data.augment import augment_pair
from cadiff.data.images import to_tensor
from cadiff.errors import CADiffError
from cadiff.generator.adapt import load_adapted, load_recorded, seed_everything, velocity_or_noise
from cadiff.generator.model import Generator
from cadiff.generator.reweighting import Reweighting, tapped
from cadiff.generator.setting import exposure_gain
from cadiff.generator.windows import REFINED, Box, Window, box_of, check_canvas, drawn_around, placed_like
from cadiff.params import IntensityParams, Params
from cadiff.pictures import Pictures, canvas_of
from cadiff.progress import Progress
from cadiff.prompt import CONTEXT, LearnedTokens, PlainWords, Prompt, contrastive_loss, localizing_loss
from cadiff.records import CURVE_SCHEMA, SampleRow
from cadiff.seeds import torch_generator
from cadiff.storage import read_json, sha256_folder, write_json, write_table

CLOSE = 0.25  # of the examples of a mask that is gone over in drawing: a window at the base's own scale within it
CURVE_EVERY = 5
WARMUP = 20  # steps up to the whole learning rate, where it decays


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


@dataclass(frozen=True)
class View:
    """A training batch: pictures, their control masks, the masks their words may attend to, prompts, and which of their words w = 0
    silences (position in the prompt; -1: none). A silenced word is no concept of its picture."""

    image: Float[Tensor, "b 3 h w"]
    mask: Float[Tensor, "b 1 h w"]
    concept_masks: Tensor  # b c h w, the context's first; a normal's anomaly masks are empty
    positions: Int[Tensor, "b c"]
    prompts: list[Prompt]
    silenced: Int[Tensor, " b"]


def draw_view(shown: Shown, tokens: LearnedTokens | PlainWords, backbone: Backbone, params: Params, generator: torch.Generator) -> View:
    """A batch of examples, each by itself (``draw_example``)."""
    return collate([draw_example(shown, tokens, backbone, params, generator) for _ in range(params.train.batch)], tokens)


def draw_example(
    shown: Shown, tokens: LearnedTokens | PlainWords, backbone: Backbone, params: Params, generator: torch.Generator
) -> Example:
    """An exemplar of any type, in a window; with probability ``normal_share`` a normal takes its place and keeps the mask.

    The normals teach that the word carries the anomaly, not the mask's shape (docs/method.md); a share of them, ``silenced``, names
    the anomaly and has w = 0 for it, so that nothing but the word's own attention does. Both are warped alike, or a
    warp's own marks (its blur, what it mirrors in) would tell one from the other. With ``train.exposure: normals`` an
    exemplar takes the exposure of a normal drawn for it.
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
    return Example(image, mask, said, seen, tokens.prompt(backbone, said, _below(1 << 30, generator)))


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
    )  # fmt: skip


def _below(count: int, generator: torch.Generator) -> int:
    """A number from 0 to ``count`` - 1."""
    return int(torch.randint(0, count, (1,), generator=generator))


def joint_loss(generator: Generator, view: View, params: Params, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    """L = L_CALDM + gamma L_loc + beta L_contrastive (Eq. 8), and its parts."""
    backbone, prompt = generator.backbone, params.prompt
    latent = backbone.encode(view.image)
    noise = torch.randn(latent.shape, generator=rng).to(backbone.device)
    t = torch.randint(0, len(backbone.schedule), (len(latent),), generator=rng).to(backbone.device)
    mask, positions = view.mask.to(backbone.device), view.positions.to(backbone.device)
    silencing = silencing_of(view, latent.shape[-1], backbone.device)
    with tapped(backbone.unet, generator.controlnet, silencing) as tap, backbone.autocast():
        text = generator.encode(view.prompts)
        noisy = backbone.schedule.add_noise(latent, noise, t)
        predicted = generator.denoise(noisy, t, text, mask)
        maps = list(tap.maps)
    error = (predicted.float() - velocity_or_noise(backbone, latent, noise, t)).square()
    cells = torch.nn.functional.interpolate(mask, size=error.shape[-2:], mode="area")
    if params.prompt.tokens == "single":  # Textual Inversion on the anomaly region: Eq. 2 inside the mask
        denoising = (error * cells).sum() / (cells.sum() * error.shape[1]).clamp(min=1)
    else:
        denoising = (error * (1 + params.train.mask_weight * cells)).mean()
    loss, parts = denoising, {"denoising": denoising.item()}
    if prompt.localizing and prompt.gamma:
        localizing = localizing_loss(maps, positions, view.concept_masks.to(backbone.device), prompt.balanced)
        loss, parts["localizing"] = loss + prompt.gamma * localizing, localizing.item()
    if prompt.contrastive and prompt.beta:
        present = positions >= 0
        vectors = text.float().gather(1, positions.clamp(min=0)[..., None].expand(-1, -1, text.shape[-1]))[present]
        concepts = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)[present]
        contrast = contrastive_loss(vectors, concepts, prompt.temperature, prompt.contrastive_over)
        loss, parts["contrastive"] = loss + prompt.beta * contrast, contrast.item()
    return loss, parts


def silencing_of(view: View, side: int, device: torch.device) -> Reweighting | None:
    """Eq. 11 with w = 0 for a batch's silenced words: masked, in both models, at every noise level, whatever ``intensity`` says.
    None where it has none."""
    if not (view.silenced >= 0).any():
        return None
    positions = view.silenced[:, None].to(device)
    always = torch.ones_like(positions, dtype=torch.bool)
    return Reweighting(positions, view.mask.bool().to(device), torch.zeros(positions.shape, device=device), IntensityParams(), side, always)


def learning_rates(params: Params, step: int) -> tuple[float, float]:
    """The tokens' and the control's at a step (``train.decay``)."""
    share = cosine(step, params.train.steps, warmup=WARMUP) if params.train.decay == "cosine" else 1.0
    return share * params.prompt.learning_rate, share * params.control.learning_rate


def new_tokens(params: Params, product: str, types: list[str], backbone: Backbone) -> LearnedTokens | PlainWords:
    prompt = params.prompt
    if prompt.tokens == "plain":
        return PlainWords(backbone, types, prompt.initial_word, prompt.initial_context)
    return LearnedTokens(backbone, product, types, prompt.initial_word, prompt.tokens == "single", prompt.initial_context)


def new_generator(params: Params, product: str, types: list[str], backbone: Backbone) -> Generator:
    tokens = new_tokens(params, product, types, backbone)
    seed_everything(params, "generator", product)  # after the tokens: their table draws from the stream of its own device
    return Generator(backbone, tokens.to(backbone.device), SpatialControl.started(backbone, params.control), "")


def settings(params: Params) -> Params:
    """CADiff's own parameters, as they are."""
    return params


def train(params: Params, product: str, samples: list[SampleRow], adapted: Path, out: Path, work: Path) -> None:
    """Trains and writes ``tokens/``, ``controlnet/``, ``saim/``, ``curve.parquet`` and ``generator.json``.

    Goes on from ``work/training.safetensors`` where there is one, and ends with the same bytes (CPU).
    """
    backbone = load_adapted(params, adapted)
    shown = Shown.of(samples, params)
    types = sorted(set(shown.types))
    generator = new_generator(params, product, types, backbone)
    backbone.narrow()  # the control's copy of the encoder has been taken, in full precision
    tokens, control, steps = generator.tokens, generator.control, params.train.steps
    assert control is not None
    optimiser = torch.optim.AdamW(
        [
            {"params": list(tokens.parameters()), "lr": params.prompt.learning_rate, "weight_decay": 0.0},
            {"params": list(control.parameters()), "lr": params.control.learning_rate, "weight_decay": 0.01},
        ]
    )
    checkpoint, modules = work / "training.safetensors", {"tokens": tokens, "control": control}
    start = load_training(checkpoint, modules, optimiser)
    curve: list[dict[str, object]] = read_json(work / f"curve-{start}.json") if start else []
    bar, saved = Progress(f"train {product}", steps, start), time.monotonic()
    for step in range(start, steps):
        rng = torch_generator(params.seed, "train", product, step)
        for group, rate in zip(optimiser.param_groups, learning_rates(params, step), strict=True):
            group["lr"] = rate
        optimiser.zero_grad()  # before the forward pass: the last step's gradients would lie beside its activations
        loss, parts = joint_loss(generator, draw_view(shown, tokens, backbone, params, rng), params, rng)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
        optimiser.step()
        if step % CURVE_EVERY == 0 or step + 1 == steps:
            curve += [{"step": step, "name": name, "value": value} for name, value in parts.items()]
        bar.advance(1, parts)
        if time.monotonic() - saved > params.train.checkpoint_seconds and step + 1 < steps:
            write_json(work / f"curve-{step + 1}.json", curve)
            save_training(checkpoint, step + 1, modules, optimiser)
            saved = time.monotonic()
    tokens.save(out / "tokens")
    control.save(out)
    write_table(out / "curve.parquet", pa.Table.from_pylist(curve, schema=CURVE_SCHEMA))
    made_with = {"product": product, "types": types, "base": backbone.digest, "steps": steps, "params": training_of(params)}
    write_json(out / "generator.json", made_with)


def training_of(params: Params) -> dict[str, dict[str, object]]:
    """The parameters that a trained generator depends on, by section; where it was computed is none of them."""
    found = params.model_dump(mode="json", include={"base", "window", "adapt", "prompt", "control", "train"})
    for section, key in (("base", "device"), ("base", "dtype"), ("train", "checkpoint_seconds")):
        del found[section][key]
    return {"dataset": {"size": params.dataset.size}, **found}


def load(params: Params, product: str, adapted: Path, folder: Path) -> Generator:
    """The trained generator of a product, frozen.

    Raises:
        CADiffError: if it was trained on another base.
    """
    backbone, record = load_recorded(params, adapted, folder)
    tokens = new_tokens(params, product, record["types"], backbone)
    if isinstance(tokens, LearnedTokens):
        tokens.restore(folder / "tokens")
    tokens.to(backbone.device).requires_grad_(False)
    return Generator(backbone.narrow(), tokens, SpatialControl.load(folder, backbone), sha256_folder(folder)[:16])
