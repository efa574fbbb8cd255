"""What the presets for Stable Diffusion 1.5 say of cards holds for Stable Diffusion 1.5's architecture, counted without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cadiff.backbone.sd15 import configurations
from cadiff.needs import GIB, Live, drawing_of, step_of
from cadiff.params import load_params

PRESETS = Path(__file__).resolve().parents[2] / "presets"
CARDS = {"mvtec-sd15": 24, "paper-literal": 24, "mvtec-sd15-16gb": 16, "mvtec-sd15-12gb": 12}  # GB


def test_what_a_view_shares_with_a_weight_is_no_activation() -> None:
    layer, image = torch.nn.Linear(1000, 10, bias=False, device="meta"), torch.empty(4, 1000, device="meta")
    with Live([*layer.parameters(), image]) as live:
        found = layer(image)
    assert live.peak == live.now == 4 * found.numel(), "what came of it, and not the weight, whose transpose was multiplied with"
    del found
    assert live.now == 0


@pytest.mark.parametrize("preset", ["mvtec-sd15-16gb", "mvtec-sd15-12gb"])
def test_a_preset_of_a_smaller_card_is_the_recommended_one_in_less_memory(preset: str) -> None:
    ours, own = (load_params(PRESETS / f"{name}.yaml").model_dump() for name in ("mvtec-sd15", preset))
    lean = {"train": ("accumulate", "checkpointing", "optimizer"), "generate": ("batch",)}
    for section, keys in lean.items():
        for key in keys:
            own[section][key] = ours[section][key]
    assert own == ours


@pytest.mark.slow
@pytest.mark.parametrize("preset", CARDS)
def test_the_preset_of_a_card_fits_it(preset: str) -> None:
    params, card, shapes = load_params(PRESETS / f"{preset}.yaml"), CARDS[preset], configurations()
    step = step_of(params, *shapes)
    assert (round(step.frozen / 1e6, 1), round(step.autoencoder / 1e6, 1), round(step.text / 1e6, 1)) == (859.5, 83.7, 123.1)
    needed = step.memory(params.train.optimizer, narrow=True, cuda=True) / GIB
    assert 0.5 * card < needed < 0.95 * card, f"a training step: {needed:.1f} GiB"
    drawing = drawing_of(params, *shapes).memory(step, narrow=True, cuda=True) / GIB
    assert drawing < 0.7 * card, f"drawing: {drawing:.1f} GiB"
