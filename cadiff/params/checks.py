"""What must go together across sections; each check is a ValueError that names the key and what to set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cadiff.params.base import BaseParams, WindowParams
from cadiff.params.data import TABLES, DatasetParams
from cadiff.params.detecting import LEGACY, DetectorParams
from cadiff.params.drawing import FilterParams, GenerateParams, MaskParams
from cadiff.params.methods import those_that_need
from cadiff.params.training import check_passes

if TYPE_CHECKING:
    from cadiff.params.whole import Params


def check_together(dataset: DatasetParams, sections: Mapping[str, Any], methods: Sequence[str] = ()) -> None:
    """A ValueError unless sections fit each other, the data set and, where they are named, the pipeline's generators."""
    check_filter(sections["filter"], sections["detector"])
    if sections["adapt"].steps or sections["adapt"].vae_steps:
        try:
            check_passes(sections["adapt"].batch, sections["train"].accumulate)
        except ValueError as error:
            raise ValueError(f"train.{error}, for recipe.adapt.batch") from None
    check_in_place(sections["masks"], sections["generate"])
    check_generators(methods, sections["masks"], sections["generate"])
    check_sizes(dataset, sections["base"], sections["window"], sections["generate"])


def check_table(dataset: DatasetParams) -> None:
    """A ValueError where a layout's table is not the one that DVC is told to watch."""
    expected = TABLES.get(dataset.layout, ".")
    if dataset.table != expected:
        raise ValueError(
            f"dataset.table: expected {expected} with layout: {dataset.layout}, found {dataset.table}; DVC watches it beside each "
            f"product's folder, so set table: {expected}"
        )


def check_in_place(masks: MaskParams, generate: GenerateParams) -> None:
    """A ValueError where masks stay in a picture that is then not kept."""
    if masks.placement == "in_place" and generate.background != "real":
        raise ValueError(
            f"masks.placement: expected auto or anywhere with recipe.generate.background: {generate.background}, which keeps no picture, "
            "found in_place"
        )


def check_generators(methods: Sequence[str], masks: MaskParams, generate: GenerateParams) -> None:
    """A ValueError where a generator lacks what it starts from: a real picture, or an exemplar's pixels."""
    for method in those_that_need("picture", methods) if generate.background != "real" else ():
        raise ValueError(
            f"recipe.generate.background: expected real with the generator {method}, which starts from real pictures, found "
            f"{generate.background}; or leave {method} out of methods.generators"
        )
    for method in those_that_need("exemplar", methods) if masks.source != "exemplars" else ():
        raise ValueError(
            f"masks.source: expected exemplars with the generator {method}, whose pixels it takes, found {masks.source}; or leave "
            f"{method} out of methods.generators"
        )


def check_sizes(dataset: DatasetParams, base: BaseParams, window: WindowParams, generate: GenerateParams) -> None:
    """A ValueError where the base draws more than there is, or a window has nothing to be set into."""
    if isinstance(dataset.size, int) and dataset.size < base.size:
        raise ValueError(
            f"dataset.size: expected at least base.size ({base.size}), which is what the base draws, found {dataset.size}; "
            f"set dataset.size: {base.size} or more, or native"
        )
    if window.cut == "around" and generate.background != "real":
        raise ValueError(
            f"recipe.window.cut: expected whole with recipe.generate.background: {generate.background}, as there is no picture to set a "
            "window into, found around"
        )
    if window.cut == "around" and generate.blend is None:
        raise ValueError(
            "recipe.generate.blend: expected a number of px with recipe.window.cut: around, or each window would show its border, found "
            "null; set blend: 2, or cut: whole"
        )


def check_legacy(params: Params) -> None:
    """A ValueError where the published evaluation is asked for by name and is not what would be done."""
    for product in params.products:
        own = params.for_product(product)
        if own.detector.protocol != "legacy":
            continue
        if own.detector.published:
            raise ValueError(
                f"{product}: recipe.detector.published: expected false with protocol: legacy, the published evaluation itself, found true"
            )
        for section, values in LEGACY.items():
            for key, value in values.items():
                if (found := getattr(getattr(own, section), key)) != value:
                    where = f"recipe.{section}" if key in type(getattr(own, section)).RECIPE else section
                    raise ValueError(
                        f"{product}: {where}.{key}: expected {value} with recipe.detector.protocol: legacy, the published evaluation, "
                        f"found {found}; or set published: true beside protocol: strict"
                    )


def check_filter(settings: FilterParams, detector: DetectorParams) -> None:
    """A ValueError unless rules and ``protocol: filtered`` come together: a row's protocol must say that images were left out."""
    if settings.rules and detector.protocol != "filtered":
        rule = f"min_{next(iter(settings.rules))}"
        raise ValueError(
            f"recipe.filter.{rule}: the {detector.protocol} protocol leaves no image out; set recipe.detector.protocol: filtered, or "
            f"{rule}: null"
        )
    if detector.protocol == "filtered" and not settings.rules:
        raise ValueError(
            f"recipe.detector.protocol: filtered needs a rule; expected a number for one of {', '.join(FilterParams.model_fields)} "
            "under recipe.filter, found null for all"
        )
