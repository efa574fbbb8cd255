"""Random crop, translation and rotation of an image and its mask together, as one affine warp.

No flips: products have a handedness.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cadiff.data.images import Batch

DRAWS = 8
# Just under a quarter: what a mask of one pixel keeps at worst, sampled half a pixel off along both axes.
COVERAGE = 0.24
# What a warp brings in from beyond the border is mirrored, in the image and in the mask alike: an anomaly that
# is mirrored into view must be marked.
MASK_PADDING = "reflection"


def augment_pair(
    image: Float[Tensor, "3 h w"],
    mask: Bool[Tensor, "1 h w"],
    crop: float,
    translate: float,
    rotate: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "3 h w"], Bool[Tensor, "1 h w"]]:
    """The pair under one random warp: same shapes, drawn from ``generator`` (a CPU generator).

    Args:
        crop: largest share of the side that the crop may take away (a zoom in).
        translate: largest shift, as a share of the side.
        rotate: largest rotation, in degrees.

    A warp that moves the mask out of the image is drawn again; after ``DRAWS`` of them the pair comes back as
    it is.
    """
    for _ in range(DRAWS):
        theta = _draw_theta(image.shape[-2:], crop, translate, rotate, generator).to(image.device)
        grid = F.affine_grid(theta[None], [1, 1, *image.shape[-2:]], align_corners=False)
        coverage = F.grid_sample(mask[None].float(), grid, "bilinear", MASK_PADDING, align_corners=False)[0]
        if (coverage >= COVERAGE).any() or not mask.any():
            grid = grid.to(image.dtype)
            warped = F.grid_sample(image[None], grid, "bilinear", "reflection", align_corners=False)[0]
            return warped, coverage >= COVERAGE
    return image, mask


def augment_batch(
    batch: Batch, crop: float, translate: float, rotate: float, generator: torch.Generator
) -> Batch:
    """``augment_pair`` on each pair of a batch, in order."""
    pairs = [
        augment_pair(image, mask, crop, translate, rotate, generator)
        for image, mask in zip(batch.image, batch.mask, strict=True)
    ]
    return Batch(torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs]))


def _draw_theta(
    shape: torch.Size, crop: float, translate: float, rotate: float, generator: torch.Generator
) -> Float[Tensor, "2 3"]:
    """From output to input coordinates, both in [-1, 1], as ``affine_grid`` wants them."""
    height, width = shape
    draws = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
    side = 1.0 - crop * draws[0]
    angle = math.radians(rotate) * (2 * draws[1] - 1)
    # A window of this side has room for its centre within 1 - side; the translation comes on top.
    x = (1 - side) * (2 * draws[2] - 1) + 2 * translate * (2 * draws[4] - 1)
    y = (1 - side) * (2 * draws[3] - 1) + 2 * translate * (2 * draws[5] - 1)
    cos, sin = side * math.cos(angle), side * math.sin(angle)
    return torch.tensor([[cos, -sin * height / width, x], [sin * width / height, cos, y]])
