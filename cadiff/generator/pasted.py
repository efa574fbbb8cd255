"""Copy and paste: CADiff's own scenes with the exemplars set in as they are, and nothing drawn.

The control for what diffusion adds: under one seed every scene has the same picture, mask, movement, light and w as ``cadiff``'s.
There is no base, no learned token and no noise; w = 1 is the exemplar itself (``setting.paste_exemplars``).
"""

from __future__ import annotations

from pathlib import Path

from cadiff.errors import UsageError
from cadiff.generator.model import Paster
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.storage import read_json, sha256_folder, write_json


def settings(params: Params) -> Params:
    """As they are.

    Raises:
        UsageError: where nothing can be pasted, for want of a picture or of an exemplar.
    """
    if params.generate.background != "real":
        found = f"found {params.generate.background}; or leave pasted out of methods.generators"
        key = "recipe.generate.background"
        raise UsageError(f"{key}: expected real with the generator pasted, which sets exemplars into real pictures, {found}")
    if params.masks.source != "exemplars":
        found = f"found {params.masks.source}; or leave pasted out of methods.generators"
        raise UsageError(f"masks.source: expected exemplars with the generator pasted, whose pixels it takes, {found}")
    return params


def train(params: Params, product: str, samples: list[SampleRow], adapted: Path, out: Path, work: Path) -> None:
    """Nothing is learned; the record says so."""
    write_json(out / "generator.json", {"product": product, "steps": 0})


def load(params: Params, product: str, adapted: Path, folder: Path) -> Paster:
    """
    Raises:
        CADiffError: if the record is not there.
    """
    read_json(folder / "generator.json")
    return Paster(sha256_folder(folder)[:16])
