"""The keys of a file, as they stand in it: which there are, which have gone, and which stand under ``recipe``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cadiff.params.data import DatasetParams, DrawParams
from cadiff.params.groups import EXTERNAL_IMAGES, EXTERNAL_MAPS, ExternalParams, MethodGroups, ShipParams
from cadiff.params.methods import GROUPS
from cadiff.params.section import Section
from cadiff.params.whole import SECTIONS, Params

RECIPE = "recipe"
OVERRIDING = ("products", "variants")  # by name, sections that lie over all others'; a file's are its own, and no other's
ALL: dict[str, type[Section]] = {
    "dataset": DatasetParams, "draw": DrawParams, "methods": MethodGroups, "external": ExternalParams, "ship": ShipParams, **SECTIONS,
}  # fmt: skip
DIGEST = "it stands behind the file's path now"
GONE = {  # keys of earlier files, and what holds in their place
    "adapt.accumulate": "set train.accumulate, which holds for both",
    "adapt.checkpointing": "set train.checkpointing, which holds for both",
    "train.checkpoint_seconds": "gone: checkpoints come every half minute, or so rarely that writing takes 3 % of the time",
    "detector.checkpoint_seconds": "gone, as train.checkpoint_seconds",
    "peers.checkpoint_seconds": "gone, as train.checkpoint_seconds",
    "masks.folder": "gone: masks that someone drew lie in data/masks/<product>/<anomaly_type>/*.png",
    "masks.min_area": "gone: the smallest accepted share of an image is 0.0005",
    "intensity.resolution": "gone: focus is read at a quarter of the latents' side, 16x16 for Stable Diffusion 1.5",
    "generate.part": "set generate.batch: what is drawn together is kept together",
    "classifier.weights_sha256": f"{DIGEST}: recipe.classifier.weights: PATH@SHA256",
    "peers.weights_sha256": f"{DIGEST}: peers.weights: PATH@SHA256",
    "metrics.inception_sha256": f"{DIGEST}: metrics.inception: PATH@SHA256",
    "metrics.lpips_sha256": f"{DIGEST}: metrics.lpips: PATH@SHA256",
    "external.images.root": f"gone: they lie in {EXTERNAL_IMAGES}/<method>/<product>",
    "external.images.methods": "write external.images: [METHOD, ...]",
    "external.maps.root": f"gone: they lie in {EXTERNAL_MAPS}/<method>/<product>",
    "external.maps.methods": "write external.maps: [METHOD, ...]",
}


def parts(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A file's own sections, then those of each product and variant, with what stands before their keys."""
    yield "", values
    for group in OVERRIDING:
        named = values.get(group)
        for name, own in named.items() if isinstance(named, dict) else ():
            if isinstance(own, dict):
                yield f"{group}.{name}.", own


def check_keys(values: dict[str, Any]) -> None:
    """A ValueError names the first key of a file that is unknown, gone, or in the wrong place, and what to do."""
    for key in values:
        if key not in Params.model_fields and key != RECIPE:
            raise ValueError(f"{key}: unknown key; remove it or correct its spelling")
    for before, own in parts(values):
        for section, keys in own.items():
            if section == RECIPE:
                _check_recipe(before, keys)
            elif section in ALL and isinstance(keys, dict) and not (before and section not in SECTIONS):
                _check_section(before, section, keys, in_recipe=False)


def _check_recipe(before: str, recipe: Any) -> None:
    if not isinstance(recipe, dict):
        raise ValueError(f"{before}{RECIPE}: expected sections with their keys, found {recipe!r}")
    for section, keys in recipe.items():
        if section not in SECTIONS or not SECTIONS[section].RECIPE:
            sections = ", ".join(name for name, model in SECTIONS.items() if model.RECIPE)
            raise ValueError(f"{before}{RECIPE}.{section}: not a section of the recipe; one of {sections}")
        if not isinstance(keys, dict):
            raise ValueError(f"{before}{RECIPE}.{section}: expected keys with values, found {keys!r}")
        _check_section(before, section, keys, in_recipe=True)


def _check_section(before: str, section: str, keys: dict[str, Any], in_recipe: bool) -> None:
    for key, value in keys.items():
        where = f"{before}{RECIPE}.{section}.{key}" if in_recipe else f"{before}{section}.{key}"
        for gone in (f"{section}.{key}", *(f"{section}.{key}.{below}" for below in (value if isinstance(value, dict) else ()))):
            if gone in GONE:
                raise ValueError(f"{before}{gone}: {GONE[gone]}")
        if key not in ALL[section].model_fields:
            raise ValueError(f"{where}: unknown key; remove it or correct its spelling")
        if in_recipe != (key in ALL[section].RECIPE):
            meant = f"{before}{section}.{key}" if in_recipe else f"{before}{RECIPE}.{section}.{key}"
            raise ValueError(f"{where}: stands elsewhere; write {meant}")


def lifted(values: dict[str, Any]) -> dict[str, Any]:
    """A file's values with each recipe's keys in their sections, as ``Params`` has them."""
    own = {key: value for key, value in values.items() if key != RECIPE}
    for section, keys in values.get(RECIPE, {}).items():
        own[section] = {**(own.get(section) or {}), **keys}
    for group in OVERRIDING:
        if isinstance(own.get(group), dict):
            own[group] = {name: lifted(below) if isinstance(below, dict) else below for name, below in own[group].items()}
    return own


def lowered(values: dict[str, Any]) -> dict[str, Any]:
    """The other way round: sections as a file has them."""
    own: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    for section, keys in values.items():
        if section not in SECTIONS or not isinstance(keys, dict):
            own[section] = keys
            continue
        aside = {key: value for key, value in keys.items() if key in SECTIONS[section].RECIPE}
        recipe |= {section: aside} if aside else {}
        own |= {section: rest} if (rest := {key: value for key, value in keys.items() if key not in aside}) else {}
    return own | ({RECIPE: recipe} if recipe else {})


def as_in_file(problem: str) -> str:
    """A problem of ``Params`` with the key where a file has it."""
    found = re.match(r"(?P<before>(?:(?:products|variants)\.[^.:]+\.)?)(?P<section>\w+)(?P<between>\.|: )(?P<key>\w+)\b", problem)
    if found and found["section"] in SECTIONS and found["key"] in SECTIONS[found["section"]].RECIPE:
        return f"{found['before']}{RECIPE}.{problem.removeprefix(found['before'])}"
    return problem


def file_form(params: Params) -> dict[str, Any]:
    """All of the parameters as a file states them."""
    values = params.model_dump(mode="json")
    groups = {group: [name for name in params.methods if params.kind_of(name) == kind] for group, kind in GROUPS.items()}
    named = {group: {name: lowered(own) for name, own in values[group].items()} for group in OVERRIDING}
    return lowered({"seed": params.seed, "cluster": params.cluster, **values, **named, "methods": groups})
