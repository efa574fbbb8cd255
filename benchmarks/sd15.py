"""Stable Diffusion 1.5's architecture through the unchanged pipeline: ``python benchmarks/sd15.py SCRATCH``.

Writes a base of that architecture with random weights (half precision, diffusers' layout, about 2.1 GB) to
``SCRATCH/base``, points ``presets/mvtec-sd15.yaml`` at it, trains two steps, saves, loads what was saved, and draws one
512 px image. Its picture is noise: what is checked is that every shape and every part of the real thing fits. Changed
in the preset: the data set (a drawn product), ``train.steps`` and ``train.batch``, and what
``--set`` names. CLIP's vocabulary is not shipped, so the tokenizer is the embedded base's; the embedding table has
CLIP's size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from functools import reduce
from operator import getitem
from pathlib import Path

import cadiff  # noqa: F401  (makes torchvision importable before diffusers asks for it)

# isort: split

import torch
import yaml
from diffusers import PNDMScheduler
from transformers import CLIPTextModel

from cadiff.backbone import EMBEDDED
from cadiff.backbone.sd15 import networks, text_configuration
from cadiff.errors import CADiffError, exit_code
from cadiff.params import file_form, load_params
from cadiff.records import GENERATED_SCHEMA
from cadiff.storage import read_image, read_table, write_text

ROOT = Path(__file__).resolve().parents[1]
PRESET = ROOT / "presets" / "mvtec-sd15.yaml"
PRODUCT, KIND = "nut", "rust"


def write_base(folder: Path) -> None:
    """The parts of Stable Diffusion 1.5 with its own config values, in half precision; weights are random."""
    torch.manual_seed(0)
    unet, vae = networks()
    text = CLIPTextModel(text_configuration())
    for name, part in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.1f} M parameters", flush=True)
        part.half().save_pretrained(folder / name, safe_serialization=True)
    shutil.copytree(EMBEDDED / "tokenizer", folder / "tokenizer")
    schedule().save_pretrained(folder / "scheduler")


def schedule() -> PNDMScheduler:
    """Stable Diffusion 1.5's noise schedule."""
    made = PNDMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False,
        skip_prk_steps=True, steps_offset=1,
    )  # fmt: skip
    made.register_to_config(clip_sample=False)  # PNDM has no such option, but DDIM reads the same file and would clip latents to 1
    return made


def write_params(folder: Path, changes: list[str]) -> None:
    """The preset, with a drawn product in place of MVTec AD and as few steps as show that it trains."""
    values = file_form(load_params(PRESET))
    values["dataset"] |= {"name": "demo", "layout": "demo", "root": "data/made/demo"}
    values["draw"] = {"products": [PRODUCT], "normals": 2, "test_good": 1, "anomalies_per_type": 3}
    values["products"] = {PRODUCT: {}}
    values["base"] |= {"path": "base"}
    values["metrics"] |= {"inception": None, "lpips": None}  # nothing is scored here, so what scores need not be there
    values["recipe"]["classifier"]["weights"] = None
    values["train"] |= {"steps": 2, "epochs": None, "batch": 1, "accumulate": 1}
    for change in changes:
        key, _, value = change.partition("=")
        *sections, name = key.split(".")
        reduce(getitem, sections, values)[name] = yaml.safe_load(value)
    write_text(folder / "params.yaml", yaml.safe_dump(values, sort_keys=False))


def run(folder: Path, *call: str) -> None:
    """One command of the package in a process of its own; its wall time and peak memory."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *call], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)  # subprocess tells the largest child's peak only
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CADiffError(f"{' '.join(call)}: ended with exit code {process.returncode}; its own message is above.")
    peak = usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print(f"{' '.join(call)}: {time.monotonic() - started:.0f} s, {peak:.1f} GiB peak", flush=True)


def check(folder: Path, changes: list[str], steps: int) -> None:
    if not (folder / "base" / "scheduler").is_dir():
        shutil.rmtree(folder / "base", ignore_errors=True)
        # in a process of its own, whose memory would count as the peak of every process that is started after it
        writer = multiprocessing.get_context("spawn").Process(target=write_base, args=(folder / "base",))
        writer.start()
        writer.join()
        if writer.exitcode:
            raise CADiffError(f"{folder / 'base'}: could not be written; the message is above.")
    write_params(folder, changes)
    for stage in ("draw", "samples", "adapt"):
        run(folder, "cadiff.stages", stage, "--product", PRODUCT)
    run(folder, "cadiff.stages", "train", "--product", PRODUCT, "--method", "cadiff")
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    run(folder, "cadiff.cli", "generate", PRODUCT, "--type", KIND, "--steps", str(steps), "--out", str(out))
    row = read_table(out / "rows.parquet", GENERATED_SCHEMA).to_pylist()[0]
    shape = read_image(out / row["image"]["path"]).shape
    if shape != (512, 512, 3):
        raise CADiffError(f"{out}: expected one 512 px image, found {shape}.")
    print(f"drawn: {shape[0]} px, {steps} steps, prompt {row['prompt']!r}, w {row['intensity']:.2f}, base {row['base_digest']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="an empty folder with 6 GB of room; kept, so that the base is written once")
    parser.add_argument("--steps", type=int, default=2, help="denoising steps of the one image")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a further change of the preset")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    sys.exit(exit_code(lambda: check(options.scratch.resolve(), options.set, options.steps)))


if __name__ == "__main__":
    main()
