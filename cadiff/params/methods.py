"""What a method is: one table, which the parameters, the stages, their checks and the report read.

What a method does stands in a registry beside its code: ``cadiff.generator.methods.GENERATORS`` and ``cadiff.masks.make.SCENES``,
``cadiff.synthesis.make.SYNTHESIZERS``, ``cadiff.detection.peers.PEERS``. They import torch, so a test holds them to this table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["generator", "synthesizer", "images", "union", "detector", "maps"]
# The stages that a method of each kind takes. Those that have a stage `quality` have images of their own; those that have `detect` train
# the common detector, and the others are detectors of their own. `images` and `maps` were made elsewhere, under names of their maker's.
KINDS: dict[Kind, tuple[str, ...]] = {
    "generator": ("scenes", "train", "generate", "showcase", "quality", "detect", "ship"),
    "synthesizer": ("synthesize", "quality", "detect", "ship"),
    "images": ("import", "quality", "detect", "ship"),
    "union": ("detect", "ship"),
    "detector": ("peer",),
    "maps": ("maps",),
}
# Where a file names the methods of a kind: `methods.generators`.
GROUPS: dict[str, Kind] = {"generators": "generator", "synthesizers": "synthesizer", "unions": "union", "detectors": "detector"}
Need = Literal["picture", "exemplar", "anomalib", "backbone"]
Learnt = Literal["tokens", "control"]


@dataclass(frozen=True)
class Method:
    """
    - ``title``: what the report calls it.
    - ``typed``: whether its images have the exemplars' types, so that a classifier trained on them tells these apart.
    - ``learns``: what is trained of a generator: prompt ``tokens``, a ``control`` network.
    - ``needs``: what must be there: a real ``picture`` to start from, an ``exemplar``'s pixels for each mask, the package ``anomalib``,
      a ``backbone``'s ImageNet weights.
    - ``parts``: of a union, the methods whose images its detector is trained on.
    - ``control``: whether it is what can be had of the real exemplars without a model that draws.
    - ``stand_in``: whether it differs from the paper's method of that name in its network or textures, so that none of its figures is
      set against a printed one.
    """

    name: str
    kind: Kind
    title: str
    typed: bool = True
    learns: tuple[Learnt, ...] = ()
    needs: tuple[Need, ...] = ()
    parts: tuple[str, ...] = ()
    control: bool = False
    stand_in: bool = False


OURS = "cadiff"  # the generator that the others are compared with
EXEMPLARS = "exemplars"  # the real exemplars, warped: no image of it was drawn, and none is a copy
ADDED = "both"  # generated images beside the exemplars, as whoever has some uses them
WITHOUT_DEFECTS = "patchcore"  # the detector that a trained one has to beat: it needs no anomaly at all
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(OURS, "generator", "CADiff images", learns=("tokens", "control")),
        Method("controlnet", "generator", "ControlNet alone", learns=("control",)),
        Method("perturbed", "generator", "Perturbed normals", typed=False, needs=("picture",)),
        Method("pasted", "generator", "exemplars pasted where CADiff draws", needs=("picture", "exemplar"), control=True),
        Method(EXEMPLARS, "synthesizer", "augmented exemplars alone", control=True),
        Method("cutpaste", "synthesizer", "CutPaste", typed=False),
        Method("nsa", "synthesizer", "NSA (patches blended by Poisson's equation)", typed=False),
        Method("perlin", "synthesizer", "Perlin noise (DRAEM's synthesis)", typed=False, stand_in=True),
        Method(ADDED, "union", "CADiff images and augmented exemplars", parts=(OURS, EXEMPLARS)),
        Method(WITHOUT_DEFECTS, "detector", "normal images alone (PatchCore)", stand_in=True),
        Method("draem", "detector", "normal images alone (DRAEM)", needs=("anomalib",), stand_in=True),
        Method("sspcab", "detector", "normal images alone (DRAEM with SSPCAB)", needs=("anomalib",), stand_in=True),
        Method("rd4ad", "detector", "normal images alone (RD4AD)", needs=("anomalib", "backbone")),
        Method("cfa", "detector", "normal images alone (CFA)", needs=("anomalib", "backbone")),
    )
}


def of_kind(kind: Kind) -> tuple[str, ...]:
    """The built-in methods of a kind, in the table's order."""
    return tuple(name for name, method in METHODS.items() if method.kind == kind)


def kinds_of(stage: str) -> tuple[Kind, ...]:
    """The kinds of methods that a stage is of; empty for one that is of the product, whatever the method."""
    return tuple(kind for kind, stages in KINDS.items() if stage in stages)


def parts_of(method: str) -> tuple[str, ...]:
    """The methods whose images a method's detector is trained on: its own, or a union's parts."""
    return (METHODS[method].parts if method in METHODS else ()) or (method,)


def those_that_need(need: Need, methods: Sequence[str]) -> list[str]:
    return [name for name in methods if name in METHODS and need in METHODS[name].needs]


def those_that_learn(what: Learnt, methods: Sequence[str]) -> list[str]:
    return [name for name in methods if name in METHODS and what in METHODS[name].learns]
