"""A file of parameters and those that it extends, one over the other: ``load_params``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cadiff.errors import UsageError
from cadiff.params.checks import check_legacy
from cadiff.params.groups import MethodGroups
from cadiff.params.keys import OVERRIDING, as_in_file, check_keys, file_form, lifted
from cadiff.params.reading import inline, read_file
from cadiff.params.section import first_problem
from cadiff.params.whole import Params

EXTENDS, FOLDER = "extends", "presets"
# What the graph is made of: DVC fills dvc.yaml's templates from params.yaml itself, and knows neither presets nor defaults.
GRAPH = (
    "products", "draw.products", "dataset.root", "dataset.table", "methods.generators", "methods.synthesizers", "methods.unions",
    "methods.detectors", "external.images", "external.maps", "ship.methods",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A file and what it states, its recipe's keys in their sections."""

    path: Path
    values: dict[str, Any]

    def states(self, key: str) -> bool:
        """Whether the file states a dotted key, or something above it that is no section."""
        value: Any = self.values
        for part in key.split("."):
            if not isinstance(value, dict):
                return True
            if part not in value:
                return False
            value = value[part]
        return True


def load_params(path: str | Path = "params.yaml") -> Params:
    """The parameters in a YAML file and those that it extends, over the schema's defaults.

    Raises:
        UsageError: names the file, the key, what was expected and what came.
    """
    layers = read_layers(Path(path))
    try:
        params = Params(**merged(layers))
    except ValidationError as error:
        problem = first_problem(error)
        raise UsageError(f"{_of(layers, problem)}: {as_in_file(problem)}") from None
    try:
        check_legacy(params)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    _check_graph(layers[-1], params)
    return params


def read_layers(path: Path) -> list[Layer]:
    """A file after all those that it extends.

    Raises:
        UsageError: if a file does not read, holds a key that is unknown or gone, or extends what is not there or itself.
    """
    layers: list[Layer] = []
    above: list[Path] = []
    while True:
        values = read_file(path)
        extends = values.pop(EXTENDS, None)
        _check_methods(path, values)
        try:
            check_keys(values)
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from None
        layers.insert(0, Layer(path, lifted(values)))
        if extends is None:
            return layers
        above.append(path.resolve())
        path = _extended(path, extends)
        if path.resolve() in above:
            raise UsageError(f"{layers[0].path}: {EXTENDS}: {extends} extends it in turn; a chain of files must end at one without extends")


def _extended(path: Path, extends: Any) -> Path:
    """The file that another names: a preset by its name, or a path beside it."""
    if not isinstance(extends, str) or not extends:
        raise UsageError(f"{path}: {EXTENDS}: expected a preset's name or a path, found {extends!r}")
    by_path = "/" in extends or extends.endswith((".yaml", ".yml"))
    folders = [path.parent / FOLDER, path.parent]
    found = [path.parent / extends] if by_path else [folder / f"{extends}.yaml" for folder in folders]
    there = next((file for file in found if file.is_file()), None)
    if there is None:
        presets = sorted({file.stem for folder in folders[: 1 if folders[0].is_dir() else 2] for file in folder.glob("*.yaml")})
        said = f"presets are {', '.join(presets)}" if presets else f"there are no presets in {folders[0]}"
        raise UsageError(f"{path}: {EXTENDS}: {extends}: no such file; {said}")
    if _is_the_graphs(path) and there.resolve().parent != folders[0].resolve():
        raise UsageError(f"{path}: {EXTENDS}: {extends}: DVC watches {folders[0]} alone; move the file there, and extend it by its name")
    return there


def merged(layers: list[Layer]) -> dict[str, Any]:
    """The layers' values, section by section and key by key; products and variants are the last file's that has any."""
    values: dict[str, Any] = {}
    for layer in layers:
        values = _over(values, layer.values)
    return values


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _over(below[key], value)
        for key, value in above.items()
        if key not in OVERRIDING and isinstance(value, dict) and isinstance(below.get(key), dict)
    }
    return {**below, **above, **both}


def _check_methods(path: Path, values: dict[str, Any]) -> None:
    if not isinstance(values.get("methods", {}), dict):
        raise UsageError(
            f"{path}: methods: expected the lists {', '.join(MethodGroups.model_fields)} (each may be empty, "
            f"as in presets/demo.yaml), found {values['methods']!r}"
        )


def _is_the_graphs(path: Path) -> bool:
    """Whether DVC reads this file."""
    return path.name == "params.yaml" and (path.parent / "dvc.yaml").is_file()


def _check_graph(layer: Layer, params: Params) -> None:
    absent = [key for key in GRAPH if not layer.states(key)] if _is_the_graphs(layer.path) else []
    if absent:
        values = file_form(params)
        resolved = {key: values[key] if "." not in key else values[key.split(".")[0]][key.split(".")[1]] for key in absent}
        said = ", ".join(f"{key}: {inline(value)}" for key, value in resolved.items())
        raise UsageError(f"{layer.path}: expected all that dvc.yaml is filled from in this file itself; it lacks {said}")


def _of(layers: list[Layer], problem: str) -> Path:
    """The file that states the key which a problem begins with; the last, if none does."""
    named = re.match(r"[\w.-]+", problem.replace(": ", ".", 1) if re.match(r"\w+: \w+:", problem) else problem)
    key = named[0].rstrip(".") if named else ""
    return next((layer.path for layer in reversed(layers) if key and layer.states(key)), layers[-1].path)
