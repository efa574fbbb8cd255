"""Masks for synthesis, from whichever source the parameters name, and the scenes that they make."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from cadiff.errors import UsageError
from cadiff.masks import folder
from cadiff.masks.exemplars import ANYWHERE, BY_CONTEXT, IN_PLACE, ON_PART, Placed, TypeMasks
from cadiff.masks.finder import Finder
from cadiff.masks.random import blob
from cadiff.names import UNKNOWN
from cadiff.params import Params
from cadiff.progress import Progress
from cadiff.records import SampleRow
from cadiff.scene import Outline, Scene
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.task import Task

RANDOM = "random"
BESIDE_TRIES = 8
REDRAWN_NORMALS = 200  # at most
REPORTED = 1 / 3  # of a type's masks that find no place, from which that is said


class Placer:
    """Where masks of one product may lie; keeps what was found in its pictures, however many masks are placed.

    Of the task's samples exemplars and train normals are used, held-out images never.

    Raises:
        UsageError: if there are no exemplars, or no normals to place masks on.
    """

    def __init__(self, task: Task) -> None:
        self.params, self.product = task.params, task.product
        self.normals = [row for row in task.samples if row.role == "normal"]
        self.exemplars: dict[str, list[SampleRow]] = {}
        for row in task.samples:
            if row.role == "exemplar" and row.anomaly_type:
                self.exemplars.setdefault(row.anomaly_type, []).append(row)
        if not self.exemplars:
            raise UsageError(f"{task.product}: expected at least one anomaly with its mask (an exemplar), found none")
        if not self.normals:
            raise UsageError(f"{task.product}: expected train normals to place masks on, found none")
        self.finder = Finder([*self.normals, *(row for rows in self.exemplars.values() for row in rows)], task.params.dataset.size)
        self._types: dict[str, TypeMasks] = {}

    @property
    def types(self) -> list[str]:
        return sorted(self.exemplars)

    def place(
        self, anomaly_type: str, names: tuple[Any, ...], normal: SampleRow | None = None, beside: Bool[np.ndarray, "h w"] | None = None,
        moved: bool = False,
    ) -> Placed:  # fmt: skip
        """One mask, drawn from ``numpy_generator(*names)`` alone.

        Args:
            normal: the picture that it is to lie on, any one; else one of the product's is drawn.
            beside: a mask on that picture already, which the new one is not to touch: of several the one that does so least.
            moved: never in place, as ``normal`` is to be seen.

        Raises:
            UsageError: if the type has no exemplars, or ``data/masks`` no masks of it.
        """
        rng = numpy_generator(*names)
        if self.params.masks.source == "folder":
            return self._drawn(anomaly_type, names, normal or self.normals[int(rng.integers(len(self.normals)))])
        return self._clear(lambda: self.of_type(anomaly_type).draw(rng, normal, moved), beside)

    def from_exemplar(self, anomaly_type: str, names: tuple[Any, ...], normal: SampleRow, moved: bool) -> Placed:
        """As ``place``, whatever ``masks.source`` says."""
        return self.of_type(anomaly_type).draw(numpy_generator(*names), normal, moved)

    def random(self, names: tuple[Any, ...]) -> Placed:
        """A blob on the product of one of the normals, of no exemplar's."""
        rng = numpy_generator(*names)
        normal = self.normals[int(rng.integers(len(self.normals)))]
        mask = blob(self.finder.foreground(normal), self.finder.canvas(normal), rng)
        return Placed(Outline.of(mask), RANDOM, None, None, normal, normal)

    def of_type(self, anomaly_type: str) -> TypeMasks:
        if anomaly_type not in self._types:
            if anomaly_type not in self.exemplars:
                raise UsageError(f"{self.product}: expected exemplars of {anomaly_type}, found none")
            self._types[anomaly_type] = TypeMasks(self.exemplars[anomaly_type], self.normals, self.finder, self.params.masks)
        return self._types[anomaly_type]

    def _drawn(self, anomaly_type: str, names: tuple[Any, ...], normal: SampleRow) -> Placed:
        """The folder's masks in a seeded order, again from the start when they run out; the last of ``names`` says which."""
        files = folder.mask_files(self.product, anomaly_type)
        order = numpy_generator(*names[:-1]).permutation(len(files))
        index = names[-1] if isinstance(names[-1], int) else 0
        mask = folder.drawn_mask(files[order[index % len(files)]], self.finder.canvas(normal))
        return Placed(Outline.of(mask), folder.SOURCE, None, None, normal, normal)

    @staticmethod
    def _clear(draw: Callable[[], Placed], beside: Bool[np.ndarray, "h w"] | None) -> Placed:
        best = draw()
        for _ in range(BESIDE_TRIES - 1):
            if beside is None or not (least := touching(best.mask, beside)):
                break
            other = draw()
            if touching(other.mask, beside) < least:
                best = other
        return best


