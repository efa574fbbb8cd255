"""The import rule itself is import-linter's (`make lint`); here that it is told of every package, and what starts light."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_has_a_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name.strip(" ()") for layer in contracts[0]["layers"] for name in layer.split("|")}
    folders = {path.name for path in (ROOT / "cadiff").iterdir() if (path / "__init__.py").exists()}
    modules = {path.stem for path in (ROOT / "cadiff").glob("[!_]*.py")}
    assert {f"cadiff.{name}" for name in folders | modules} <= layers


@pytest.mark.parametrize("module", ["flows.pipeline", "flows.artifacts", "cadiff.stages", "cadiff.cli"])
def test_planning_and_commands_start_without_torch(module: str) -> None:
    """It takes seconds to import; it comes where something is computed."""
    subprocess.run([sys.executable, "-c", f"import sys, {module}; assert 'torch' not in sys.modules"], check=True)
