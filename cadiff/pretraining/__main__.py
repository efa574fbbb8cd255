"""``python -m cadiff.pretraining``: draws the stream, trains the embedded base and writes it into the package.

Goes on from the checkpoints in ``--work``; the parts can be trained further at any time with more steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from cadiff.backbone import EMBEDDED
from cadiff.data.images import to_tensor
from cadiff.pretraining.autoencoder import train_autoencoder
from cadiff.pretraining.diffusion import train_diffusion
from cadiff.pretraining.export import export_base, unit_scale
from cadiff.pretraining.stream import Stream, draw_stream


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cadiff.pretraining", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".cadiff/pretraining"), help="stream and checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    parser.add_argument("--pictures", type=int, default=12000)
    parser.add_argument("--autoencoder-steps", type=int, default=1400)
    parser.add_argument("--diffusion-steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    pictures = options.work / f"stream-{options.size}"
    draw_stream(pictures, options.seed, options.pictures, options.size)
    stream = Stream.opened(pictures, options.pictures)
    vae = train_autoencoder(stream, options.work, options.autoencoder_steps, options.batch, options.seed)
    unit_scale(vae, to_tensor(stream.image[:300]))
    unet, text, tokenizer = train_diffusion(stream, vae, options.work, options.diffusion_steps, options.batch, options.seed)
    trained = {key: value for key, value in vars(options).items() if key not in ("work", "out")}
    card = {
        "name": "cadiff-embedded", "version": 1, "license": "Apache-2.0", "training": trained,
        "parameters": {
            name: sum(p.numel() for p in module.parameters())
            for name, module in (("unet", unet), ("vae", vae), ("text_encoder", text))
        },
        "data": "drawn pictures (cadiff.data.drawing; the demo's four products are 30 % of them, from other seeds), and for "
        "the autoencoder also the photographs and textures that scikit-image and scikit-learn carry",
        "torch": torch.__version__,
    }  # fmt: skip
    export_base(options.out, unet, text, tokenizer, vae, card)
    print(f"base: {options.out}")


if __name__ == "__main__":
    main()
