"""The resolved parameters as lines, each with where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

from cadiff.params.keys import ALL, OVERRIDING, file_form
from cadiff.params.loading import Layer, load_params, read_layers
from cadiff.params.reading import inline
from cadiff.params.whole import Params

SCHEMA, COLUMN, WIDTH = "default", 44, 110


class Shown(NamedTuple):
    """A key as a file has it, its value, and where that comes from: ``default``, a file, or a product."""

    key: str
    value: Any
    origin: str


def resolved(path: Path, product: str | None = None) -> list[Shown]:
    """All parameters of a file, or a product's own.

    Raises:
        UsageError: if the file does not load, or has no such product.
    """
    params, layers = load_params(path), read_layers(path)
    own = params.products.get(product, {}) if product is not None else {}
    values = file_form(params if product is None else params.for_product(product))
    for group in OVERRIDING:
        values.pop(group) if product is not None or not values[group] else None

    def origin(key: str) -> str:
        section, _, name = key.removeprefix("recipe.").partition(".")
        if name in own.get(section, {}):
            return f"product {product}"
        return origin_of(layers, key.removeprefix("recipe."))

    return [Shown(key, value, origin(key)) for key, value in flat(values)]


def origin_of(layers: list[Layer], key: str) -> str:
    """The last file that states a key, by its name; ``default`` if none does."""
    return next((layer.path.as_posix() for layer in reversed(layers) if layer.states(key)), SCHEMA)


def flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; products and variants are one value each."""
    for key, value in values.items():
        if isinstance(value, dict) and key not in OVERRIDING:
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def changed(params: Params) -> list[tuple[str, Any]]:
    """The keys, as a file has them, whose values are not the schema's defaults; products are always among them."""
    defaults = dict(flat(file_form(Params(products={name: {} for name in params.products}))))
    return [(key, value) for key, value in flat(file_form(params)) if key == "products" or defaults[key] != value]


def meaning(key: str) -> str:
    """What the schema says of a key, as a file has it."""
    section, _, name = key.removeprefix("recipe.").partition(".")
    return (ALL[section].model_fields[name] if name else Params.model_fields[section]).description or ""


def as_lines(shown: list[Shown], explain: bool = False) -> list[str]:
    """YAML that a file may hold, with where each value comes from behind it, and what it means above it."""
    lines: list[str] = []
    open_: list[str] = []
    for key, value, origin in shown:
        *sections, name = key.split(".")
        common = next((k for k, (a, b) in enumerate(zip(sections, open_, strict=False)) if a != b), min(len(sections), len(open_)))
        lines += [f"{'  ' * level}{section}:" for level, section in enumerate(sections[common:], start=common)]
        open_ = sections
        indent = "  " * len(sections)
        lines += [f"{indent}# {line}" for line in wrap(meaning(key), WIDTH - len(indent))] if explain else []
        lines.append(f"{f'{indent}{name}: {inline(value)}':{COLUMN}} # {origin}")
    return lines
