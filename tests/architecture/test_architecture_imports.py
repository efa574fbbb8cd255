"""The import rule itself is import-linter's (`make lint`); here only that it is told of every package."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_has_a_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name.strip(" ()") for layer in contracts[0]["layers"] for name in layer.split("|")}
    folders = {path.name for path in (ROOT / "cadiff").iterdir() if (path / "__init__.py").exists()}
    modules = {path.stem for path in (ROOT / "cadiff").glob("[!_]*.py")}
    assert {f"cadiff.{name}" for name in folders | modules} <= layers
