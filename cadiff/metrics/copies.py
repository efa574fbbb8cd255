"""How far a defect is from being one of the exemplars' again: pasted elsewhere, moved, mirrored, turned or scaled.

Only the pixels of both masks are looked at. A crop around a defect holds mostly what the defect lies on, and that is another
part in another pose: by such crops a pasted exemplar is no nearer to its original than independent defects are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

SIDE = 24  # cells of a view's side
REACH = 2.2  # half a view's side, in root mean square radii of the mask: a line reaches 1.7, a disc 1.4
TURN = 7.5  # degrees from view to view: at the rim of a view half of it is less than a cell
SHIFT = 1  # cells that a view may lie off, since a mask that was warped or cut has another centre
LIGHT = 0.03  # of the range: a difference in a channel's mean up to this is light, and no other content
ALONE = 0.25  # of the difference of any two of its pixels, for a single exemplar: the demo's are 0.05 to 0.5 of it from each other
LEAST = 1e-4  # of the squared range: noise of 1.5 grey levels in every channel


@dataclass(frozen=True)
class Originals:
    """One type's exemplars. ``usual``: mean squared difference of two exemplars' content where aligned masks overlap;
    ``spread``: median distance of an exemplar to the nearest other one, of those that are not the same again. Both of values
    in [0, 1], summed over channels."""

    images: UInt8[np.ndarray, "e h w 3"]
    masks: Bool[np.ndarray, "e h w"]
    usual: float
    spread: float

    def distances(self, images: UInt8[np.ndarray, "n h w 3"], masks: Bool[np.ndarray, "n h w"]) -> Float[np.ndarray, "n e"]:
        """Of each image's defect to each exemplar's: 0 for the same one again, 1 for what is usual among the exemplars.

        inf where the exemplars themselves differ by noise alone: of such a type nobody can tell a copy.
        """
        if self.spread < LEAST:
            return np.full((len(images), len(self.images)), np.inf, np.float32)
        return _compare(images, masks, self.images, self.masks, self.usual)[0] / self.spread


def originals(images: UInt8[np.ndarray, "e h w 3"], masks: Bool[np.ndarray, "e h w"]) -> Originals:
    """The exemplars with how far they are from each other.

    A single one has no other. What is usual is then the mean squared difference of any two of its own pixels, and ``ALONE`` of
    it the spread, which knows nothing of the type: copies are found, but what only looks alike is told less well.
    """
    any_two = 2 * float(np.mean([_inside(image, mask).var(axis=0).sum() for image, mask in zip(images, masks, strict=True)]))
    if len(images) < 2:
        return Originals(images, masks, any_two, ALONE * any_two)
    others = ~np.eye(len(images), dtype=bool)
    _, content = _compare(images, masks, images, masks, any_two)
    usual = float(np.median(content[others]))
    found, _ = _compare(images, masks, images, masks, usual)
    nearest = np.where(others, found, np.inf).min(axis=1)
    apart = nearest[nearest >= LEAST]  # the same piece may be photographed twice, and says nothing of how far two pieces are apart
    return Originals(images, masks, usual, float(np.median(apart)) if len(apart) else 0.0)


def _compare(
    images: UInt8[np.ndarray, "n h w 3"], masks: Bool[np.ndarray, "n h w"],
    exemplars: UInt8[np.ndarray, "e h w 3"], exemplar_masks: Bool[np.ndarray, "e h w"], usual: float,
) -> tuple[Float[np.ndarray, "n e"], Float[np.ndarray, "n e"]]:  # fmt: skip
    """The least distance over all views of each exemplar, and the content's mean squared difference in that view."""
    own = torch.cat([_views(image, mask, (0.0,), (False,)) for image, mask in zip(images, masks, strict=True)])
    turns = tuple(np.arange(0, 360, TURN))
    pairs = []
    for exemplar, mask in zip(exemplars, exemplar_masks, strict=True):
        views = _views(exemplar, mask, turns, (False, True))
        moves = [(row, column) for row in range(-SHIFT, SHIFT + 1) for column in range(-SHIFT, SHIFT + 1)]
        views = torch.cat([torch.roll(views, move, dims=(2, 3)) for move in moves])
        distance, content = _differences(own, views, usual)
        least, at = distance.min(dim=1)
        pairs.append((least, content.gather(1, at[:, None])[:, 0]))
    distances, contents = zip(*pairs, strict=True)
    return torch.stack(distances, dim=1).numpy(), torch.stack(contents, dim=1).numpy()


