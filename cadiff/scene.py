"""The scene, the unit of the house: what is to be made, said once, drawn by one function (``cadiff.generator.draw``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from cadiff.errors import CADiffError
from cadiff.records import SampleRow, SceneRow
from cadiff.storage import decode_image, encode_png


@dataclass(frozen=True)
class Movement:
    """What happens to an exemplar's mask, and to the pixels with it: ``scale`` of length (canvas px), ``turn`` in radians, mirrored or
    not, then moved so that its centroid is at ``centre`` (row and column as shares of the height and the width of the scene's canvas)."""

    scale: float
    turn: float
    mirror: bool
    centre: tuple[float, float]

    def numbers(self) -> list[float]:
        """As a row keeps it."""
        return [self.scale, self.turn, float(self.mirror), *self.centre]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Movement:
        scale, turn, mirror, row, column = numbers
        return cls(scale, turn, bool(mirror), (row, column))

    def inverse(self, centroid: tuple[float, float], canvas: tuple[int, int]) -> tuple[Float[np.ndarray, "2 2"], Float[np.ndarray, " 2"]]:
        """From rows and columns (px) of a canvas to those of the exemplar's, whose mask has this ``centroid`` (px): a matrix, and what is
        added."""
        flip = np.diag([1.0, -1.0 if self.mirror else 1.0])
        matrix = flip @ rotation(-self.turn) / self.scale
        return matrix, np.array(centroid) - matrix @ (np.array(self.centre) * np.array(canvas) - 0.5)


def rotation(turn: float) -> Float[np.ndarray, "2 2"]:
    """Rows and columns before a turn (radians) to those after it (the inverse is a turn back)."""
    cos, sin = math.cos(turn), math.sin(turn)
    return np.array([[cos, -sin], [sin, cos]])


@dataclass(frozen=True)
class Outline:
    """A mask without the empty rest of its canvas: ``crop`` lies at (``top``, ``left``) of a canvas of ``canvas`` px.

    Whatever holds it or is done to it costs what it covers, not what the canvas does.
    """

    crop: Bool[np.ndarray, "h w"]
    top: int
    left: int
    canvas: tuple[int, int]

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "h w"], at: tuple[int, int] = (0, 0), canvas: tuple[int, int] | None = None) -> Outline:
        """Of a mask, or of a part of one: of what lies ``at`` that row and column of ``canvas``. The crop is the least that has all of it;
        of an empty mask it is empty."""
        rows = np.flatnonzero(mask.any(axis=1))
        top, bottom = (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)
        columns = np.flatnonzero(mask[top:bottom].any(axis=0))
        left, right = (int(columns[0]), int(columns[-1]) + 1) if rows.size else (0, 0)
        shape = canvas or (mask.shape[0], mask.shape[1])
        return cls(mask[top:bottom, left:right].copy(), at[0] + top, at[1] + left, shape)

    @property
    def where(self) -> tuple[slice, slice]:
        """The rows and columns of the canvas that the crop lies in."""
        return slice(self.top, self.top + self.crop.shape[0]), slice(self.left, self.left + self.crop.shape[1])

    @property
    def whole(self) -> Bool[np.ndarray, "h w"]:
        """On its canvas."""
        return union([self])

    def within(self, top: int, left: int, height: int, width: int) -> Bool[np.ndarray, "height width"]:
        """What of it lies in a rectangle of its canvas."""
        seen, (rows, columns) = np.zeros((height, width), bool), self.where
        first, last = max(rows.start, top), min(rows.stop, top + height)
        start, end = max(columns.start, left), min(columns.stop, left + width)
        if first < last and start < end:
            part = self.crop[first - self.top : last - self.top, start - self.left : end - self.left]
            seen[first - top : last - top, start - left : end - left] = part
        return seen

    @cached_property
    def centroid(self) -> tuple[float, float]:
        """Row and column, px of the canvas; of a mask with at least one pixel."""
        rows, columns = self.crop.sum(axis=1), self.crop.sum(axis=0)
        row, column = (float(n @ np.arange(len(n)) / n.sum()) for n in (rows, columns))
        return row + self.top, column + self.left

    @cached_property
    def area(self) -> int:
        return int(self.crop.sum())

    @property
    def touches(self) -> Bool[np.ndarray, "2 2"]:
        """Whether it reaches the canvas's first and last row (first line), first and last column."""
        return np.array([[at.start == 0, at.stop == side] for at, side in zip(self.where, self.canvas, strict=True)])


