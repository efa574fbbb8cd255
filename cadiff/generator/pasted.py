"""Copy and paste: CADiff's own scenes with the exemplars set in as they are, and nothing drawn.

The control for what diffusion adds: under one seed every scene has the same picture, mask, movement, light and w as ``cadiff``'s.
There is no base, no learned token and no noise; w = 1 is the exemplar itself (``setting.paste_exemplars``).
"""

from __future__ import annotations

from pathlib import Path

from cadiff.errors import UsageError
from cadiff.generator.model import Paster
from cadiff.params import Params, check_generators
from cadiff.storage import read_json, sha256_folder, write_json
from cadiff.task import Task


def settings(params: Params) -> Params:
    """As they are.

    Raises:
        UsageError: where nothing can be pasted, for want of a picture or of an exemplar.
    """
    try:
        check_generators(["pasted"], params.masks, params.generate)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return params


def train(task: Task, adapted: Path, out: Path, work: Path) -> None:
    """Nothing is learned; the record says so."""
    write_json(out / "generator.json", {"product": task.product, "steps": 0})


def load(params: Params, product: str, adapted: Path, folder: Path) -> Paster:
    """
    Raises:
        CADiffError: if the record is not there.
    """
    read_json(folder / "generator.json")
    return Paster(sha256_folder(folder)[:16])
