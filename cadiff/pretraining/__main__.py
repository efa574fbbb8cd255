"""``python -m cadiff.pretraining``: draws the stream, trains the embedded base and writes it into the package.

Goes on from the checkpoints in ``--work``. ``--start cadiff/backbone/embedded`` trains a finished base further: its
autoencoder stays, its U-Net, text encoder and control go on. ``--autoencoder-of`` takes the autoencoder alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderDC

from cadiff.backbone import EMBEDDED, load_backbone
from cadiff.backbone.load import weights_digest
from cadiff.data.images import to_tensor
from cadiff.devices import pick_device
from cadiff.errors import UsageError, exit_code
from cadiff.params import BaseParams
from cadiff.pretraining.autoencoder import spread_latents, train_autoencoder, train_decoder
from cadiff.pretraining.diffusion import CONTROL_FROM, LEARNING_RATE, Parts, train_diffusion
from cadiff.pretraining.export import export_base, unit_scale
from cadiff.pretraining.photographs import SCALES
from cadiff.pretraining.stream import DEMO_SHARE, FORM, PHOTO_SHARE, VIEWS, Stream, draw_stream
from cadiff.seeds import derive_seed
from cadiff.storage import digest, read_json

RECORDED = (
    "autoencoder_steps", "autoencoder_batch", "decoder_steps", "diffusion_steps", "control_from", "batch", "learning_rate", "pictures",
    "seed", "size",
)  # fmt: skip
AUTOENCODER_PICTURES = 24000  # the first ones: it learns from patches, of which these have enough


def main() -> None:
    options = parsed()
    sys.exit(exit_code(lambda: run(options)))


def run(options: argparse.Namespace) -> None:
    """Draws, trains and exports, from wherever ``options.work`` has got to."""
    pictures, device = options.work / stream_name(options), pick_device(options.device)
    draw_stream(pictures, options.seed, options.pictures, options.size, options.workers)
    stream = Stream.opened(pictures, options.pictures)
    began = time.monotonic()
    work = checkpoints_of(options)
    vae, parts, history = _begun(options, stream, work, device)
    taken = options.start or options.autoencoder_of
    version = 1 + (read_json(taken / "card.json")["version"] if taken else 0)
    some, workers = stream.chosen(slice(AUTOENCODER_PICTURES)), options.workers
    train_decoder(vae, some, work, options.decoder_steps, options.autoencoder_batch, options.seed, workers)
    average = train_diffusion(
        parts, stream, vae, work, options.diffusion_steps, options.batch, options.seed, options.control_from, workers, options.learning_rate
    )
    training = {name: getattr(options, name) for name in RECORDED}
    if taken:
        training["autoencoder_steps"] = 0
    if parts.control_trained:
        training["control_from"] = 0
    training |= {"minutes_of_last_call": round((time.monotonic() - began) / 60), "device": device.type}
    training |= {"threads": torch.get_num_threads()} if device.type == "cpu" else {}
    modules = {"unet": average.unet, "vae": vae, "text_encoder": average.text, "controlnet": average.control.controlnet,
               "saim": average.control.saim}  # fmt: skip
    card = {
        "name": "cadiff-embedded", "version": version, "license": "Apache-2.0", "training": [*history, training],
        "parameters": {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()},
        "data": f"drawn pictures of {SCALES * options.size} px, each whole and as {VIEWS - 1} windows (cadiff.data.drawing; the "
        f"demo's four products are {(1 - PHOTO_SHARE) * DEMO_SHARE:.0%} of all, from other seeds), and windows of the photographs and "
        f"textures that scikit-image and scikit-learn carry ({PHOTO_SHARE:.0%})",
        "limits": f"windows of {options.size} px; small: surfaces and defects like the drawn ones come out, others need `adapt`",
        "torch": torch.__version__,
    }  # fmt: skip
    export_base(options.out, modules, average.tokenizer, card)
    print(f"base: {options.out}")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The call's options; None: the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cadiff.pretraining", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path(".cadiff/pretraining"), help="stream and checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    parser.add_argument("--start", type=Path, help="a base made by this command, to be trained further; default: from scratch")
    parser.add_argument("--autoencoder-of", type=Path, help="a base whose autoencoder is used; default: trained")
    parser.add_argument("--pictures", type=int, default=24000)
    parser.add_argument("--autoencoder-steps", type=int, default=1400)
    parser.add_argument(
        "--decoder-steps", type=int,
        help="of teaching the decoder to clear a sampler's grain; default: 500, with --start 0 (its decoder was taught)",
    )  # fmt: skip
    parser.add_argument("--diffusion-steps", type=int, default=4600)
    parser.add_argument(
        "--control-from", type=int, default=CONTROL_FROM,
        help="the diffusion's step that a new control is copied and trained from; with large batches, of which there are fewer, sooner",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=16, help="of the diffusion's steps; an accelerator bears 256")
    parser.add_argument("--autoencoder-batch", type=int, default=16)
    parser.add_argument(
        "--learning-rate", type=float, default=LEARNING_RATE, help="of the diffusion, at most; less for a base trained further"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--device", default="auto", help="auto, or a device as torch names it")
    parser.add_argument(
        "--workers", type=int, default=min(os.cpu_count() or 1, 16), help="processes that draw pictures, and beside an accelerator batches"
    )
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers: expected 1 or more, found {options.workers}")
    if options.size % 16 or not 16 <= options.size <= 128:  # the U-Net's levels; the drawings' textures
        parser.error(f"--size: expected a multiple of 16 up to 128, found {options.size}")
    if options.out.is_dir() and any(options.out.iterdir()) and not (options.out / "card.json").is_file():
        parser.error(f"--out: expected a base made by this command, an empty folder or none, found {options.out}: it would be replaced")
    if options.decoder_steps is None:
        options.decoder_steps = 0 if options.start else 500
    return options


def stream_name(options: argparse.Namespace) -> str:
    """The folder of the pictures; others, also of an earlier form of the stream, have another one."""
    return "stream-" + digest({"form": FORM, "seed": options.seed, "size": options.size})


def checkpoints_of(options: argparse.Namespace) -> Path:
    """Where this training's checkpoints lie: another start, another folder, so that none goes on from a stranger's.

    The decoder's and the diffusion's steps are left out: a training may be given more. The autoencoder's decide what the
    latents are, so where it is trained here, more of them begin another training.
    """
    named = ("pictures", "control_from", "batch", "autoencoder_batch", "learning_rate", "seed", "size")
    kept = {name: getattr(options, name) for name in named} | {"form": FORM}
    if not (options.start or options.autoencoder_of):
        kept["autoencoder_steps"] = options.autoencoder_steps
    bases = {name: getattr(options, name) for name in ("start", "autoencoder_of")}
    return Path(options.work) / digest(kept | {name: base and weights_digest(str(base)) for name, base in bases.items()})


def _begun(
    options: argparse.Namespace, stream: Stream, work: Path, device: torch.device
) -> tuple[AutoencoderDC, Parts, list[object]]:
    """The autoencoder, what is to be trained with it, and the runs that led to them."""
    history: list[object] = []
    taken = options.start or options.autoencoder_of
    if taken is None:
        some = stream.chosen(slice(AUTOENCODER_PICTURES))
        vae = train_autoencoder(some, work, options.autoencoder_steps, options.autoencoder_batch, options.seed, device, options.workers)
    else:
        base = load_backbone(BaseParams(path=str(taken), size=options.size, device=str(device), dtype="float32"))
        if not isinstance(base.vae, AutoencoderDC):
            raise UsageError(f"{taken}: expected a base made by this command, found {type(base.vae).__name__}")
        recorded, vae = read_json(taken / "card.json")["training"], base.vae
        history = recorded if isinstance(recorded, list) else [recorded]
    if options.start is not None:
        return vae, Parts.of(base), history
    few = to_tensor(stream.image[:300])
    spread_latents(vae.to("cpu"), few)  # in double precision, which not every device has
    unit_scale(vae, few)
    vae.to(device)
    torch.manual_seed(derive_seed(options.seed, "diffusion"))
    return vae, Parts.new(vae), history


if __name__ == "__main__":
    main()