def union(outlines: Sequence[Outline]) -> Bool[np.ndarray, "h w"]:
    """One mask of several on the same canvas."""
    mask = np.zeros(outlines[0].canvas, bool)
    for outline in outlines:
        mask[outline.where] |= outline.crop
    return mask


@dataclass(frozen=True)
class Anomaly:
    """One anomaly of a scene: its type, where it is (canvas), how strong (w of Eq. 11), and where it has one the exemplar whose mask
    was moved. ``source`` says how the mask came to lie there.

    A product has hundreds of scenes, so each holds its masks' outlines; the whole mask is made where it is asked for.
    """

    anomaly_type: str
    outline: Outline
    intensity: float
    source: str
    exemplar: SampleRow | None = None
    movement: Movement | None = None

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """On the canvas."""
        return self.outline.whole


@dataclass(frozen=True)
class Scene:
    """What one image is to be.

    ``picture`` is the real picture that it is set in (None: all of it is generated). Where that is an exemplar (an anomaly that stays
    in place), its own anomaly is taken out first, and ``normal`` is the normal whose light it takes; else both are the same.
    ``named``: the prompt names the types; a scene that asks for nothing (a normal in which a place is drawn anew) does not. ``edits``:
    the picture is one that a user named, from which a type with w <= 0 is healed. ``seed`` is the noise's, ``template`` the prompt's.
    """

    scene_id: str
    product: str
    anomalies: tuple[Anomaly, ...]
    picture: SampleRow | None
    normal: SampleRow | None
    seed: int
    template: int
    named: bool = True
    edits: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(anomaly.anomaly_type for anomaly in self.anomalies)

    @property
    def intensities(self) -> tuple[float, ...]:
        return tuple(anomaly.intensity for anomaly in self.anomalies)

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """The union of all masks."""
        return union([anomaly.outline for anomaly in self.anomalies])

    @property
    def source(self) -> str:
        """How the masks came to lie where they do, each way once."""
        return " + ".join(dict.fromkeys(anomaly.source for anomaly in self.anomalies))

    @property
    def approximate(self) -> bool:
        """Whether one of its masks has the shape of an exemplar's that stems from a box."""
        return any(anomaly.exemplar is not None and anomaly.exemplar.approximate for anomaly in self.anomalies)

    def at(self, intensity: float | Mapping[str, float]) -> Scene:
        """The same scene at another w, one for all types or one for each."""
        anomalies = [
            replace(a, intensity=intensity if isinstance(intensity, (int, float)) else intensity[a.anomaly_type]) for a in self.anomalies
        ]
        return replace(self, anomalies=tuple(anomalies))

    def row(self) -> SceneRow:
        """As the scenes' table keeps it."""
        pngs = [
            {"bytes": encode_png(a.mask.astype(np.uint8) * 255), "path": f"{self.scene_id}_{a.anomaly_type}.png"} for a in self.anomalies
        ]
        return SceneRow(
            scene_id=self.scene_id, product=self.product, named=self.named, anomaly_types=list(self.types), masks=pngs,
            mask_sources=[a.source for a in self.anomalies], intensities=list(self.intensities),
            exemplar_ids=[a.exemplar.sample_id if a.exemplar else None for a in self.anomalies],
            movements=[a.movement.numbers() if a.movement else None for a in self.anomalies],
            picture_id=self.picture.sample_id if self.picture else None, normal_id=self.normal.sample_id if self.normal else None,
            seed=self.seed, template=self.template, approximate=self.approximate,
        )  # fmt: skip

    @classmethod
    def of(cls, row: SceneRow, samples: Mapping[str, SampleRow]) -> Scene:
        """A table's row with its pictures found among the product's ``samples`` (by id).

        Raises:
            CADiffError: if one of them is not there.
        """

        def found(sample_id: str | None) -> SampleRow | None:
            if sample_id is not None and sample_id not in samples:
                raise CADiffError(f"scenes: {sample_id} is not among the product's normals and exemplars. Rerun the scenes stage.")
            return samples[sample_id] if sample_id is not None else None

        anomalies = [
            Anomaly(
                kind, Outline.of(decode_image(mask["bytes"], "L", row.scene_id) > 127), w, source, found(exemplar),
                Movement.of(movement) if movement else None,
            )
            for kind, mask, w, source, exemplar, movement in zip(
                row.anomaly_types, row.masks, row.intensities, row.mask_sources, row.exemplar_ids, row.movements, strict=True
            )
        ]  # fmt: skip
        picture, normal = found(row.picture_id), found(row.normal_id)
        return cls(row.scene_id, row.product, tuple(anomalies), picture, normal, row.seed, row.template, row.named)
