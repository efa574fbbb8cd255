"""The generators, by name: what is trained, sampled and judged like CADiff. A new one is a module, a line of ``GENERATORS``, and one of
the table of methods (``cadiff.params.METHODS``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cadiff.generator import controlnet, pasted, perturbed, train
from cadiff.generator.model import Generator, Paster
from cadiff.params import Params
from cadiff.task import Task


class GeneratorModule(Protocol):
    """What a generator's module has. Scenes are drawn by ``cadiff.generator.draw`` with what ``load`` gives."""

    def settings(self, params: Params) -> Params:
        """The product's parameters as this generator reads them; what it does not have is set to what that means."""

    def train(self, task: Task, adapted: Path, out: Path, work: Path) -> None:
        """Writes ``out/generator.json`` and whatever else ``load`` needs; goes on from ``work`` where there is something."""

    def load(self, params: Params, product: str, adapted: Path, folder: Path) -> Generator | Paster:
        """What ``train`` wrote, frozen.

        Raises:
            CADiffError: if it is not there, or was trained on another base.
        """


GENERATORS: dict[str, GeneratorModule] = {"cadiff": train, "controlnet": controlnet, "perturbed": perturbed, "pasted": pasted}


def settings_of(method: str, params: Params) -> Params:
    return GENERATORS[method].settings(params)


def train_generator(task: Task, adapted: Path, out: Path, work: Path) -> None:
    GENERATORS[task.method].train(replace(task, params=settings_of(task.method, task.params)), adapted, out, work)


def load_generator(task: Task, adapted: Path, folder: Path) -> Generator | Paster:
    return GENERATORS[task.method].load(settings_of(task.method, task.params), task.product, adapted, folder)
