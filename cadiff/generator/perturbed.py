"""Perturbed normals: noised to a strength and denoised in random places, without any exemplar (as RealNet does)."""

from __future__ import annotations

from pathlib import Path

from cadiff.generator.adapt import load_adapted, load_recorded
from cadiff.generator.model import Generator
from cadiff.params import Params
from cadiff.prompt import PlainWords
from cadiff.storage import sha256_folder, write_json
from cadiff.task import Task


def settings(params: Params) -> Params:
    """Each scene starts from its own noised background, and no word is guided towards."""
    changes = {"strength": params.perturbed.strength, "start": "background", "guidance_scale": 1.0}
    return params.model_copy(update={"generate": params.generate.model_copy(update=changes)})


def train(task: Task, adapted: Path, out: Path, work: Path) -> None:
    """Nothing is learned beyond the base's adaptation; the record says so."""
    write_json(out / "generator.json", {"product": task.product, "base": load_adapted(task.params, adapted).digest, "steps": 0})


def load(params: Params, product: str, adapted: Path, folder: Path) -> Generator:
    """The adapted base, prompted with a good part whatever is asked for.

    Raises:
        CADiffError: if the record is of another base.
    """
    backbone, _ = load_recorded(params, adapted, folder)
    words = PlainWords(backbone, [], params.prompt.initial_word, params.prompt.initial_context)
    return Generator(backbone.narrow(), words, None, sha256_folder(folder)[:16])
