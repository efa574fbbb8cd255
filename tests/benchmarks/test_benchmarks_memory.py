"""What presets/mvtec-sd15.yaml says of cards holds for Stable Diffusion 1.5's architecture, counted without weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cadiff.needs import GIB, Live, step_of
from cadiff.params import load_params

PRESET = Path(__file__).resolve().parents[2] / "presets" / "mvtec-sd15.yaml"


def test_what_a_view_shares_with_a_weight_is_no_activation() -> None:
    layer, image = torch.nn.Linear(1000, 10, bias=False, device="meta"), torch.empty(4, 1000, device="meta")
    with Live([*layer.parameters(), image]) as live:
        found = layer(image)
    assert live.peak == live.now == 4 * found.numel(), "what came of it, and not the weight, whose transpose was multiplied with"
    del found
    assert live.now == 0


@pytest.mark.slow
@pytest.mark.parametrize(("card", "accumulate", "optimizer"), [(24, 4, "adamw"), (16, 8, "adamw"), (12, 16, "adamw-8bit")])
def test_the_settings_for_a_card_fit_it(script: Callable[[str], ModuleType], card: int, accumulate: int, optimizer: str) -> None:
    params = load_params(PRESET)
    assert params.train.accumulate == 4, "the preset is that of 24 GB"
    train = params.train.model_copy(update={"accumulate": accumulate})
    step = step_of(params.model_copy(update={"train": train}), *script("sd15").configurations())
    assert (round(step.frozen / 1e6, 1), round(step.autoencoder / 1e6, 1), round(step.text / 1e6, 1)) == (859.5, 83.7, 123.1)
    needed = step.memory(optimizer, narrow=True, cuda=True) / GIB
    assert 0.5 * card < needed < 0.95 * card, f"{needed:.1f} GiB"
