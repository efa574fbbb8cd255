"""The captioned pictures that the embedded base learns from: picture k is the same whoever draws it, and when."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from cadiff.data.drawing.defects import DEFECTS
from cadiff.data.drawing.products import DEMO, Product, draw, random_product
from cadiff.pretraining.photographs import crop_of, photographs
from cadiff.progress import Progress
from cadiff.seeds import numpy_generator
from cadiff.storage import write_bytes

PART = 500
DEMO_SHARE = 0.45  # of the drawn pictures: the demo's four products, drawn from other seeds than the demo data set
GOOD_SHARE = 0.4
PHOTO_SHARE = 0.06  # crops of photographs, called "product": no drawing has their grain, and adaptation starts nearer
MONOCHROME_SHARE = 0.2  # of products that nobody makes, as industrial cameras see them: grey, and in other light

# The words that a learnable token starts from, and what templates need; every one is a word of the tokenizer.
EXTRA_WORDS = ("anomaly", "defect", "product", "damaged", "good", "clear", "close", "up", "picture", "image", "part")


FORM = 3  # what `picture` draws from a seed and an index; another form is another stream


@dataclass(frozen=True)
class Picture:
    """``product`` and ``defect`` are the caption's words ("" where there is no defect); mask is exact."""

    image: np.ndarray  # uint8, s s 3
    mask: np.ndarray  # bool, s s
    product: str
    defect: str


def picture(seed: int, index: int, size: int) -> Picture:
    """Picture ``index`` of the stream."""
    rng = numpy_generator(seed, "stream", index)
    if rng.random() < PHOTO_SHARE:
        photos = photographs()
        crop = crop_of(photos[int(rng.integers(len(photos)))], rng, size)
        return Picture(vary_light(crop, rng, bool(rng.random() < 0.5)), np.zeros((size, size), bool), "product", "")
    demo = rng.random() < DEMO_SHARE
    product: Product = DEMO[str(rng.choice(list(DEMO)))] if demo else random_product(rng)
    kinds = list(product.kinds) if demo and rng.random() < 0.85 else list(DEFECTS)
    kind = None if rng.random() < GOOD_SHARE else str(rng.choice(kinds))
    image, mask = draw(product, rng, size, kind)
    words = product.words
    if not demo and rng.random() < MONOCHROME_SHARE:
        image, words = vary_light(image, rng, True), " ".join(["grey", *words.split()[1:]])  # the first word is the colour
    return Picture(image, mask, words, "" if kind is None else kind.replace("_", " "))


def vary_light(image: np.ndarray, rng: np.random.Generator, monochrome: bool) -> np.ndarray:
    """Contrast and brightness varied, and perhaps without colour; uint8 (s s 3)."""
    pixels = image.astype(np.float32)
    if monochrome:
        pixels = np.repeat(pixels.mean(2, keepdims=True), 3, axis=2)
    return (pixels * rng.uniform(0.5, 1.1) + rng.uniform(-30, 50)).clip(0, 255).round().astype(np.uint8)


def _draw_part(seed: int, part: int, size: int) -> bytes:
    pictures = [picture(seed, index, size) for index in range(part * PART, (part + 1) * PART)]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        image=np.stack([p.image for p in pictures]), mask=np.packbits(np.stack([p.mask for p in pictures]), axis=-1),
        product=np.array([p.product for p in pictures]), defect=np.array([p.defect for p in pictures]),
    )  # fmt: skip
    return buffer.getvalue()


def draw_stream(folder: Path, seed: int, count: int, size: int, workers: int = 2) -> None:
    """Draws the first ``count`` pictures of the stream into ``folder``, a part at a time; parts that are there stay."""
    todo = [part for part in range(-(-count // PART)) if not (folder / f"{part:05d}.npz").exists()]
    bar = Progress("draw pictures (parts of 500)", len(todo))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [(part, pool.submit(_draw_part, seed, part, size)) for part in todo]
        for part, job in jobs:
            write_bytes(folder / f"{part:05d}.npz", job.result())
            bar.advance()


@dataclass(frozen=True)
class Stream:
    """Drawn pictures in memory: image uint8 (n s s 3), mask bool (n s s), and the caption's words."""

    image: np.ndarray
    mask: np.ndarray
    product: np.ndarray
    defect: np.ndarray

    @classmethod
    def opened(cls, folder: Path, count: int) -> Stream:
        parts = [np.load(folder / f"{part:05d}.npz") for part in range(-(-count // PART))]
        return cls(
            np.concatenate([p["image"] for p in parts])[:count],
            np.concatenate([np.unpackbits(p["mask"], axis=-1).astype(bool) for p in parts])[:count],
            np.concatenate([p["product"] for p in parts])[:count],
            np.concatenate([p["defect"] for p in parts])[:count],
        )

    def first(self, count: int) -> Stream:
        return Stream(self.image[:count], self.mask[:count], self.product[:count], self.defect[:count])
