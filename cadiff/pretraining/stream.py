"""The captioned pictures that the embedded base learns from, windows of larger drawings at all scales: picture k is the same whoever
draws it, and when."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from cadiff.data.drawing.defects import DEFECTS
from cadiff.data.drawing.products import DEMO, Product, draw, random_product
from cadiff.pictures import resize_mask, resize_picture
from cadiff.pretraining.photographs import SCALES, crop_of, photographs, side_between
from cadiff.progress import Progress
from cadiff.seeds import numpy_generator
from cadiff.storage import write_bytes

PART = 600
DEMO_SHARE = 0.45  # of the drawings: the demo's four products, drawn from other seeds than the demo data set
GOOD_SHARE = 0.4  # of them; of the windows of others some show nothing of the defect
PHOTO_SHARE = 0.06  # windows of photographs, called "product": no drawing has their grain, and adaptation starts nearer
MONOCHROME_SHARE = 0.2  # of products that nobody makes, as industrial cameras see them: grey, and in other light

# The words that a learnable token starts from, and what templates need; every one is a word of the tokenizer.
EXTRA_WORDS = ("anomaly", "defect", "product", "damaged", "good", "clear", "close", "up", "picture", "image", "part")


FORM = 4  # what `picture` draws from a seed and an index; another form is another stream
VIEWS = 3  # pictures that are made of one drawing, which takes far longer than cutting: the whole, then windows
AROUND_SHARE = 0.5  # of the windows of a picture with a defect: around it; the rest lie anywhere
CONTEXT = (1.5, 3.0)  # side of a window around a defect, by the defect's extent
LEAST = 0.002  # of what is seen: of a smaller rest of a defect nobody could say that it is one
TRIES = 20


@dataclass(frozen=True)
class Picture:
    """``product`` and ``defect`` are the caption's words ("" where no defect is to be seen); mask is exact. ``scale``: how many of the
    drawing's pixels are side by side in one of the picture's; ``SCALES``: it is the whole drawing (a photograph's is not told: 1)."""

    image: np.ndarray  # uint8, s s 3
    mask: np.ndarray  # bool, s s
    product: str
    defect: str
    scale: float


def picture(seed: int, index: int, size: int) -> Picture:
    """Picture ``index`` of the stream: the whole of a drawing, or a window of it, brought to ``size``."""
    return _views(seed, index // VIEWS, size)[index % VIEWS]


@lru_cache(maxsize=1)  # whoever asks for one asks for the next
def _views(seed: int, number: int, size: int) -> tuple[Picture, ...]:
    rng = numpy_generator(seed, "stream", number)
    if rng.random() < PHOTO_SHARE:
        photo, grey = photographs()[int(rng.integers(len(photographs())))], bool(rng.random() < 0.5)
        crops = [vary_light(crop_of(photo, rng, size, view == 0), rng, grey) for view in range(VIEWS)]
        return tuple(Picture(crop, np.zeros((size, size), bool), "product", "", 1.0) for crop in crops)
    demo = rng.random() < DEMO_SHARE
    product: Product = DEMO[str(rng.choice(list(DEMO)))] if demo else random_product(rng)
    kinds = list(product.kinds) if demo and rng.random() < 0.85 else list(DEFECTS)
    kind = None if rng.random() < GOOD_SHARE else str(rng.choice(kinds))
    image, mask = draw(product, rng, SCALES * size, kind)
    words = product.words
    if not demo and rng.random() < MONOCHROME_SHARE:
        image, words = vary_light(image, rng, True), " ".join(["grey", *words.split()[1:]])  # the first word is the colour
    defect = "" if kind is None else kind.replace("_", " ")
    return tuple(_view(image, mask, words, defect, rng, size, view == 0) for view in range(VIEWS))


def _view(
    image: np.ndarray, mask: np.ndarray, product: str, defect: str, rng: np.random.Generator, size: int, whole: bool
) -> Picture:
    """The whole, or else a window around the defect, or one anywhere; another, where next to nothing of a defect is to be seen."""
    canvas, around = len(mask), mask.any() and rng.random() < AROUND_SHARE
    for attempt in range(TRIES):
        if whole and attempt == 0:
            top = left = 0
            side = canvas
        elif around or attempt == TRIES - 1:
            top, left, side = window_around(mask, rng, size)
        else:
            side = side_between(rng, size, canvas)
            top, left = map(int, rng.integers(0, canvas - side + 1, 2))
        own = mask[top : top + side, left : left + side]
        seen = resize_mask(own, (size, size))
        if not own.any() or seen.mean() >= LEAST:
            break
    window = resize_picture(image[top : top + side, left : left + side], (size, size))
    return Picture(window, seen, product, defect if seen.any() else "", side / size)


def window_around(mask: np.ndarray, rng: np.random.Generator, size: int) -> tuple[int, int, int]:
    """Top, left and side of a square that shows a defect (all of it, where it is no larger than the square), not always in its middle."""
    canvas = len(mask)
    if not mask.any():
        return 0, 0, canvas
    bounds = [(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask)]
    side = int(np.clip(rng.uniform(*CONTEXT) * max(high - low for low, high in bounds), size, canvas))
    starts = []
    for low, high in bounds:
        first, last = sorted((int(np.clip(high - side, 0, canvas - side)), int(np.clip(low, 0, canvas - side))))
        starts.append(int(rng.integers(first, last + 1)))
    return starts[0], starts[1], side


def vary_light(image: np.ndarray, rng: np.random.Generator, monochrome: bool) -> np.ndarray:
    """Contrast and brightness varied, and perhaps without colour; uint8 (s s 3)."""
    pixels = image.astype(np.float32)
    if monochrome:
        pixels = np.repeat(pixels.mean(2, keepdims=True), 3, axis=2)
    return (pixels * rng.uniform(0.5, 1.1) + rng.uniform(-30, 50)).clip(0, 255).round().astype(np.uint8)


def draw_part(seed: int, part: int, size: int) -> bytes:
    """A part of the stream as an .npz file."""
    pictures = [picture(seed, index, size) for index in range(part * PART, (part + 1) * PART)]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        image=np.stack([p.image for p in pictures]), mask=np.packbits(np.stack([p.mask for p in pictures]), axis=-1),
        product=np.array([p.product for p in pictures]), defect=np.array([p.defect for p in pictures]),
        scale=np.array([p.scale for p in pictures]),
    )  # fmt: skip
    return buffer.getvalue()


def draw_stream(folder: Path, seed: int, count: int, size: int, workers: int = 2) -> None:
    """Draws the first ``count`` pictures of the stream into ``folder``, a part at a time; parts that are there stay."""
    todo = [part for part in range(-(-count // PART)) if not (folder / f"{part:05d}.npz").exists()]
    bar = Progress("draw pictures (parts of 600)", len(todo))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [(part, pool.submit(draw_part, seed, part, size)) for part in todo]
        for part, job in jobs:
            write_bytes(folder / f"{part:05d}.npz", job.result())
            bar.advance()


@dataclass(frozen=True)
class Stream:
    """Pictures in memory: image uint8 (n s s 3), mask bool (n s s), the caption's words, and each one's scale."""

    image: np.ndarray
    mask: np.ndarray
    product: np.ndarray
    defect: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> Stream:
        return cls(*(np.array([getattr(one, f.name) for one in pictures]) for f in fields(cls)))

    @classmethod
    def opened(cls, folder: Path, count: int) -> Stream:
        parts = [np.load(folder / f"{part:05d}.npz") for part in range(-(-count // PART))]

        def read(name: str) -> np.ndarray:
            pieces = (np.unpackbits(p[name], axis=-1).astype(bool) if name == "mask" else p[name] for p in parts)
            return np.concatenate(list(pieces))[:count]

        return cls(*(read(f.name) for f in fields(cls)))

    def chosen(self, which: np.ndarray | slice) -> Stream:
        """Some of the pictures."""
        return Stream(*(getattr(self, f.name)[which] for f in fields(self)))