def _differences(
    one: Float[Tensor, "n 4 s s"], other: Float[Tensor, "m 4 s s"], usual: float
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Distances of views, and the mean squared difference of content where both masks are.

    Where only one of the masks is, the content is taken to differ as it usually does. So a shape that is shared brings a
    distance no lower than usual: warped masks of exemplars, in which something else was drawn, are no copies. Squares are
    multiplied out, which makes all pairs a few products of matrices.
    """
    (x, m), (y, k) = _split(one), _split(other)
    both = m @ k.T
    apart = (m.square().sum(1)[:, None] + k.square().sum(1) - 2 * both).clamp(min=0)
    squared = (x.square().sum(1) * m) @ k.T + m @ (y.square().sum(1) * k).T
    for channel in range(3):
        weighted, other_weighted = x[:, channel] * m, y[:, channel] * k
        squared -= 2 * weighted @ other_weighted.T
        away = (weighted @ k.T - m @ other_weighted.T).abs() / both.clamp(min=1e-3)
        squared -= both * (away.square() - (away - LIGHT).clamp(min=0).square())
    squared = squared.clamp(min=0)
    return (squared + usual * apart) / (both + apart).clamp(min=1e-3), squared / both.clamp(min=1e-3)


def _split(views: Float[Tensor, "n 4 s s"]) -> tuple[Float[Tensor, "n 3 cells"], Float[Tensor, "n cells"]]:
    """Colours and coverage of the cells; views hold colours times coverage, so that nothing beside a mask bleeds in."""
    flat = views.flatten(2)
    return flat[:, :3] / flat[:, 3:].clamp(min=1e-3), flat[:, 3]


def _views(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], turns: tuple[float, ...], mirrors: tuple[bool, ...]
) -> Float[Tensor, "views 4 s s"]:
    """The defect with its centroid in the middle, as large as its mask says, turned and mirrored; all of an image whose
    mask is empty."""
    mask = mask if mask.any() else np.ones_like(mask)
    rows, columns = np.nonzero(mask)
    half = REACH * math.sqrt(rows.var() + columns.var() + 1 / 6)  # a pixel's own is 1/6: it is a square, no point
    picture = torch.from_numpy(np.concatenate([image / np.float32(255), np.ones_like(image[..., :1])], axis=2) * mask[..., None])
    picture, step = picture.permute(2, 0, 1)[None].float(), max(1, int(2 * half / SIDE))
    # Cells larger than pixels take their mean; sampling alone would take one pixel of many.
    picture = F.pad(picture, (0, -mask.shape[1] % step, 0, -mask.shape[0] % step))
    height, width = picture.shape[2:]
    line = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    y, x = torch.meshgrid(line * half, line * half, indexing="ij")
    grids = []
    for sign in [-1 if mirror else 1 for mirror in mirrors]:
        for turn in turns:
            cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            row, column = rows.mean() + 0.5 + cos * y + sin * sign * x, columns.mean() + 0.5 - sin * y + cos * sign * x
            grids.append(torch.stack([column / width * 2 - 1, row / height * 2 - 1], dim=-1))
    pooled = F.avg_pool2d(picture, step).expand(len(grids), -1, -1, -1)
    return F.grid_sample(pooled, torch.stack(grids).float(), "bilinear", "zeros", align_corners=False)


def _inside(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "pixels 3"]:
    return image[mask if mask.any() else np.ones_like(mask)] / 255
