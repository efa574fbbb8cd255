"""All parameters together, a product's own and a variant's."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from cadiff import names
from cadiff.errors import UsageError
from cadiff.params.base import AdaptParams, BaseParams, WindowParams
from cadiff.params.checks import check_table, check_together
from cadiff.params.data import DatasetParams, DrawParams
from cadiff.params.detecting import ClassifierParams, DetectorParams, MetricParams, PeerParams
from cadiff.params.drawing import FilterParams, GenerateParams, IntensityParams, MaskParams, PerturbedParams
from cadiff.params.groups import DEFAULT, ExternalParams, ShipParams, flattened
from cadiff.params.methods import KINDS, METHODS, Kind
from cadiff.params.section import Section, first_problem
from cadiff.params.training import ControlParams, PromptParams, TrainParams
from cadiff.storage import digest

SECTIONS: dict[str, type[Section]] = {  # those that a product may override
    "base": BaseParams, "window": WindowParams,
    "adapt": AdaptParams, "prompt": PromptParams, "control": ControlParams, "train": TrainParams,
    "masks": MaskParams, "intensity": IntensityParams, "generate": GenerateParams, "perturbed": PerturbedParams, "filter": FilterParams,
    "detector": DetectorParams, "classifier": ClassifierParams, "peers": PeerParams, "metrics": MetricParams,
}  # fmt: skip
Overrides = dict[str, dict[str, Any]]


class Params(Section):
    """All of ``params.yaml``; its defaults are one configuration, a data set of one's own on the embedded base.

    ``products`` maps each product to its own overrides of any of ``SECTIONS``, ``variants`` names to overrides too: the ablations
    (``benchmarks/ablations.py``). The pipeline runs none.

    ``cluster`` says where the parts of generation and the detectors of each seed are computed, not what comes out: it is
    left out of every dump and digest, so that changing it makes no result out of date.
    """

    seed: int = Field(0, description="of all that is drawn at random")
    dataset: DatasetParams = DatasetParams()
    draw: DrawParams = DrawParams()
    products: dict[str, Overrides] = Field(min_length=1, description="each with its own settings, if any: nut: {train: {steps: 500}}")
    variants: dict[str, Overrides] = Field({}, description="rows of the ablations, each with what it changes")
    methods: list[str] = Field(DEFAULT, min_length=1, description="a detector is trained and scored for each")
    external: ExternalParams = ExternalParams()
    ship: ShipParams = ShipParams()
    base: BaseParams = BaseParams()
    window: WindowParams = WindowParams()
    adapt: AdaptParams = AdaptParams()
    prompt: PromptParams = PromptParams()
    control: ControlParams = ControlParams()
    train: TrainParams = TrainParams()
    masks: MaskParams = MaskParams()
    intensity: IntensityParams = IntensityParams()
    generate: GenerateParams = GenerateParams()
    perturbed: PerturbedParams = PerturbedParams()
    filter: FilterParams = FilterParams()
    detector: DetectorParams = DetectorParams()
    classifier: ClassifierParams = ClassifierParams()
    peers: PeerParams = PeerParams()
    metrics: MetricParams = MetricParams()
    cluster: str | None = Field(
        None,
        exclude=True,
        description="null: this process; local:N: N Dask workers here; tcp://...: the scheduler of a running Dask cluster",
    )

    @field_validator("cluster")
    @classmethod
    def _cluster_is_known(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"local:[1-9]\d*|(tcp|tls)://\S+", value):
            raise ValueError(f"expected null, local:N (N workers on this machine) or tcp://HOST:PORT, found {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _flatten_methods(cls, values: Any) -> Any:
        return {**values, "methods": flattened(values)}

    @model_validator(mode="after")
    def _methods_are_known(self) -> Params:
        for name in self.methods:
            self.kind_of(name)
        trained = self.taking("detect")
        for name in self.ship.methods:
            if name not in trained:
                raise ValueError(f"ship.methods: expected methods that a detector is trained for ({', '.join(trained)}), found {name!r}")
        return self

    def kind_of(self, method: str) -> Kind:
        """Which group a method is of, and so which stages it has and which artefacts.

        Raises:
            ValueError: if there is no such method.
        """
        if method in METHODS:
            return METHODS[method].kind
        if method in self.external.images:
            return "images"
        if method in self.external.maps:
            return "maps"
        raise ValueError(f"methods: {method!r} is not known; expected one of {', '.join(METHODS)}, or one under external")

    def taking(self, stage: str) -> list[str]:
        """The methods that a stage is of, in their order."""
        return [name for name in self.methods if stage in KINDS[self.kind_of(name)]]

    @field_validator("products", mode="before")
    @classmethod
    def _products_are_named(cls, values: Any) -> Any:
        for name, own in values.items() if isinstance(values, dict) else ():
            if not isinstance(name, str):
                raise ValueError(f"expected names, found {name!r}, which YAML reads as {type(name).__name__}; put it in quotes")
            names.check_product(name)
            if own is None:
                raise ValueError(f"{name}: expected its own settings, found nothing; write `{name}: {{}}` if it has none")
        return values

    @model_validator(mode="after")
    def _sections_go_together(self) -> Params:
        if self.draw.products and self.dataset.layout != "demo":
            raise ValueError(
                f"draw.products: expected [] with dataset.layout: {self.dataset.layout}, whose images are on disk, "
                f"found {self.draw.products}"
            )
        check_table(self.dataset)
        names.check_products(list(self.products), self.methods)
        check_together(self.dataset, {name: getattr(self, name) for name in SECTIONS}, self.methods)
        return self

    @model_validator(mode="after")
    def _overrides_fit(self) -> Params:
        """Each by itself, and every variant over every product: two that are valid alone may not go together."""
        for product, own in self.products.items():
            self._check_overrides(f"products.{product}", own, self.methods)  # the pipeline's generators; a variant is CADiff's
        for variant, changes in self.variants.items():
            self._check_overrides(f"variants.{variant}", changes)
            for product, own in self.products.items():
                self._check_overrides(f"variants.{variant} over products.{product}", layered(own, changes))
        return self

    def _check_overrides(self, name: str, overrides: Overrides, methods: list[str] | None = None) -> None:
        """A ValueError unless these overrides of sections fit the parameters."""
        sections = {section: getattr(self, section) for section in SECTIONS}
        for section, values in overrides.items():
            if section not in SECTIONS:
                raise ValueError(f"{name}.{section}: not a section; one of {', '.join(SECTIONS)}")
            try:
                sections[section] = SECTIONS[section](**{**sections[section].model_dump(), **values})
            except ValidationError as error:
                raise ValueError(f"{name}.{section}: {first_problem(error)}") from None
        try:
            check_together(self.dataset, sections, methods or ())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def for_product(self, product: str) -> Params:
        """These parameters with the product's own overrides applied, and no other product in them.

        Raises:
            UsageError: if the product is not under ``products``.
        """
        if product not in self.products:
            raise UsageError(f"products.{product}: not in the parameters; products are {', '.join(self.products)}")
        values = self.model_dump()
        for section, overrides in self.products[product].items():
            values[section] = {**values[section], **overrides}
        return Params(**{**values, "products": {product: {}}, "cluster": self.cluster})

    def for_variant(self, name: str) -> Params:
        """These parameters with a variant's overrides applied, over a product's own too, and no variant in them.

        Raises:
            UsageError: if the variant is not under ``variants``.
        """
        if name not in self.variants:
            raise UsageError(f"variants.{name}: not in the parameters; variants are {', '.join(self.variants) or 'none'}")
        values, overrides = self.model_dump(), self.variants[name]
        values |= layered({section: values[section] for section in overrides}, overrides)
        products = {product: layered(own, overrides) for product, own in self.products.items()}
        # the other variants need not fit on top of this one
        return Params(**{**values, "products": products, "variants": {}, "cluster": self.cluster})

    def with_variants(self, variants: dict[str, Overrides]) -> Params:
        """These parameters with other variants in place of their own.

        Raises:
            UsageError: if a variant does not fit the parameters or a product's own.
        """
        try:
            return Params(**{**self.model_dump(), "variants": variants, "cluster": self.cluster})
        except ValidationError as error:
            raise UsageError(first_problem(error)) from None

    def digest_of(self, *sections: str) -> str:
        """16 hex digits that change when one of these top-level keys does."""
        values = self.model_dump(mode="json")
        return digest({name: values[name] for name in sections})


def layered(below: Overrides, above: Overrides) -> Overrides:
    """Overrides of sections, key by key: ``above`` goes over ``below``."""
    return {section: {**below.get(section, {}), **above.get(section, {})} for section in {**below, **above}}


# All top-level keys that a result of the pipeline depends on.
RESULT_KEYS = tuple(name for name, field in Params.model_fields.items() if not field.exclude and name != "variants")
