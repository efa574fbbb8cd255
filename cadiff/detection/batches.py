"""What the detector is trained on: normals and generated anomalies, and the batch of each step."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cadiff.data.images import Batch, make_batch
from cadiff.detection.tiles import View, random_tile, smallest_side
from cadiff.errors import CADiffError
from cadiff.pictures import MEMORY, MaskRule, Picture, Pictures, fitted, scaled
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.storage import Spill, Stored, decode_image, digest, read_batches

GOOD = "good.parquet"  # normal images that took the generator's path
BRIGHTNESS = CONTRAST = 0.1
EXPOSURE = 2.0  # up to this much brighter or darker
REAL = (3, 4)  # of so many anomalies of a type that has real ones and generated ones, so many are real: docs/path.md has the trial
T = TypeVar("T")
_COLUMNS = ["sample_id", "anomaly_types", "image", "mask", "generator_digest", "params_digest"]


@dataclass
class Recent:
    """The pictures that were decoded last, up to ``memory`` bytes of pixels; ``rule`` says which pixels of a shrunk mask count."""

    memory: int = MEMORY
    rule: MaskRule = "quarter"
    _found: OrderedDict[Encoded, Picture] = field(default_factory=OrderedDict)
    _used: int = 0

    def get(self, encoded: Encoded, view: View) -> Picture:
        if encoded in self._found:
            self._found.move_to_end(encoded)
            return self._found[encoded]
        picture = scaled(encoded.decoded(), view.seen, self.rule)
        self._found[encoded] = picture
        self._used += _bytes(picture)
        while self._used > self.memory:
            self._used -= _bytes(self._found.popitem(last=False)[1])
        return picture


def _bytes(picture: Picture) -> int:
    return picture.image.nbytes + picture.mask.nbytes


@dataclass(frozen=True, eq=False)
class Encoded:
    """A shard's image and mask at the canvas, as PNG bytes; ``name`` says where they come from, ``real`` whether a camera took what is in
    the mask: no model drew it."""

    name: str
    image: Stored
    mask: Stored
    real: bool = True

    def decoded(self) -> Picture:
        """Its pixels.

        Raises:
            CADiffError: if it does not decode.
        """
        return Picture(decode_image(self.image(), "RGB", self.name), decode_image(self.mask(), "L", self.name) > 127)


class ShardPictures(Sequence[Picture]):
    """Images of shards at a detector's scale, decoded when they are asked for."""

    def __init__(self, encoded: Sequence[Encoded], view: View, recent: Recent) -> None:
        self.encoded, self.view, self._recent = list(encoded), view, recent

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> Picture:  # type: ignore[override]
        return self._recent.get(self.encoded[index], self.view)

    @cached_property
    def _sources(self) -> list[list[int]]:
        """The real ones and the others, by index."""
        return [[index for index, one in enumerate(self.encoded) if one.real is real] for real in (True, False)]

    def pick(self, draw: Callable[[int], int]) -> Picture:
        """A random picture, ``draw(n)`` being below n; of real and generated ones together a real one ``REAL`` of the times, as more often
        than that the few that a camera took are seen too seldom."""
        if not all(self._sources):
            return self[draw(len(self))]
        chosen = self._sources[draw(REAL[1]) >= REAL[0]]
        return self[chosen[draw(len(chosen))]]

    def shape(self, index: int) -> tuple[int, int]:
        """Height and width, without decoding."""
        encoded = self.encoded[index]
        return fitted(*_shape_of(encoded.image(), encoded.name), self.view.seen)


Pool = Pictures | ShardPictures


@dataclass(frozen=True)
class TrainingData:
    """Pictures at the detector's scale, of any shapes; none is decoded before it is drawn.

    ``normals`` is one pool (raw images) or two (raw, and through the generator's path), which share the
    normal half of each batch equally. ``side`` is that of the tiles that a batch is made of. ``made_by`` is a digest of what generated
    the shards.
    """

    normals: list[Pool]
    anomalies: dict[str, ShardPictures]
    side: int
    made_by: str


def load_training_data(
    product: str, samples: Sequence[SampleRow], generated: Sequence[Path], view: View, most: int | None = None, rule: MaskRule = "quarter"
) -> TrainingData:
    """The product's train normals, and every image of the generated shards (or ``most`` of a type: ``in_turn``), grouped by anomaly type.

    An image with several anomalies is a type of its own (``hole+scratch``). The same type from several
    folders is one pool. ``rule`` says which pixels of a shrunk mask count.

    Raises:
        UsageError: if pictures are too small for the networks.
        CADiffError: if there is no normal or no generated anomaly, or an image or mask does not fit.
    """
    rows = [row for row in samples if row.product == product and row.role == "normal"]
    if not rows:
        raise CADiffError(f"{product}: expected normal images to train on, found none. Check dataset.root.")
    shards = sorted(path for folder in generated for path in Path(folder).glob("*.parquet"))
    found: dict[str, dict[Path, list[Encoded]]] = {}
    good: list[Encoded] = []
    makers: set[str] = set()
    spill = Spill()
    for shard in shards:
        for row in islice(shard_rows(shard), most):
            encoded = _encoded(row, view, shard, spill)
            makers.add(maker(row))
            own = found.setdefault("+".join(row["anomaly_types"]), {}).setdefault(shard, []) if shard.name != GOOD else good
            own.append(encoded)
    if not found:
        folders = ", ".join(map(str, generated))
        raise CADiffError(f"{folders}: expected shards of anomalies (*.parquet), found none. Generate them.")
    recent = Recent(rule=rule)
    normals: list[Pool] = [Pictures(rows, view.canvas, seen=view.seen)]
    if good:
        normals.append(ShardPictures(good, view, recent))
    anomalies = {name: ShardPictures(in_turn(list(found[name].values()), most), view, recent) for name in sorted(found)}
    shapes = [pool.shape(index) for pool in (*normals, *anomalies.values()) for index in range(len(pool))]
    return TrainingData(normals, anomalies, smallest_side(view, shapes), digest(sorted(makers)))


