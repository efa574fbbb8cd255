"""Memory of a training step and of drawing, without a card: ``python benchmarks/memory.py [PARAMS]``, presets/mvtec-sd15.yaml by default.

One step of each is run on torch's meta device (``cadiff/needs/counting.py``): its live bytes at most, and its floating-point
operations. The architecture is the base's where its configurations are on this machine, else Stable Diffusion 1.5's. What a card
holds besides, weights, gradients, averages, copies and CUDA's own work space, is arithmetic over the parameters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cadiff  # noqa: F401  (makes torchvision importable before diffusers asks for it)

# isort: split

from cadiff.backbone import sd15
from cadiff.needs import GIB, configurations, drawing_of, step_of
from cadiff.params import load_params

ROOT = Path(__file__).resolve().parents[1]
PRESET = ROOT / "presets" / "mvtec-sd15.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("params", type=Path, nargs="?", default=PRESET)
    parser.add_argument("--pictures", type=int, nargs="+", default=[16, 4, 1], help="in one pass")
    options = parser.parse_args()
    params = load_params(options.params)
    shapes = configurations(params.base) or sd15.configurations()
    print("pictures a pass  checkpointing  activations GiB  card GiB, adamw  adamw-8bit  TFLOP a picture")
    for pictures in options.pictures:
        for again in (False, True):
            train = params.train.model_copy(update={"batch": pictures, "accumulate": 1, "checkpointing": again})
            step = step_of(params.model_copy(update={"train": train}), *shapes)
            cards = [step.memory(optimizer, narrow=True, cuda=True) / GIB for optimizer in ("adamw", "adamw-8bit")]
            print(f"{pictures:<17}{again!s:<15}{step.activations / GIB:<17.2f}{cards[0]:<17.1f}{cards[1]:<12.1f}"
                  f"{step.learning / pictures / 1e12:.2f}", flush=True)  # fmt: skip
    print(f"parameters: {step.frozen / 1e6:.1f} M frozen, {step.trained / 1e6:.1f} M trained, {step.autoencoder / 1e6:.1f} M autoencoder")
    print(f"TFLOP: an image denoised once {step.denoising / 1e12:.2f}, encoded {step.encoding / 1e12:.2f}, decoded "
          f"{step.decoding / 1e12:.2f}")  # fmt: skip
    for batch in (16, 8, 1):
        generate = params.generate.model_copy(update={"batch": batch})
        drawing = drawing_of(params.model_copy(update={"generate": generate}), *shapes)
        print(f"drawing {batch:>2} together, GiB: activations {drawing.denoising / GIB:.2f}, the autoencoder's {drawing.decoding / GIB:.2f}"
              f", on the card {drawing.memory(step, narrow=True, cuda=True) / GIB:.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
