"""A plain ControlNet: types by their own words, masks, no learned token, no interaction, no re-weighting (as CAGen does)."""

from __future__ import annotations

from pathlib import Path

from cadiff.generator import train as joint
from cadiff.generator.model import Generator
from cadiff.params import Params
from cadiff.task import Task


def settings(params: Params) -> Params:
    """CADiff's with what it adds to a ControlNet left out. No word is re-weighted, so w acts where an exemplar is started from alone."""
    changes = {
        "prompt": {"tokens": "plain", "localizing": False, "contrastive": False},
        "control": {"interaction": "none"},
        "train": {"silenced": 0.0},  # nothing is silenced where no word is re-weighted
    }
    return params.model_copy(update={name: getattr(params, name).model_copy(update=own) for name, own in changes.items()})


def train(task: Task, adapted: Path, out: Path, work: Path) -> None:
    joint.train(task, adapted, out, work)


def load(params: Params, product: str, adapted: Path, folder: Path) -> Generator:
    return joint.load(params, product, adapted, folder)