def in_turn(parts: Sequence[Sequence[T]], most: int | None = None) -> list[T]:
    """``most`` of several sources' images, the first of each, then the second of each, and so on; where there are no more (None: whatever
    there are) all, one source after the other."""
    if most is None or sum(map(len, parts)) <= most:
        return [one for part in parts for one in part]
    rounds = zip_longest(*([(one,) for one in part] for part in parts), fillvalue=())
    return [one for turn in rounds for one in chain.from_iterable(turn)][:most]


def shard_rows(shard: Path) -> Iterator[dict[str, Any]]:
    """What training needs of a shard's rows, a few in memory at a time."""
    for part in read_batches(shard, GENERATED_SCHEMA):
        yield from part.select(_COLUMNS).to_pylist()


def maker(row: dict[str, Any]) -> str:
    """What a row was generated with, as one word."""
    return f"{row['generator_digest']}/{row['params_digest']}"


def training_batch(data: TrainingData, size: int, generator: torch.Generator) -> Batch:
    """``size`` tiles on the CPU, each of a picture that is normal or anomalous in turn, starting with either.

    A normal comes from each pool in turn, so that where some normals took the generator's path half of them
    did, and no trace of a VAE or codec tells normal from anomalous. An anomaly is a random type, then a
    random image of it (``ShardPictures.pick``), then a random tile that shows some of it: however large a picture is, half of a batch
    has an anomaly. The mask
    of a normal says where it was drawn anew, if anywhere: its tile shows some of that, and nothing in it is anomalous.
    """

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    names = list(data.anomalies)
    tiles = []
    first_normal, first_pool = draw(2), draw(len(data.normals))
    for index in range(size):
        if (index + first_normal) % 2:
            pool = data.normals[(first_pool + index // 2) % len(data.normals)]
            picture = pool[draw(len(pool))]
        else:
            picture = data.anomalies[names[draw(len(names))]].pick(draw)
        tile = random_tile(picture, data.side, generator)
        tiles.append(tile._replace(mask=np.zeros_like(tile.mask)) if (index + first_normal) % 2 else tile)
    batch = make_batch(np.stack([tile.image for tile in tiles]), np.stack([tile.mask for tile in tiles]))
    return Batch(jitter(batch.image, generator), batch.mask)


def jitter(image: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """The only augmentation: each image's contrast times 0.9 to 1.1 about its mean and brightness plus -0.1 to 0.1, then all light times
    1/2 to 2, clipped at white.

    No flips, crops or rotations: where an anomaly lies and how the product stands may be what tells it.
    """
    contrast, brightness = torch.rand(2, len(image), 1, 1, 1, generator=generator) * 2 - 1
    exposure = EXPOSURE ** (torch.rand(len(image), 1, 1, 1, generator=generator) * 2 - 1)
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    shown: Tensor = ((image - mean) * (1 + CONTRAST * contrast) + mean + BRIGHTNESS * brightness).clamp(-1, 1)
    return ((shown + 1) * exposure - 1).clamp(max=1)


def _shape_of(png: bytes, name: str) -> tuple[int, int]:
    """Height and width from an image's header."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError) as error:
        raise CADiffError(f"{name}: expected an image, but it does not open ({error}). Generate it again.") from None


def _encoded(row: dict[str, Any], view: View, shard: Path, spill: Spill) -> Encoded:
    name = f"{shard}: {row['sample_id']}"
    image, mask = (_shape_of(row[part]["bytes"], name) for part in ("image", "mask"))
    if image != mask:
        raise CADiffError(f"{name}: expected a mask of its image's size, {image[1]} x {image[0]}, found {mask[1]} x {mask[0]}.")
    if isinstance(view.canvas, int) and min(image) != view.canvas:
        raise CADiffError(
            f"{name}: expected an image of {view.canvas} px on its shorter side (dataset.size), found {image[1]} x {image[0]}. "
            "Generate it again at this size."
        )
    return Encoded(name, spill.put(row["image"]["bytes"]), spill.put(row["mask"]["bytes"]), row["generator_digest"] is None)
