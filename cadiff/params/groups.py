"""How the parameters list the methods that are compared, and those whose results come from elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from cadiff.params.methods import ADDED, EXEMPLARS, GROUPS, METHODS, OURS, WITHOUT_DEFECTS, Kind, of_kind
from cadiff.params.section import Section, checked

ExportFormat = Literal["mvtec", "coco", "yolo", "voc", "huggingface"]  # of `cadiff export`: known before what writes them is loaded
if TYPE_CHECKING:  # a type checker takes no names from a table; pydantic does, and refuses all others
    Generator: TypeAlias = str
    Synthesizer: TypeAlias = str
    Union: TypeAlias = str
    Detector: TypeAlias = str
else:
    Generator, Synthesizer, Union, Detector = (Literal[of_kind(kind)] for kind in GROUPS.values())
METHOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")  # part of stage names, in which "-" separates
EXTERNAL_IMAGES, EXTERNAL_MAPS = "data/external/images", "data/external/maps"  # dvc.yaml names them


def _listed(kind: Kind) -> str:
    return ", ".join(of_kind(kind))


class MethodGroups(Section):
    """How ``params.yaml`` lists the methods: by the stages they need, so that dvc.yaml names exact inputs. A detector is trained and
    scored for each. Methods whose results come from elsewhere are named under ``external``.
    """

    generators: list[Generator] = Field([OURS], description=f"trained, then sampled: {_listed('generator')}")
    synthesizers: list[Synthesizer] = Field([EXEMPLARS], description=f"drawn from the real images alone: {_listed('synthesizer')}")
    unions: list[Union] = Field([ADDED], description="a detector on others' shards; both: cadiff's and the exemplars' together")
    detectors: list[Detector] = Field([WITHOUT_DEFECTS], description=f"learn from normal images alone: {_listed('detector')}")

    @property
    def names(self) -> list[str]:
        """Those of all groups."""
        return [*self.generators, *self.synthesizers, *self.unions, *self.detectors]

    @model_validator(mode="after")
    def _unions_have_parts(self) -> MethodGroups:
        for union in self.unions:
            parts = METHODS[union].parts
            if not set(parts) <= set(self.names):
                group_of = {kind: group for group, kind in GROUPS.items()}
                said = " and ".join(f"{part} under {group_of[METHODS[part].kind]}" for part in parts)
                raise ValueError(f"unions: {union} needs {said}")
        return self


class ShipParams(Section):
    """What leaves the house, one folder a product."""

    methods: list[str] = Field([ADDED], description="whose detector is made ready to be taken away (cadiff ship)")


class ExternalParams(Section):
    """Results that were made elsewhere, scored beside: each method's in ``data/external/images/<method>/<product>``, or in
    ``data/external/maps/<method>/<product>``."""

    images: list[str] = Field([], description="generators, by name: <type>/*.png with *_mask.png, or MVTec AD's layout")
    maps: list[str] = Field([], description="detectors, by name: anomaly maps, test/<type>/<name>.npy, .tiff or .png")


DEFAULT = MethodGroups().names


def flattened(values: dict[str, Any]) -> list[str]:
    """``methods``: those of all groups, then the external ones.

    Raises:
        ValueError: if a name is unknown, given twice, or cannot name a method.
    """
    methods = values.get("methods", DEFAULT)
    if isinstance(methods, dict):
        methods = checked(MethodGroups, "methods", methods).names
    external = checked(ExternalParams, "external", values.get("external", {}))
    names = [*external.images, *external.maps]
    for name in names:
        if name in METHODS or names.count(name) > 1 or not METHOD_NAME.fullmatch(name):
            raise ValueError(
                f"external: {name!r} cannot name a method; expected letters, digits, _ and . only, each name once, "
                f"and none of {', '.join(METHODS)}"
            )
    return [*methods, *(name for name in names if name not in methods)]
