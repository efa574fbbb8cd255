"""How far a defect is from being one of the exemplars' again: pasted elsewhere, moved, mirrored, turned or scaled.

Only the pixels of both masks are looked at. A crop around a defect holds mostly what the defect lies on, and that is another
part in another pose: by such crops a pasted exemplar is no nearer to its original than independent defects are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


Images = Sequence[UInt8[np.ndarray, "_ _ 3"]]  # each of its own shape, its mask alike
Masks = Sequence[Bool[np.ndarray, "_ _"]]


@dataclass(frozen=True)
class Defect:
    """What a mask covers, cut out and brought to about the size of a view, so that it costs the same on any canvas.

    ``cells`` are colours times coverage, then coverage; ``centre`` (row, column) and ``half`` a view's side, in cells.
    """

    cells: Float[Tensor, "4 h w"]
    centre: tuple[float, float]
    half: float
    spread: float  # twice the variance of the pixels' values: the mean squared difference of any two

    @classmethod
    def of(cls, image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> Defect:
        """All of an image whose mask is empty."""
        mask = mask if mask.any() else np.ones_like(mask)
        rows, columns = np.nonzero(mask)
        half = REACH * math.sqrt(rows.var() + columns.var() + 1 / 6)  # a pixel's own is 1/6: it is a square, no point
        centre, step = (rows.mean() + 0.5, columns.mean() + 0.5), max(1, int(2 * half / SIDE))
        ends = [(int((middle - half * math.sqrt(2)) // step * step), math.ceil(middle + half * math.sqrt(2))) for middle in centre]
        (top, bottom), (left, right) = ((max(0, first), last) for first, last in ends)
        part = np.s_[top:bottom, left:right]
        colours, inside = image[part] / np.float32(255), mask[part]
        picture = torch.from_numpy(np.concatenate([colours, np.ones_like(colours[..., :1])], axis=2) * inside[..., None])
        picture = picture.permute(2, 0, 1).float()
        # Cells larger than pixels take their mean; sampling alone would take one pixel of many.
        picture = F.pad(picture, (0, -inside.shape[1] % step, 0, -inside.shape[0] % step))
        at = ((centre[0] - top) / step, (centre[1] - left) / step)
        return cls(F.avg_pool2d(picture[None], step)[0], at, half / step, 2 * float(colours[inside].var(axis=0).sum()))

    def views(self, turns: tuple[float, ...], mirrors: tuple[bool, ...]) -> Float[Tensor, "views 4 s s"]:
        """The defect with its centroid in the middle, as large as its mask says, turned (degrees) and mirrored."""
        height, width = self.cells.shape[1:]
        line = ((torch.arange(SIDE) + 0.5) / SIDE * 2 - 1) * self.half
        y, x = torch.meshgrid(line, line, indexing="ij")
        grids = []
        for sign in [-1 if mirror else 1 for mirror in mirrors]:
            for turn in turns:
                cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
                row, column = self.centre[0] + cos * y + sin * sign * x, self.centre[1] - sin * y + cos * sign * x
                grids.append(torch.stack([column / width * 2 - 1, row / height * 2 - 1], dim=-1))
        cells = self.cells.expand(len(grids), -1, -1, -1)
        return F.grid_sample(cells, torch.stack(grids).float(), "bilinear", "zeros", align_corners=False)


@dataclass(frozen=True)
class Originals:
    """One type's exemplars. ``usual``: mean squared difference of two exemplars' content where aligned masks overlap;
    ``spread``: median distance of an exemplar to the nearest other one, of those that are not the same again. Both of values
    in [0, 1], summed over channels."""

    defects: list[Defect]
    usual: float
    spread: float

    def distances(self, images: Images, masks: Masks) -> Float[np.ndarray, "n e"]:
        """Of each image's defect to each exemplar's: 0 for the same one again, 1 for what is usual among the exemplars.

        inf where the exemplars themselves differ by noise alone: of such a type nobody can tell a copy.
        """
        return self.of([Defect.of(image, mask) for image, mask in zip(images, masks, strict=True)])

    def of(self, defects: Sequence[Defect]) -> Float[np.ndarray, "n e"]:
        """The same of defects that were cut out already."""
        if self.spread < LEAST:
            return np.full((len(defects), len(self.defects)), np.inf, np.float32)
        return _compare(defects, self.defects, self.usual)[0] / self.spread


def originals(images: Images, masks: Masks) -> Originals:
    """The exemplars with how far they are from each other.

    A single one has no other. What is usual is then the mean squared difference of any two of its own pixels, and ``ALONE`` of
    it the spread, which knows nothing of the type: copies are found, but what only looks alike is told less well.
    """
    defects = [Defect.of(image, mask) for image, mask in zip(images, masks, strict=True)]
    any_two = float(np.mean([defect.spread for defect in defects]))
    if len(defects) < 2:
        return Originals(defects, any_two, ALONE * any_two)
    others = ~np.eye(len(defects), dtype=bool)
    _, content = _compare(defects, defects, any_two)
    usual = float(np.median(content[others]))
    found, _ = _compare(defects, defects, usual)
    nearest = np.where(others, found, np.inf).min(axis=1)
    apart = nearest[nearest >= LEAST]  # the same piece may be photographed twice, and says nothing of how far two pieces are apart
    return Originals(defects, usual, float(np.median(apart)) if len(apart) else 0.0)


def _compare(
    defects: Sequence[Defect], exemplars: Sequence[Defect], usual: float
) -> tuple[Float[np.ndarray, "n e"], Float[np.ndarray, "n e"]]:
    """The least distance over all views of each exemplar, and the content's mean squared difference in that view."""
    own = torch.cat([defect.views((0.0,), (False,)) for defect in defects])
    turns = tuple(np.arange(0, 360, TURN))
    pairs = []
    for exemplar in exemplars:
        views = exemplar.views(turns, (False, True))
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
