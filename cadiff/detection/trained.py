"""What lies beside a trained detector's weights: ``seed-<s>.json``, all that it takes to apply them to a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from cadiff.data.cameras import looked_at_grey
from cadiff.detection.tiles import View
from cadiff.errors import CADiffError, UsageError
from cadiff.params import DetectorParams
from cadiff.records import Levels, SampleRow
from cadiff.storage import missing, read_json, read_tensors, write_json
from cadiff.task import Task
from cadiff.thresholds import Threshold, Thresholds

Range = tuple[int, int]
Network = Literal["resnet34", "efficientnet-lite0"]  # of a classifier


@dataclass(frozen=True)
class ClassifierCard:
    """A trained classifier: its network, the side in px of the square that it sees pictures stretched to, how it was started, and its
    classes in the order of its logits."""

    network: Network
    side: int
    variant: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """A trained detector. ``made_by`` is a digest of what its training images were generated with; ``false_alarms`` and ``rule`` are
    what the thresholds were asked for; ``thresholds`` is None where nothing was calibrated, ``classifier`` where none was trained.
    ``width`` and ``height`` are the least and the largest of the product's train and calibration normals, in px; ``levels`` say which
    values of pictures of more than 8 bits a channel are black and white. ``colour`` is whether its normals have colours, None where some
    have and others have none, or where the file is older than this."""

    product: str
    method: str
    seed: int
    network: str
    unet_width: int
    standardise: bool
    view: View
    pooling: int
    made_by: str
    false_alarms: float
    rule: Literal["good", "generated"]
    thresholds: Thresholds | None
    classifier: ClassifierCard | None
    width: Range
    height: Range
    levels: Levels | None = None
    colour: bool | None = None

    @property
    def settings(self) -> DetectorParams:
        """What ``cadiff.detection.networks.network_of`` builds its network from."""
        return DetectorParams(network=self.network, width=self.unet_width, standardise=self.standardise)

    def as_json(self) -> dict[str, Any]:
        """As ``seed-<s>.json`` has it."""
        image, pixel = (None, None) if self.thresholds is None else (asdict(self.thresholds.image), asdict(self.thresholds.pixel))
        card = self.classifier
        return {
            "product": self.product, "method": self.method, "seed": self.seed, "network": self.network, "width": self.unet_width,
            "standardise": self.standardise, "canvas": self.view.canvas, "size": self.view.seen, "tile": self.view.tile,
            "pooling": self.pooling, "made_by": self.made_by, "false_alarms": self.false_alarms, "threshold": self.rule,
            "image": image, "pixel": pixel, "classes": None if card is None else list(card.classes),
            "classifier": None if card is None else {"network": card.network, "side": card.side, "variant": card.variant},
            "normals": {"width": list(self.width), "height": list(self.height)},
            "range": None if self.levels is None else list(self.levels), "colour": self.colour,
        }  # fmt: skip


def describe(task: Task, seed: int, made_by: str, thresholds: Thresholds | None, classifier: ClassifierCard | None) -> Trained:
    """A detector that was trained with these parameters (the product's own)."""
    settings = task.params.detector
    normals = [row for row in task.samples if row.product == task.product and row.role in ("normal", "calibration")]
    widths, heights = [row.width for row in normals], [row.height for row in normals]
    return Trained(
        task.product, task.method, seed, settings.network, settings.width, settings.standardise, View.of(task.params), settings.pooling,
        made_by,
        settings.false_alarms, settings.threshold, thresholds, classifier, (min(widths), max(widths)), (min(heights), max(heights)),
        normals[0].levels, colour_of(normals),
    )  # fmt: skip


def colour_of(rows: Sequence[SampleRow]) -> bool | None:
    """Whether these pictures have colours, by those that are looked at; None where some have and others have none.

    Raises:
        CADiffError: if one of them does not read.
    """
    grey = set(looked_at_grey(rows))
    return None if len(grey) > 1 else not grey.pop()


def write_trained(trained: Trained, folder: Path) -> None:
    """Writes ``folder/seed-<s>.json``."""
    write_json(folder / f"seed-{trained.seed}.json", trained.as_json())


def read_trained(path: Path) -> Trained:
    """What ``write_trained`` wrote.

    Raises:
        CADiffError: if the file is not there, is no JSON, or lacks what a detector's has.
    """
    if not path.is_file():
        raise missing(path)
    values = read_json(path)
    try:
        view = View(values["canvas"], values["size"], values["tile"])
        thresholds = None
        if values["image"] is not None:
            thresholds = Thresholds(Threshold(**values["image"]), Threshold(**values["pixel"]))
        card = None
        if values["classifier"] is not None:
            card = ClassifierCard(**values["classifier"], classes=tuple(values["classes"]))
        width, height = (tuple(values["normals"][side]) for side in ("width", "height"))
        return Trained(
            values["product"], values["method"], values["seed"], values["network"], values["width"], values["standardise"], view,
            values["pooling"], values["made_by"], values["false_alarms"], values["threshold"], thresholds, card, width, height,
            None if values["range"] is None else Levels(*values["range"]), values.get("colour"),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise CADiffError(
            f"{path}: expected what a trained detector's JSON has, but it does not read ({error!r}). Train again (dvc repro)."
        ) from None


def read_weights(path: Path, wanted: Mapping[str, str], again: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a detector's file, whose metadata have to say what is ``wanted``.

    Raises:
        CADiffError: if the file is not there, not whole, or another detector's; ``again`` is the advice then.
    """
    tensors, metadata = read_tensors(path)
    for name, value in wanted.items():
        if (found := metadata.get(name)) != value:
            raise CADiffError(f"{path}: expected a detector of {name} {value}, found {found}. {again}")
    return tensors, metadata


def find_trained(path: str | Path, seed: int | None = None) -> Path:
    """The ``seed-<s>.json`` that is meant: of a folder the one of ``seed`` (None: its lowest), of a file its own or the one beside it.

    Raises:
        UsageError: if there is no trained detector.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".json" and path.with_suffix(".safetensors").is_file():
        return path
    if path.is_file() and path.suffix == ".safetensors" and path.with_suffix(".json").is_file():
        return path.with_suffix(".json")
    found = {int(file.stem.removeprefix("seed-")): file for file in path.glob("seed-*.json") if file.stem.removeprefix("seed-").isdecimal()}
    if found and seed is None:
        return found[min(found)]
    if seed in found:
        return found[seed]
    wanted = "seed-*.json" if seed is None else f"seed-{seed}.json"
    seeds = f"seeds {', '.join(map(str, sorted(found)))}" if found else "none"
    raise UsageError(
        f"{path}: expected a trained detector ({wanted} with its weights beside it, as the stage detect writes them), found {seeds}; "
        "a folder that was shipped is run by its run.py"
    )
