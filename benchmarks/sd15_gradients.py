"""Stable Diffusion 1.5's architecture: are a step's gradients the same in passes, and where activations are computed again?

    python benchmarks/sd15_gradients.py SCRATCH

SCRATCH is the folder of `make check-sd15` (``.cadiff/sd15``), whose base has random weights. A batch of two pictures of 512 px goes
forward and backward three times: in one pass, in two (``train.accumulate: 2``), and with ``train.checkpointing``, each from the same
weights, a little away from the zeros at which a control starts. Prints how far each way's gradients lie from those of one pass,
|difference| / |gradient|, over all that learns and for the worst tensor, and minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from cadiff.backbone import load_backbone, recompute
from cadiff.errors import exit_code
from cadiff.generator.examples import Shown, draw_view
from cadiff.generator.joint import learn
from cadiff.generator.steps import new_scaler
from cadiff.generator.train import new_generator
from cadiff.params import Params, load_params
from cadiff.seeds import torch_generator
from cadiff.stages import resolve

PRODUCT = "nut"
WAYS: dict[str, dict[str, object]] = {"one pass": {}, "two passes": {"accumulate": 2}, "checkpointing": {"checkpointing": True}}
AWAY = 0.02  # of a normal deviate, added to each weight that learns
Gradients = dict[str, torch.Tensor]


def gradients(params: Params, samples: list, kinds: list[str]) -> Gradients:
    """Of all that learns, after one batch."""
    backbone = load_backbone(params.base)
    generator = new_generator(params, PRODUCT, kinds, backbone)
    assert generator.control is not None
    for model in (backbone.unet, generator.control.controlnet, generator.control.saim) if params.train.checkpointing else ():
        recompute(model)
    learnt = {**dict(generator.tokens.named_parameters()), **dict(generator.control.named_parameters())}
    torch.manual_seed(0)
    with torch.no_grad():
        for value in learnt.values():
            value += AWAY * torch.randn_like(value)
    rng = torch_generator(0, "gradients")
    shown = Shown.of(samples, params)
    scaler = new_scaler(backbone.device, backbone.dtype)
    learn(generator, draw_view(shown, generator.tokens, backbone, params, rng), params, rng, scaler)
    return {name: value.grad for name, value in learnt.items() if value.grad is not None}


def difference(found: Gradients, expected: Gradients) -> tuple[float, float, str]:
    """Over all tensors together, that of the one that differs most among those that have a thousandth of the mean norm, and its name."""
    if set(found) != set(expected):
        raise SystemExit(f"expected gradients of the same tensors, found others of {sorted(set(found) ^ set(expected))[:3]}")
    off = {name: float((found[name] - value).norm()) for name, value in expected.items()}
    norms = {name: float(value.norm()) for name, value in expected.items()}
    least = 1e-3 * sum(norms.values()) / len(norms)
    each = {name: off[name] / norms[name] for name in off if norms[name] > least}
    worst = max(each, key=lambda name: each[name])
    return sum(v**2 for v in off.values()) ** 0.5 / sum(v**2 for v in norms.values()) ** 0.5, each[worst], worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--dtype", default="auto", help="base.dtype: auto, float32 or bfloat16")
    options = parser.parse_args()

    def work() -> None:
        os.chdir(options.scratch)
        run = resolve("train", load_params(), PRODUCT, "cadiff")
        kinds = sorted({row.anomaly_type for row in run.samples if row.role == "exemplar" and row.anomaly_type})
        expected: Gradients = {}
        for name, own in WAYS.items():
            train = run.params.train.model_copy(update={"batch": 2, "accumulate": 1, "checkpointing": False, **own})
            base = run.params.base.model_copy(update={"dtype": options.dtype})
            started = time.monotonic()
            found = gradients(run.params.model_copy(update={"train": train, "base": base}), run.samples, kinds)
            told = f"{name}: {(time.monotonic() - started) / 60:.1f} minutes, {len(found)} tensors"
            if expected:
                whole, worst, where = difference(found, expected)
                told += f", apart by {whole:.2g} in all, {worst:.2g} at most ({where})"
            expected = expected or found
            print(told, flush=True)

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