def touching(mask: Bool[np.ndarray, "h w"], beside: Bool[np.ndarray, "h w"]) -> int:
    """How many pixels of a mask are on another one or next to it; none if they are of two pictures."""
    if mask.shape != beside.shape or not beside.any():
        return 0
    rows, columns = (np.flatnonzero(beside.any(axis=axis)) for axis in (1, 0))
    box = (slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2))
    return int((mask[box] & ndimage.binary_dilation(beside[box], np.ones((3, 3)))).sum())


def make_scenes(task: Task) -> list[Scene]:
    """A generator's scenes: those that ``SCENES`` has for it, else anomalies and normals drawn anew.

    Scene k of a type depends on the seed, the product, the type and k alone, so that generators with scenes of one kind have the same.

    Raises:
        UsageError: if there are no exemplars, no normals to place masks on, or no masks in ``data/masks``.
    """
    return SCENES.get(task.method, anomalies_and_normals)(task.params, Placer(task))


def anomalies_and_normals(params: Params, placer: Placer) -> list[Scene]:
    """``anomalies``, then with ``generate.redraw`` a normal drawn anew in one place for each of up to ``REDRAWN_NORMALS`` normals."""
    scenes = anomalies(params, placer)
    if not params.generate.redraw:
        return scenes
    order = numpy_generator(params.seed, "round-trips", placer.product).permutation(len(placer.normals))[:REDRAWN_NORMALS]
    return scenes + [redrawn_scene(params, placer, placer.normals[k]) for k in sorted(order)]


def anomalies(params: Params, placer: Placer) -> list[Scene]:
    """``generate.per_type`` scenes for each anomaly type that has exemplars, types by name."""
    scenes: list[Scene] = []
    for kind in placer.types:
        scenes += _of_type(params, placer, kind)
        if params.masks.source == "exemplars":
            _tell(placer, kind)
    return scenes


def perturbed_normals(params: Params, placer: Placer) -> list[Scene]:
    """``generate.per_type`` scenes of random masks at w = 1, all of the one type ``UNKNOWN``, as no anomaly is known."""
    return _of_type(params, placer, UNKNOWN, unknown=True)


# Of the generators whose scenes are not CADiff's: one that only perturbs normals has none to draw anew, nor has one that draws nothing.
SCENES: dict[str, Callable[[Params, Placer], list[Scene]]] = {"perturbed": perturbed_normals, "pasted": anomalies}


def _of_type(params: Params, placer: Placer, kind: str, unknown: bool = False) -> list[Scene]:
    bar, scenes = Progress(f"scenes {placer.product} {kind}", params.generate.per_type), []
    for index in range(params.generate.per_type):
        scenes.append(_scene(params, placer, kind, index, unknown))
        bar.advance()
    return scenes


def _scene(params: Params, placer: Placer, kind: str, index: int, unknown: bool) -> Scene:
    """Its intensity, prompt and noise, and the normal of a mask that has none of its own, from streams named after it."""
    product = placer.product
    scene_id = f"{product}/{kind}/{index:05d}"
    rng = numpy_generator(params.seed, "generate", scene_id)
    intensity, template = float(rng.uniform(params.intensity.low, params.intensity.high)), int(rng.integers(1 << 30))
    names = (params.seed, "masks", product, kind, index)
    if unknown:
        placed, intensity = placer.random(names), 1.0
    elif params.masks.source == "folder":
        normals = sorted(placer.normals, key=lambda row: row.sample_id)
        placed = placer.place(kind, names, normals[int(rng.integers(len(normals)))])
    else:
        placed = placer.place(kind, names)
    real = params.generate.background == "real"
    picture, normal = (placed.picture, placed.normal) if real else (None, None)
    seed = derive_seed(params.seed, "noise", scene_id)
    return Scene(scene_id, product, (placed.anomaly(kind, intensity),), picture, normal, seed, template)


def redrawn_scene(params: Params, placer: Placer, normal: SampleRow) -> Scene:
    """A normal in which an exemplar's mask, moved, is drawn anew and nothing is asked for: no anomaly, but all the traces of drawing.

    Where ``masks.placement`` is ``in_place`` it is the exemplar's own picture without its anomaly that takes the normal's place, or a
    detector would only ever see those pieces with one.
    """
    seed = derive_seed(params.seed, "redraw", normal.sample_id)
    rng = numpy_generator(seed, "prompt")
    kind = placer.types[int(rng.integers(len(placer.types)))]
    placed = placer.from_exemplar(kind, (seed, "masks", placer.product, kind, 0), normal, moved=params.masks.placement != "in_place")
    return Scene(
        f"{normal.sample_id}-redrawn", placer.product, (placed.anomaly(kind, 1.0),), placed.picture, placed.normal,
        derive_seed(seed, "noise"), int(rng.integers(1 << 30)), named=False,
    )  # fmt: skip


def _tell(placer: Placer, kind: str) -> None:
    """A line where many of a type's masks found no place."""
    if told := placer.of_type(kind).lacking(REPORTED):
        print(f"masks {placer.product} {kind}: {told}", file=sys.stderr)


__all__ = ["ANYWHERE", "BY_CONTEXT", "IN_PLACE", "ON_PART", "RANDOM", "UNKNOWN", "Placed", "Placer", "make_scenes", "redrawn_scene"]
