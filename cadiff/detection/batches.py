"""What the detector is trained on: normals and generated anomalies, and the batch of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cadiff.data.images import Batch, load_samples, make_batch
from cadiff.errors import CADiffError
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.storage import decode_image, digest, read_table

GOOD = "good.parquet"  # normal images that took the generator's path
BRIGHTNESS = CONTRAST = 0.1
_COLUMNS = ["sample_id", "anomaly_types", "image", "mask", "generator_digest", "params_digest"]


@dataclass(frozen=True)
class TrainingData:
    """Decoded pixels (8 bits, about 200 kB an image at 256 px).

    ``normals`` is one pool (raw images) or two (raw, and through the generator's path), which share the
    normal half of each batch equally. ``made_by`` is a digest of what generated the shards.
    """

    normals: list[UInt8[np.ndarray, "n h w 3"]]
    anomalies: dict[str, tuple[UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, "n h w"]]]
    made_by: str


def load_training_data(
    product: str, samples: Sequence[SampleRow], generated: Sequence[Path], size: int
) -> TrainingData:
    """The product's train normals, and every image of the generated shards, grouped by anomaly type.

    An image with several anomalies is a type of its own (``hole+scratch``). The same type from several
    folders is one pool, in which each image counts the same.

    Raises:
        CADiffError: if there is no normal or no generated anomaly, or an image or mask does not fit.
    """
    rows = [row for row in samples if row.product == product and row.role == "normal"]
    if not rows:
        raise CADiffError(f"{product}: expected normal images to train on, found none. Check dataset.root.")
    normals = [load_samples(rows, size)[0]]
    shards = sorted(path for folder in generated for path in Path(folder).glob("*.parquet"))
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    good: list[np.ndarray] = []
    makers: set[str] = set()
    for shard in shards:
        for row in read_table(shard, GENERATED_SCHEMA).select(_COLUMNS).to_pylist():
            pixels, mask = _decode(row, size, shard)
            makers.add(f"{row['generator_digest']}/{row['params_digest']}")
            if shard.name == GOOD:
                good.append(pixels)
            else:
                found.setdefault("+".join(row["anomaly_types"]), []).append((pixels, mask))
    if not found:
        folders = ", ".join(map(str, generated))
        raise CADiffError(f"{folders}: expected shards of anomalies (*.parquet), found none. Generate them.")
    if good:
        normals.append(np.stack(good))
    anomalies = {}
    for name in sorted(found):
        images, masks = zip(*found[name], strict=True)
        anomalies[name] = (np.stack(images), np.stack(masks))
    return TrainingData(normals, anomalies, digest(sorted(makers)))


def training_batch(data: TrainingData, size: int, generator: torch.Generator) -> Batch:
    """``size`` images on the CPU: each normal or anomalous in turn, starting with either.

    A normal comes from each pool in turn, so that where some normals took the generator's path half of them
    did, and no trace of a VAE or codec tells normal from anomalous. An anomaly is a random type, then a
    random image of it.
    """

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    names = list(data.anomalies)
    images, masks = [], []
    first_normal, first_pool = draw(2), draw(len(data.normals))
    for index in range(size):
        if (index + first_normal) % 2:
            pool = data.normals[(first_pool + index // 2) % len(data.normals)]
            images.append(pool[draw(len(pool))])
            masks.append(np.zeros(pool.shape[1:3], dtype=bool))
        else:
            pool, labels = data.anomalies[names[draw(len(names))]]
            chosen = draw(len(pool))
            images.append(pool[chosen])
            masks.append(labels[chosen])
    batch = make_batch(np.stack(images), np.stack(masks))
    return Batch(jitter(batch.image, generator), batch.mask)


def jitter(image: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """The only augmentation: each image's contrast times 0.9 to 1.1 about its mean, and brightness plus -0.1
    to 0.1.

    No flips, crops or rotations: where an anomaly lies and how the product stands may be what tells it.
    """
    contrast, brightness = torch.rand(2, len(image), 1, 1, 1, generator=generator) * 2 - 1
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return ((image - mean) * (1 + CONTRAST * contrast) + mean + BRIGHTNESS * brightness).clamp(-1, 1)


def _decode(row: dict, size: int, shard: Path) -> tuple[np.ndarray, np.ndarray]:
    name = f"{shard}: {row['sample_id']}"
    pixels = decode_image(row["image"]["bytes"], "RGB", name)
    mask = decode_image(row["mask"]["bytes"], "L", name) > 127
    if pixels.shape[:2] != (size, size) or mask.shape != (size, size):
        raise CADiffError(
            f"{name}: expected image and mask of {size} x {size} (base.size), found {pixels.shape[:2]} and "
            f"{mask.shape}. Generate it again at this size."
        )
    return pixels, mask

