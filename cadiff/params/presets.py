"""A preset as the parameters."""

from __future__ import annotations

from pathlib import Path

from cadiff.errors import UsageError
from cadiff.params.loading import FOLDER
from cadiff.storage import write_bytes


def use_preset(root: Path, name: str, force: bool = False) -> str:
    """Makes ``presets/<name>.yaml`` the parameters; returns a line that says so.

    Raises:
        UsageError: if there is no such preset, or params.yaml holds what no preset holds and would be lost, unless that is forced.
    """
    presets = {path.stem: path for path in sorted((root / FOLDER).glob("*.yaml"))}
    if name not in presets:
        raise UsageError(f"preset {name}: not in {root / FOLDER}; there are {', '.join(presets) or 'none'}")
    target, wanted = root / "params.yaml", presets[name].read_bytes()
    before = target.read_bytes() if target.is_file() else None
    if before == wanted:
        return f"params.yaml is presets/{name}.yaml already"
    if before is not None and not force and before not in {path.read_bytes() for path in presets.values()}:
        raise UsageError(
            f"{target}: differs from every file of presets/, so the preset {name} would lose it. Save it as a preset of its own "
            "(cp params.yaml presets/NAME.yaml) and name that one, or write over it with `cadiff preset NAME --force`."
        )
    write_bytes(target, wanted)
    return f"params.yaml is now presets/{name}.yaml"
