"""The scene, the unit of the house: what is to be made, said once, drawn by one function (``cadiff.generator.draw``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
class Anomaly:
    """One anomaly of a scene: its type, where it is (canvas), how strong (w of Eq. 11), and where it has one the exemplar whose mask
    was moved. ``source`` says how the mask came to lie there."""

    anomaly_type: str
    mask: Bool[np.ndarray, "h w"]
    intensity: float
    source: str
    exemplar: SampleRow | None = None
    movement: Movement | None = None


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
        return np.any([anomaly.mask for anomaly in self.anomalies], axis=0)

    @property
    def source(self) -> str:
        """How the masks came to lie where they do, each way once."""
        return " + ".join(dict.fromkeys(anomaly.source for anomaly in self.anomalies))

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
            seed=self.seed, template=self.template,
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
                kind, decode_image(mask["bytes"], "L", row.scene_id) > 127, w, source, found(exemplar),
                Movement.of(movement) if movement else None,
            )
            for kind, mask, w, source, exemplar, movement in zip(
                row.anomaly_types, row.masks, row.intensities, row.mask_sources, row.exemplar_ids, row.movements, strict=True
            )
        ]  # fmt: skip
        picture, normal = found(row.picture_id), found(row.normal_id)
        return cls(row.scene_id, row.product, tuple(anomalies), picture, normal, row.seed, row.template, row.named)
