"""What each stage of the graph reads of the parameters, and the files of resolved values that DVC watches in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cadiff.params.reading import as_written
from cadiff.params.whole import RESULT_KEYS, Params
from cadiff.storage import write_text

GENERATORS_KEY = "methods.generators"
SETTINGS = Path("data/made/settings")
AUGMENTED = ("train.crop", "train.translate", "train.rotate")
SCORED = ("base.device", "dataset.name", "dataset.size", "dataset.calibration")
READS: dict[str, tuple[str, ...]] = {  # by stage
    "draw": ("seed", "dataset.root", "draw.normals", "draw.test_good", "draw.anomalies_per_type"),
    "samples": ("dataset",),
    "adapt": ("seed", "dataset.size", "base", "window", "adapt", "train.accumulate", "train.checkpointing", GENERATORS_KEY),
    "scenes": ("seed", "dataset.size", "masks", "intensity", "generate"),
    "train": ("seed", "dataset.size", "base", "window", "prompt", "control", "train"),
    # all that GeneratedRow.params_digest covers
    "generate": (
        "seed", "dataset", "base", "window", "adapt", "prompt", "control", "train", "masks", "intensity", "generate", "perturbed",
    ),
    "showcase": (
        "seed", "dataset.size", "base", "window", "adapt", "prompt", "control", "train", "masks", "intensity", "generate", "perturbed",
    ),
    "synthesize": ("seed", "dataset.size", "generate.per_type", *AUGMENTED),
    "import": ("dataset.size",),
    "quality": ("dataset.size",),
    "detect": ("seed", "base.dtype", *SCORED, "filter", "detector", "classifier", "metrics"),
    "peer": (*SCORED, "detector", "peers", "metrics"),
    "maps": ("seed", "dataset.name", "dataset.size", "detector", "metrics"),
    # all that `cadiff ship --refit` depends on, whose state is kept under this name
    "ship": ("seed", "base.dtype", *SCORED, "generate.per_type", *AUGMENTED, "filter", "detector", "classifier"),
    "report": RESULT_KEYS,  # its page prints all parameters
}  # fmt: skip


def pick(params: Params, key: str) -> Any:
    """The value at a dotted key; of ``methods.generators`` whether there is any."""
    if key == GENERATORS_KEY:
        return bool(params.taking("train"))
    value = params.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


def settings_path(stage: str, product: str = "") -> Path:
    """The file of what a stage reads; of all products' together without one."""
    return SETTINGS / product / f"{stage}.yaml"


def settings_of(params: Params, stage: str) -> str:
    """What a stage reads of a product's own parameters, one key a line or block; what it does not read changes no byte."""
    return "\n".join(as_written({key: pick(params, key) for key in READS[stage]})) + "\n"


def write_settings(params: Params) -> None:
    """A file for each stage and product, of resolved values. DVC reruns a stage where its file has other content, and no stage for a key
    that has moved to another file, or an override of another product."""
    write_text(settings_path("report"), settings_of(params, "report"))
    for product in params.draw.products:
        write_text(settings_path("draw", product), settings_of(params, "draw"))
    for product in params.products:
        own = params.for_product(product)
        for stage in READS.keys() - {"draw", "report"}:
            write_text(settings_path(stage, product), settings_of(own, stage))
