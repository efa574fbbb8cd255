"""Measures the embedded base: ``python benchmarks/base.py [--base PATH] [--parts autoencoder words samples] [--quick]``.

Prints one figure a line ("name value") and writes a grid of samples per demo product. Pictures are drawn as those that
the base learnt from, whole ones and windows, from beyond the end of its stream. ``--card`` writes what was measured into
the base's ``card.json``.

| figures | what is measured |
| --- | --- |
| autoencoder.psnr* | pictures against themselves encoded and decoded, in dB: all, whole ones and windows, and inside the masks |
| autoencoder.<kind>.* | a segmenter's IoU before and after encoding, their ratio, the defect's median width in px |
| autoencoder.gate | pass: every kind wider than 3 px keeps at least 85 % of its IoU |
| words.* | AUROC of the attention map of a defect's word against the defect's mask, over the latents' cells; also whole and windows |
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cadiff  # noqa: F401  (makes torchvision importable before diffusers asks for it)

# isort: split

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio
from sklearn.metrics import jaccard_score
from torch import Tensor

from cadiff.backbone import Backbone, CrossAttentionTap, load_backbone
from cadiff.backbone.attention import token_map
from cadiff.checkpoint import cosine
from cadiff.data.drawing.products import DEMO
from cadiff.data.images import make_batch, to_tensor, to_uint8
from cadiff.detection.unet import UNet, anomaly_map, check_side, place
from cadiff.errors import UsageError, exit_code
from cadiff.intensity import mask_cells
from cadiff.metrics.ranking import auroc
from cadiff.params import BaseParams
from cadiff.pretraining.diffusion import caption
from cadiff.pretraining.photographs import SCALES
from cadiff.pretraining.stream import Stream, picture
from cadiff.progress import Progress
from cadiff.prompt.tokens import NORMAL_TEMPLATES, TEMPLATES
from cadiff.seeds import derive_seed, numpy_generator, torch_generator
from cadiff.storage import read_json, write_image, write_json

Figures = Iterator[tuple[str, float | str]]

SEED = 0  # of the stream that the base learnt from
TRAIN_FROM, TEST_FROM = 1_000_000, 2_000_000  # indices of held-out pictures: for the segmenter, for all that is measured
GATE, THIN, BLIND = 0.85, 3.0, 0.2  # ratio of IoU; width in px up to which none is asked; IoU below which a ratio is noise
NOISE_LEVELS = (200, 400, 600)
LEARNING_RATE = 3e-3  # the segmenter's
FOCUS_SIDE = 8  # the level at which the embedded base's focus is read
GUIDANCE = (1.0, 2.0)
BATCH = 50


@dataclass(frozen=True)
class Scale:
    """How much is drawn, trained and sampled. Of drawn pictures six in ten have a defect."""

    train: int = 5000
    test: int = 1600
    steps: int = 1200
    width: int = 16
    words: int = 400
    samples: int = 3  # per row of a grid and guidance
    sampling_steps: int = 30


QUICK = Scale(train=1000, test=400, steps=250, width=8, words=60, samples=1, sampling_steps=10)


def held_out(first: int, count: int, size: int, workers: int = 2) -> Stream:
    """Pictures ``first`` to ``first + count - 1`` of the stream; one worker draws in this process."""
    drawn, indices = functools.partial(picture, SEED, size=size), range(first, first + count)
    if workers == 1:
        pictures = list(map(drawn, indices))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            pictures = list(pool.map(drawn, indices, chunksize=BATCH))
    return Stream.of(pictures)


def by_view(values: np.ndarray, scale: np.ndarray) -> Iterator[tuple[str, float]]:
    """The mean of a figure over whole pictures, and over windows; a picture without one (nan) does not count."""
    for name, which in (("whole", scale == SCALES), ("windows", scale < SCALES)):
        yield name, float(np.nanmean(values[which])) if np.isfinite(values[which]).any() else float("nan")


# 1. The autoencoder


def decoded(base: Backbone, images: UInt8[np.ndarray, "n s s 3"]) -> UInt8[np.ndarray, "n s s 3"]:
    """The pictures encoded and decoded."""
    parts = np.split(images, range(BATCH, len(images), BATCH))
    return np.concatenate([to_uint8(base.decode(base.encode(to_tensor(part)))) for part in parts])


def psnr_figures(
    images: UInt8[np.ndarray, "n s s 3"], copies: UInt8[np.ndarray, "n s s 3"], masks: Bool[np.ndarray, "n s s"], scale: np.ndarray
) -> Figures:
    """Mean over pictures of the PSNR in dB, also of whole ones and of windows alone, and of the PSNR of the pixels inside the mask where
    there is one."""
    every = list(zip(images, copies, masks, strict=True))
    values = np.array([peak_signal_noise_ratio(a, b, data_range=255) for a, b, _ in every])
    yield "autoencoder.psnr", float(values.mean())
    for view, value in by_view(values, scale):
        yield f"autoencoder.{view}.psnr", value
    inside = [peak_signal_noise_ratio(a[m], b[m], data_range=255) for a, b, m in every if m.any()]
    yield "autoencoder.psnr_inside_masks", float(np.mean(inside))


def dice_loss(probability: Float[Tensor, "b h w"], mask: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """1 - soft Dice over the whole batch (Milletari et al., "V-Net", 2016)."""
    target = mask[:, 0].float()
    return 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)


def train_segmenter(stream: Stream, steps: int, width: int, batch: int = 16) -> UNet:
    """The detector's U-Net, taught to find drawn defects in pictures that no autoencoder has touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(SEED, "segmenter"))
        model = UNet(width)
    place(model, torch.device("cpu")).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    of_kind = [np.flatnonzero(stream.defect == kind) for kind in sorted({*stream.defect})]
    bar = Progress("segmenter", steps)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * cosine(step, steps, warmup=50)
        rng = numpy_generator(SEED, "segmenter", step)
        rows = [rng.choice(of_kind[rng.integers(len(of_kind))]) for _ in range(batch)]  # every kind as often
        data = make_batch(stream.image[rows], stream.mask[rows])
        logits = model(data.image.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, data.mask[:, 0].long()) + dice_loss(anomaly_map(logits), data.mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        bar.advance(1, {"loss": loss.item()})
    return model.eval()


@torch.no_grad()
def segmented(model: UNet, images: UInt8[np.ndarray, "n s s 3"]) -> Bool[np.ndarray, "n s s"]:
    """Where the segmenter thinks a defect more likely than not."""
    parts = np.split(images, range(BATCH, len(images), BATCH))
    return np.concatenate([(anomaly_map(model(to_tensor(part))) > 0.5).numpy() for part in parts])


def median_width(masks: Bool[np.ndarray, "n s s"]) -> float:
    """Median over pictures of a defect's width in px: twice the largest distance of its pixels to the outside."""
    return float(np.median([2 * ndimage.distance_transform_edt(mask).max() for mask in masks]))


def verdict(width: float, before: float, ratio: float) -> str:
    """``thin``: none is asked; ``blind``: the segmenter does not know this kind well enough to judge."""
    if width <= THIN:
        return "thin"
    if before < BLIND:
        return "blind"
    return "pass" if ratio >= GATE else "fail"


def gate_figures(
    truth: Bool[np.ndarray, "n s s"], before: Bool[np.ndarray, "n s s"], after: Bool[np.ndarray, "n s s"], kinds: np.ndarray
) -> Figures:
    """Per kind the IoU (over all its pictures' pixels) before and after, the ratio, the width, the verdict; then the gate.

    A kind that the segmenter is blind to keeps the gate from passing: nothing was shown for it.
    """
    verdicts = []
    for kind in sorted({*kinds}):
        rows = kinds == kind
        first, second = (jaccard_score(truth[rows].ravel(), found[rows].ravel(), zero_division=0) for found in (before, after))
        width, ratio = median_width(truth[rows]), second / first if first else float("nan")
        verdicts.append(verdict(width, first, ratio))
        measured = {"n": rows.sum(), "width": width, "iou_before": first, "iou_after": second, "ratio": ratio}
        for name, value in measured.items():
            yield f"autoencoder.{kind.replace(' ', '_')}.{name}", float(value)
        yield f"autoencoder.{kind.replace(' ', '_')}.gate", verdicts[-1]
    asked = [v for v in verdicts if v != "thin"]
    yield "autoencoder.gate", "pass" if asked and set(asked) == {"pass"} else "fail"


def autoencoder_figures(base: Backbone, train: Stream, test: Stream, scale: Scale) -> Figures:
    """PSNR on all pictures of ``test``; the gate on those with a defect, by a segmenter that saw ``train`` alone."""
    copies = decoded(base, test.image)
    yield from psnr_figures(test.image, copies, test.mask, test.scale)
    model = train_segmenter(train.chosen(train.defect != ""), scale.steps, scale.width)
    rows = test.defect != ""
    before, after = segmented(model, test.image[rows]), segmented(model, copies[rows])
    yield from gate_figures(test.mask[rows], before, after, test.defect[rows])


# 2. The words


@torch.no_grad()
def word_maps(
    base: Backbone, latents: Float[Tensor, "b c s s"], ids: Int[Tensor, "b tokens"], at: Int[Tensor, " b"], t: int, noise: Tensor
) -> Float[Tensor, "b s s"]:
    """The attention of the word at position ``at`` while latents at noise level ``t`` are denoised.

    Mean over heads and over the layers of the finest level and of the level at which focus is read, all at the
    latents' side.
    """
    side = latents.shape[-1]
    levels = torch.full((len(latents),), t, device=base.device)
    noised = base.schedule.add_noise(latents, noise.to(base.device), levels)
    with CrossAttentionTap(base.unet) as tap, base.autocast():
        base.unet(noised, levels, base.encode_text(ids.to(base.device)))
        layers = [token_map(m, at.to(base.device)).float() for m in tap.maps if m.shape[2] in (side**2, FOCUS_SIDE**2)]
    squares = [m.unflatten(1, (1, round(m.shape[1] ** 0.5), -1)) for m in layers]
    large = [F.interpolate(m, size=(side, side), mode="bilinear") for m in squares]
    return torch.stack(large).mean(0)[:, 0].cpu()


def word_scores(base: Backbone, stream: Stream, t: int) -> tuple[np.ndarray, Stream]:
    """The captioned pictures with a defect, and for each the AUROC of its word's map against its mask."""
    prompts = caption(stream, np.arange(len(stream.image)), numpy_generator(SEED, "captions"), base.tokenizer)
    said = np.flatnonzero((prompts.defect_at >= 0).numpy())  # some prompts are left empty, as in training
    scores: list[float] = []
    for part in np.split(said, range(BATCH, len(said), BATCH)):
        latents = base.encode(to_tensor(stream.image[part]))
        noise = torch.stack([torch.randn(latents.shape[1:], generator=torch_generator(SEED, "words", t, i)) for i in part])
        maps = word_maps(base, latents, prompts.ids[part], prompts.defect_at[part], t, noise)
        cells = mask_cells(torch.from_numpy(stream.mask[part])[:, None], latents.shape[-1])[:, 0]
        scores += [auroc(mask.numpy(), m.numpy()) for mask, m in zip(cells, maps.flatten(1), strict=True)]
    return np.array(scores), stream.chosen(said)


def word_figures(base: Backbone, stream: Stream) -> Figures:
    """Mean AUROC over pictures: per noise level, per kind (over all levels), of whole pictures and of windows, and over everything."""
    measured = {t: word_scores(base, stream, t) for t in NOISE_LEVELS}
    for t, (scores, _) in measured.items():
        yield f"words.t{t}.auroc", float(np.nanmean(scores))
    scores = np.mean([s for s, _ in measured.values()], axis=0)
    said = measured[NOISE_LEVELS[0]][1]
    for kind in sorted({*said.defect}):
        yield f"words.{kind.replace(' ', '_')}.auroc", float(np.nanmean(scores[said.defect == kind]))
    for view, value in by_view(scores, said.scale):
        yield f"words.{view}.auroc", value
    yield "words.n", float(len(scores))
    yield "words.auroc", float(np.nanmean(scores))


# 3. Samples


@torch.no_grad()
def sampled(
    base: Backbone, prompts: list[str], noise: Float[Tensor, "b c s s"], guidance: float, steps: int
) -> UInt8[np.ndarray, "b h w 3"]:
    """Pictures of the base alone, by DDIM on its own noise schedule."""
    scheduler = DDIMScheduler.from_config(base.schedule.config)
    scheduler.set_timesteps(steps)
    text = base.encode_text(base.tokenize(prompts))
    empty = base.encode_text(base.tokenize([""])).expand_as(text)
    latents = noise.to(base.device) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        with base.autocast():
            predicted = base.unet(latents, t, text).sample.float()
            if guidance != 1:
                without = base.unet(latents, t, empty).sample.float()
                predicted = without + guidance * (predicted - without)
        latents = scheduler.step(predicted, t, latents, return_dict=False)[0]
    return to_uint8(base.decode(latents))


def product_grid(base: Backbone, product: str, size: int, scale: Scale) -> UInt8[np.ndarray, "h w 3"]:
    """Rows: good, then each of the product's types. Columns: one block per guidance, from the same noise. Twice as large."""
    words, kinds, columns = DEMO[product].words, ["", *DEMO[product].kinds], scale.samples
    good, bad = NORMAL_TEMPLATES[0], TEMPLATES[0]
    prompts = [(bad if k else good).format(product=words, defect=k.replace("_", " ")) for k in kinds for _ in range(columns)]
    shape = (int(base.unet.config["in_channels"]), *[base.latent_side(size)] * 2)
    streams = [torch_generator(SEED, "base", product, kind, i) for kind in kinds for i in range(columns)]
    noise = torch.stack([torch.randn(shape, generator=stream) for stream in streams])
    blocks = []
    for guidance in GUIDANCE:
        images = sampled(base, prompts, noise, guidance, scale.sampling_steps)
        rows = images.reshape(len(kinds), columns, size, size, 3).transpose(0, 2, 1, 3, 4)
        blocks += [rows.reshape(len(kinds) * size, columns * size, 3), np.full((len(kinds) * size, 4, 3), 255, np.uint8)]
    return np.concatenate(blocks[:-1], axis=1).repeat(2, axis=0).repeat(2, axis=1)


def draw_grids(base: Backbone, size: int, scale: Scale, out: Path) -> Figures:
    """Writes ``out/base_<product>.png`` for the demo's products and says how large each is."""
    for product in DEMO:
        path = out / f"base_{product}.png"
        write_image(path, product_grid(base, product, size, scale))
        yield f"samples.{product}.bytes", float(path.stat().st_size)


def write_card(folder: Path, figures: dict[str, float | str]) -> None:
    """Puts figures below "figures" in a base's ``card.json``; a part ("autoencoder" ...) that was measured takes the place
    of all that the card had of it, other parts' stay.

    Raises:
        CADiffError: if the base has no card.
    """
    card = read_json(folder / "card.json")
    parts = {name.partition(".")[0] for name in figures}
    kept = {name: value for name, value in card.get("figures", {}).items() if name.partition(".")[0] not in parts}
    # four digits say all that so many pictures can; JSON has no nan (a ratio to an IoU of 0)
    rounded = {name: value if isinstance(value, str) else _short(value) for name, value in figures.items()}
    write_json(folder / "card.json", {**card, "figures": {**kept, **rounded}})


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None


PARTS = ("autoencoder", "words", "samples")


def measure(base: Backbone, size: int, scale: Scale, out: Path, workers: int = 2, parts: Sequence[str] = PARTS) -> Figures:
    """Every figure, each as soon as it is known."""
    check_side(size)
    if "autoencoder" in parts:
        train, test = held_out(TRAIN_FROM, scale.train, size, workers), held_out(TEST_FROM, scale.test, size, workers)
        yield from autoencoder_figures(base, train, test, scale)
    if "words" in parts:
        test = held_out(TEST_FROM, 2 * scale.words, size, workers)
        yield from word_figures(base, test.chosen(np.flatnonzero(test.defect != "")[: scale.words]))
    if "samples" in parts:
        yield from draw_grids(base, size, scale, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="embedded", help="a folder in diffusers' layout")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in px")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--card", action="store_true", help="write the figures into the base's card.json too")
    parser.add_argument("--quick", action="store_true", help="a look in two minutes; its gate proves nothing")
    options = parser.parse_args()

    def work() -> None:
        if options.card and options.quick:
            raise UsageError("--card: a card states what was measured in full; leave --quick out")
        base, figures = load_backbone(BaseParams(path=options.base, size=options.size)), {}
        if options.card and not (Path(base.path) / "card.json").is_file():
            raise UsageError(f"--card: expected {base.path}/card.json, which the base's export writes, but it is not there")
        for name, value in measure(base, options.size, QUICK if options.quick else Scale(), options.out, parts=options.parts):
            print(name, value if isinstance(value, str) else f"{value:.6g}", flush=True)
            figures[name] = value
        if options.card:
            write_card(Path(base.path), figures)

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
