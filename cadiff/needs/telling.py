"""What was counted, in lines for people."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from cadiff.devices import LEANER_DRAWING, LEANER_TRAINING, pick_device, pick_dtype
from cadiff.needs.counting import GIB, Step, drawing_of, shapes_of, step_of
from cadiff.needs.totals import USUAL, Content, Load, content_of, disk, image, loads, training_step
from cadiff.params import Params
from cadiff.progress import duration

# Of the operations that a device can do, what training and drawing reach. The one card that was measured, an H200, reached 15 % of its data
# sheet in training steps (docs/bases.md); 35 % is what a smaller card, which fewer operations fill, may reach.
SHARES = (0.35, 0.15)
USABLE = 0.95  # of a card's memory: its allocator holds some in pieces


class Place(NamedTuple):
    """Where it is computed: the precision, whether it is NVIDIA's, its memory in GiB (None: a CPU's, which is not looked at), operations a
    second in that precision and in float32, and how both are called."""

    narrow: bool
    cuda: bool
    memory: float | None
    rate: float
    exact: float
    name: str
    speed: str


def here(params: Params) -> Place:
    """This machine's ``base.device``, its speed measured in under a second."""
    device = pick_device(params.base.device)
    dtype, cuda = pick_dtype(params.base.dtype, device, scaled=True), device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory / GIB if cuda else None
    rate, exact = attained(device, dtype), attained(device, torch.float32)
    speed = f"what a matrix product reaches on {device} ({rate / 1e12:.3g} TFLOPS, in float32 {exact / 1e12:.3g})"
    name = str(device) if memory is None else f"{device}, which has {memory:.1f} GiB"
    return Place(dtype != torch.float32, cuda, memory, rate, exact, name, speed)


def card_of(params: Params, gigabytes: float) -> Place:
    """A card that is not here: of its memory, and, as nothing is known of its speed, of a round number of operations."""
    speed = "a card of 100 TFLOPS in half precision and 50 in TF32 by its data sheet (another's times go as its numbers)"
    return Place(params.base.dtype != "float32", True, gigabytes, 100e12, 50e12, f"a card of {gigabytes:g} GB", speed)


def attained(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Operations a second of a large matrix product on a device; in float32 with TF32's shorter numbers where the device has them, as
    convolutions take them."""
    side = 4096 if device.type == "cuda" else 1024
    one = torch.ones(side, side, device=device, dtype=dtype)
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    try:
        (one @ one).sum().item()
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            (one @ one).sum().item()
            count += 1
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 * count / (time.monotonic() - began)


def needs(params: Params, card: float | None = None) -> list[tuple[str, str]]:
    """What training and drawing take, as pairs of a name and what was found; ``card``: on one of so many GB, which need not be here."""
    known = shapes_of(params.base)
    if known is None:
        return [("need", "known once the base's config.json files are here; it counts one step of its architecture")]
    shapes, by_name = known
    place, step = here(params) if card is None else card_of(params, card), step_of(params, *shapes)
    drawing = drawing_of(params, *shapes).memory(step, place.narrow, place.cuda) / GIB
    training = step.memory(params.train.optimizer, place.narrow, place.cuda) / GIB
    train, size = params.train, params.base.size
    found = [
        ("need memory, training", f"{training:.1f} GiB of weights, gradients and activations (train.batch {train.batch} in "
         f"{train.accumulate} passes of {step.pictures} at {size} px){room(training, place, LEANER_TRAINING)}"),
        ("need memory, drawing", f"{drawing:.1f} GiB of weights and activations (generate.batch {params.generate.batch} at {size} px)"
         f"{room(drawing, place, LEANER_DRAWING)}"),
        *_times(params, step, place),
        ("need disk", _disk(params, step)),
    ]  # fmt: skip
    return [(name, f"{said} ({by_name})" if by_name else said) for name, said in found]


def room(memory: float, place: Place, remedy: str) -> str:
    """Whether so many GiB fit, and what to set where they do not."""
    if place.memory is None:
        return ""
    return f"; fits {place.name}" if memory <= USABLE * place.memory else f"; error: does not fit {place.name}: set {remedy}"


def span(load: Load, place: Place) -> str:
    """How long it takes at the larger and at the smaller of ``SHARES``."""
    seconds = load.narrow / place.rate + load.exact / place.exact
    return " to ".join(duration(seconds / share) for share in SHARES)


def _times(params: Params, step: Step, place: Place) -> list[tuple[str, str]]:
    each = {"steps": training_step(params, step).times(1000), "images": image(params, step).times(1000)}
    shares = " and ".join(f"{share:.0%}" for share in SHARES)
    contents = [content_of(params, product) for product in params.products]
    taken = [content or USUAL for content in contents]
    sums = [loads(params.for_product(name), content, step) for name, content in zip(params.products, taken, strict=True)]
    totals = {kind: sum((one[kind] for one in sums), Load()) for kind in sums[0]}
    said = ", ".join(f"{kind} {span(load, place)} ({load.steps:,} {'images' if kind == 'drawing' else 'steps'})"
                     for kind, load in totals.items() if load.steps)  # fmt: skip
    return [
        ("need time", ", ".join(f"{span(load, place)} for 1000 {kind}" for kind, load in each.items())
         + f": arithmetic, at {shares} of {place.speed}"),
        ("need time, all", f"{_contents(params, contents)}: {said}; {span(sum(totals.values(), Load()), place)} together"),
    ]  # fmt: skip


def _contents(params: Params, contents: Sequence[Content | None]) -> str:
    """Of what the hours are: the data where they are, else what was assumed."""
    there = [content for content in contents if content is not None]
    said = f"{len(contents)} product" + ("s" if len(contents) > 1 else "")
    if there:
        said += f", {sum(c.exemplars for c in there)} exemplars of {sum(c.types for c in there)} types in {params.dataset.root}"
    if lacking := len(contents) - len(there):
        of = f"{lacking} of them are" if there else f"none is in {params.dataset.root}, so each is"
        said += f"; {of} assumed to have {USUAL.exemplars} exemplars of {USUAL.types} types, MVTec AD's on average"
    return said


def _disk(params: Params, step: Step) -> str:
    taken = [content_of(params, product) or USUAL for product in params.products]
    need, free = disk(params, taken, step), shutil.disk_usage(Path()).free
    said = (
        f"{need.all / GIB:.1f} GiB: generators {need.generators / GIB:.1f}, images {need.shards / GIB:.1f}, the checkpoint of the one "
        f"that is trained {need.checkpoint / GIB:.1f}; as much again in DVC's cache where it cannot link"
    )
    if need.all > free:
        return f"{said}; error: {free / GIB:.1f} GiB are free here: make room, or set generate.per_type lower"
    return f"{said}; {free / GIB:.1f} GiB are free here" + ("" if 2 * need.all <= free else ", enough only where the cache links")
