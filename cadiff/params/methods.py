"""Which methods there are, and how the parameters list those that are compared."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from cadiff.params.section import Section, checked

ExportFormat = Literal["mvtec", "coco", "yolo", "voc", "huggingface"]  # of `cadiff export`: known before what writes them is loaded
Generator = Literal["cadiff", "controlnet", "perturbed", "pasted"]
Synthesizer = Literal["exemplars", "cutpaste", "nsa", "perlin"]
Union = Literal["both"]
Detector = Literal["patchcore", "draem", "sspcab", "rd4ad", "cfa"]
Kind = Literal["generator", "synthesizer", "union", "images", "detector", "maps"]
BUILT_IN: dict[str, Kind] = {
    **dict.fromkeys(get_args(Generator), "generator"), **dict.fromkeys(get_args(Synthesizer), "synthesizer"),
    **dict.fromkeys(get_args(Union), "union"), **dict.fromkeys(get_args(Detector), "detector"),
}  # fmt: skip
METHOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")  # part of stage names, in which "-" separates
DEFAULT = ["cadiff", "exemplars", "both", "patchcore"]
EXTERNAL_IMAGES, EXTERNAL_MAPS = "data/external/images", "data/external/maps"  # dvc.yaml names them


class MethodGroups(Section):
    """How ``params.yaml`` lists the methods: by the stages they need, so that dvc.yaml names exact inputs. A detector is trained and
    scored for each. Methods whose results come from elsewhere are named under ``external``.
    """

    generators: list[Generator] = Field(["cadiff"], description="trained, then sampled: cadiff, controlnet, perturbed, pasted")
    synthesizers: list[Synthesizer] = Field(
        ["exemplars"], description="drawn from the real images alone: exemplars, cutpaste, nsa, perlin"
    )
    unions: list[Union] = Field(["both"], description="a detector on others' shards; both: cadiff's and the exemplars' together")
    detectors: list[Detector] = Field(
        ["patchcore"], description="learn from normal images alone: patchcore, draem, sspcab, rd4ad, cfa"
    )

    @model_validator(mode="after")
    def _unions_have_parts(self) -> MethodGroups:
        if self.unions and not ("cadiff" in self.generators and "exemplars" in self.synthesizers):
            raise ValueError("unions: both needs cadiff under generators and exemplars under synthesizers")
        return self


class ShipParams(Section):
    """What leaves the house, one folder a product."""

    methods: list[str] = Field(["both"], description="whose detector is made ready to be taken away (cadiff ship)")


class ExternalParams(Section):
    """Results that were made elsewhere, scored beside: each method's in ``data/external/images/<method>/<product>``, or in
    ``data/external/maps/<method>/<product>``."""

    images: list[str] = Field([], description="generators, by name: <type>/*.png with *_mask.png, or MVTec AD's layout")
    maps: list[str] = Field([], description="detectors, by name: anomaly maps, test/<type>/<name>.npy, .tiff or .png")


def flattened(values: dict[str, Any]) -> list[str]:
    """``methods``: those of all groups, then the external ones.

    Raises:
        ValueError: if a name is unknown, given twice, or cannot name a method.
    """
    methods = values.get("methods", DEFAULT)
    if isinstance(methods, dict):
        groups = checked(MethodGroups, "methods", methods)
        methods = [*groups.generators, *groups.synthesizers, *groups.unions, *groups.detectors]
    external = checked(ExternalParams, "external", values.get("external", {}))
    names = [*external.images, *external.maps]
    for name in names:
        if name in BUILT_IN or names.count(name) > 1 or not METHOD_NAME.fullmatch(name):
            raise ValueError(
                f"external: {name!r} cannot name a method; expected letters, digits, _ and . only, each name once, "
                f"and none of {', '.join(BUILT_IN)}"
            )
    return [*methods, *(name for name in names if name not in methods)]
