"""Parameters for tests: a preset's values to change and to write as a file, and sections as plain as they can be."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest

from cadiff.params import GenerateParams, Params, as_written, file_form, load_params
from cadiff.params.keys import lowered

ROOT = Path(__file__).resolve().parents[1]
# The paper's readings and what costs least, in place of the defaults, which are those of a data set of one's own.
BARE: dict[str, Any] = {
    "dataset": {"name": "demo", "layout": "demo", "root": "data/made/demo", "calibration": 0.0},
    "methods": ["cadiff", "exemplars"],
    "ship": {"methods": []},
    "base": {"dtype": "float32"},
    "adapt": {"steps": 0, "vae_steps": 0, "learning_rate": 2e-4},
    "prompt": {"gamma": 0.001, "balanced": False, "contrastive_over": "vectors", "learning_rate": 1e-5, "initial_context": None},
    "control": {"start": "copy", "learning_rate": 1e-5},
    "train": {"steps": 300, "decay": "none", "exposure": "own", "mask_weight": 0.0},
    "intensity": {"low": 0.5},
    "generate": {
        "per_type": 40, "scheduler": "ddim", "steps": 20, "guidance_scale": 1.0, "start": "noise", "redraw": False, "dilate": 1,
    },
    "detector": {
        "network": "unet", "size": None, "width": 64, "epochs": 200, "samples_per_epoch": 500, "learning_rate": 1e-4, "pooling": 21,
        "seeds": [0], "threshold": "good",
    },
    "classifier": {"epochs": 30},
}  # fmt: skip


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Sections over others, key by key; products and variants replace."""
    both = {key: {**below[key], **value} for key, value in above.items() if _merges(key, below.get(key), value)}
    return copy.deepcopy({**below, **above, **both})


def _merges(key: str, below: object, above: object) -> bool:
    return key not in ("products", "variants") and isinstance(below, dict) and isinstance(above, dict)


def bare(**sections: Any) -> Params:
    """Parameters with these sections over ``BARE``."""
    return Params(**over(BARE, sections))


def sampling(**own: Any) -> GenerateParams:
    return GenerateParams(**{**BARE["generate"], **own})


def save_each_step(patch: pytest.MonkeyPatch) -> None:
    """Has a training write a checkpoint after every step."""
    patch.setattr("cadiff.checkpoint.SECONDS", 0.0)
    patch.setattr("cadiff.checkpoint.SHARE", math.inf)


def values_of(preset: str) -> dict[str, Any]:
    """A preset's resolved values, the recipe's keys in their sections, methods in their groups; for ``file_text``."""
    params = load_params(ROOT / "presets" / f"{preset}.yaml")
    return {**params.model_dump(mode="json"), "methods": file_form(params)["methods"], "cluster": params.cluster}


def file_text(values: dict[str, Any]) -> str:
    """Values as the text of a parameters' file, in the words of the package: PyYAML's own dumper leaves the name ``08`` without quotes."""
    groups = ("products", "variants")
    named = {group: {name: lowered(own) for name, own in values[group].items()} for group in groups if isinstance(values.get(group), dict)}
    return "\n".join(as_written(lowered({**values, **named}))) + "\n"
