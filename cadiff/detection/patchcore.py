"""PatchCore: how far is each patch from the nearest one of the normal images?

Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (CVPR 2022), Sec. 3: features of two middle levels of
an ImageNet network, averaged over 3x3 neighbours; a coreset of the normals' patches; nearest-neighbour distances,
enlarged and smoothed. Two departures, named in the rows' variant or here: the network is the EfficientNet-Lite0 that a
package ships (paper: WideResNet-50), and an image's score is the largest distance without Eq. 7's re-weighting. It sees the whole of
a picture, stretched to a square of 224 px; its maps are brought back to the picture's own shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from scipy import ndimage
from torch import Tensor

from cadiff.detection.measuring import Scores
from cadiff.detection.tiles import View
from cadiff.detection.trained import read_weights
from cadiff.errors import CADiffError
from cadiff.metrics import imagenet
from cadiff.progress import Progress
from cadiff.records import SampleRow
from cadiff.seeds import torch_generator
from cadiff.storage import digest, write_tensors
from cadiff.task import Task

SHARE, MOST = 0.1, 2048  # of the patches that the coreset keeps; and how many at most
PROJECTED = 64  # dimensions in which the coreset is chosen (Johnson-Lindenstrauss)
SMOOTHING = 4 / 224  # sigma, as a share of the side
WHITE = 2.0  # maps are shown up to this multiple of the largest score of a training image
VARIANT = f"patchcore({imagenet.NAME},coreset={SHARE:.0%}<={MOST})"


@dataclass(frozen=True)
class PatchCore:
    """Scores are Euclidean distances in feature space."""

    bank: Float[Tensor, "m d"]
    view: View
    white: float
    made: str
    variant: str = VARIANT
    black: float = 0.0

    def score(self, rows: Sequence[SampleRow]) -> Scores:
        found = [distances(self.bank, self.view.read(row).image) for row in rows]
        return Scores([map_ for map_, _ in found], np.array([largest for _, largest in found]))


def fit_patchcore(task: Task, seed: int, out: Path, work: Path) -> None:
    """Writes ``out/seed-<seed>.safetensors``: the coreset of the product's train normals. ``work`` stays empty: nothing is trained.

    Raises:
        CADiffError: if there are no train normals.
    """
    rows = [row for row in task.samples if row.product == task.product and row.role == "normal"]
    if not rows:
        raise CADiffError(f"{task.product}: expected normal images to train on, found none. Check dataset.root.")
    view = View.of(task.params)
    patches = torch.cat([patch_features(view.read(row).image).flatten(0, 1) for row in rows])
    bank = patches[coreset(patches, (seed, task.method, task.product))]
    largest = max(float(distances(bank, view.read(row).image)[0].max()) for row in rows)
    white = WHITE * largest or 1.0  # normals that are all alike have no distance
    metadata = identity(task, seed) | {"white": repr(white)}
    write_tensors(Path(out) / f"seed-{seed}.safetensors", {"bank": bank}, metadata)


def load_patchcore(task: Task, seed: int, out: Path) -> PatchCore:
    """What ``fit_patchcore`` wrote.

    Raises:
        CADiffError: if the file is not there, not whole, or not of this product, method, seed and size.
    """
    path = Path(out) / f"seed-{seed}.safetensors"
    tensors, metadata = read_weights(path, identity(task, seed), "Fit again.")
    made = digest([metadata, tensors["bank"].double().sum().item()])
    return PatchCore(tensors["bank"], View.of(task.params), float(metadata["white"]), made)


def identity(task: Task, seed: int) -> dict[str, str]:
    view = View.of(task.params)
    return {"canvas": str(view.canvas), "size": str(view.seen), "method": task.method, "product": task.product, "seed": str(seed)}


def patch_features(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "28 28 d"]:
    """Levels of strides 8 and 16, each cell the mean over its 3x3 neighbours (Eq. 1-2), at the finer one's resolution."""
    found = imagenet.features(np.array(image)[None])[1:3]
    levels = [F.avg_pool2d(level, 3, stride=1, padding=1, count_include_pad=False) for level in found]
    side = levels[0].shape[-2:]
    joined = torch.cat([F.interpolate(level, side, mode="bilinear", align_corners=False) for level in levels], dim=1)
    return joined[0].permute(1, 2, 0)


def coreset(patches: Float[Tensor, "n d"], stream: tuple[Any, ...]) -> Tensor:
    """Indices of patches that cover all of them: from a random one on, always the one farthest from those chosen
    (Alg. 1), in a random projection."""
    count = min(MOST, max(1, round(SHARE * len(patches))))
    generator = torch_generator(stream[0], "coreset", *stream[1:])
    matrix = torch.randn(patches.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
    points: Tensor = patches @ matrix
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    norms = points.square().sum(dim=1)

    def squared(index: int) -> Tensor:
        return norms + norms[index] - 2 * (points @ points[index])

    nearest = squared(chosen[0])
    progress = Progress(f"coreset {' '.join(map(str, stream[1:]))} seed {stream[0]}", count, 1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, squared(chosen[-1]))
        progress.advance()
    return torch.tensor(chosen)


def distances(bank: Float[Tensor, "m d"], image: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "h w"], float]:
    """Each patch's distance to its nearest in the bank, enlarged to the picture's shape and smoothed; and the largest of all patches'."""
    found = patch_features(image)
    nearest = torch.cdist(found.flatten(0, 1), bank).amin(dim=1).view(found.shape[:2])
    shape = image.shape[:2]
    map_ = F.interpolate(nearest[None, None], shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    sigma = [SMOOTHING * side for side in shape]  # round in the square that the network saw
    return ndimage.gaussian_filter(map_, sigma), float(nearest.max())
