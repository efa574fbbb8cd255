"""Fits a small base to a user's own product: a short fine-tuning on its normal photographs. Off for large bases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cadiff.backbone import Backbone, load_backbone, recompute
from cadiff.backbone.reconstruction import reconstruction_loss
from cadiff.checkpoint import Steps, cosine
from cadiff.data.augment import augment_batch
from cadiff.data.images import make_batch
from cadiff.data.workers import batches, beside
from cadiff.devices import LEANER_TRAINING, within_memory
from cadiff.errors import CADiffError
from cadiff.generator.steps import in_passes, new_scaler, update
from cadiff.generator.windows import Box, box_of, check_canvas, drawn_anywhere, drawn_around, placed_like
from cadiff.params import Params
from cadiff.pictures import Pictures, canvas_of, is_grey
from cadiff.prompt.tokens import NORMAL_TEMPLATES
from cadiff.seeds import derive_seed, torch_generator
from cadiff.storage import read_json, read_tensors, write_json, write_tensors
from cadiff.task import Task

RECORD = "adaptation.json"
DECODER_RATE = 1e-4
SCALES = 4  # steps from the base's own scale to the whole picture's, in the windows that it is adapted on


def velocity_or_noise(backbone: Backbone, latent: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the base's U-Net predicts (Eq. 1 for epsilon, the velocity for v-prediction)."""
    kind = backbone.schedule.config["prediction_type"]
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: Tensor = backbone.schedule.get_velocity(latent, noise, t)
        return velocity
    raise CADiffError(f"scheduler: expected prediction_type epsilon or v_prediction, found {kind}")


def adapt_base(task: Task, out: Path, work: Path) -> None:
    """Fine-tunes the autoencoder's decoder, then the U-Net, on the product's normals; writes both under ``out``.

    The cross-attention layers stay as they are: they hold what words mean, and normals would wash it out. With
    ``adapt.steps`` and ``adapt.vae_steps`` 0 only a record is written and the base is used as it is. The record also says
    whether the normals are ``grey``, each pixel's channels equal: then what is drawn of the product is so too.
    """
    params, product, samples = task.params, task.product, task.samples
    backbone = load_backbone(params.base)
    normals = Pictures([row for row in samples if row.role == "normal"], params.dataset.size)
    exemplars = [row for row in samples if row.role == "exemplar"]
    marked = [(box_of(mask), (mask.shape[0], mask.shape[1])) for _, mask in Pictures(exemplars, params.dataset.size)]
    for row in (*normals.rows, *exemplars) if params.window.cut == "around" else ():
        check_canvas(row.image_path, canvas_of(row, params.dataset.size), params.base.size)
    shown = _Shown(normals, marked)
    if params.adapt.vae_steps:
        _adapt_decoder(backbone, params, product, shown, work / "decoder.safetensors")
        write_tensors(out / "decoder.safetensors", backbone.vae.decoder.state_dict())
    else:
        (out / "decoder.safetensors").unlink(missing_ok=True)  # an earlier adaptation's would be loaded as this one's
    if params.adapt.steps:
        _adapt_unet(backbone, params, product, shown, work / "unet.safetensors")
        write_tensors(out / "unet.safetensors", backbone.unet.state_dict())
    else:
        (out / "unet.safetensors").unlink(missing_ok=True)
    grey = all(is_grey(picture.image) for picture in normals)
    write_json(out / RECORD, {"base": backbone.digest, "normals": len(normals), "grey": grey, **params.adapt.model_dump()})
    for name in ("decoder", "unet"):
        (work / f"{name}.safetensors").unlink(missing_ok=True)


class _Shown(NamedTuple):
    """Normals, and where exemplars' masks lie: each one's box and canvas."""

    normals: Pictures
    marked: list[tuple[Box, tuple[int, int]]]


def load_adapted(params: Params, adapted: Path) -> Backbone:
    """The base, with the product's own U-Net and decoder where adaptation made them, without colour where its normals have none.

    Raises:
        CADiffError: if the adaptation was made from another base.
    """
    backbone = load_backbone(params.base)
    record = read_json(adapted / RECORD)
    if "grey" not in record:
        raise CADiffError(f"{adapted / RECORD}: expected whether the product has colour (grey), which is not there. Rerun the adapt stage.")
    if record["base"] != backbone.digest:
        raise CADiffError(f"{adapted / RECORD}: expected base {backbone.digest}, found {record['base']}. Rerun the adapt stage.")
    for name, module in (("unet", backbone.unet), ("decoder", backbone.vae.decoder)):
        if (adapted / f"{name}.safetensors").exists():
            module.load_state_dict(read_tensors(adapted / f"{name}.safetensors")[0])
    return replace(backbone, grey=record["grey"])


def load_recorded(params: Params, adapted: Path, folder: Path) -> tuple[Backbone, dict[str, Any]]:
    """The product's base and the record of a generator that was trained on it (``folder/generator.json``).

    Raises:
        CADiffError: if it was trained on another base.
    """
    backbone, record = load_adapted(params, adapted), read_json(folder / "generator.json")
    if record["base"] != backbone.digest:
        raise CADiffError(f"{folder}/generator.json: expected base {backbone.digest}, found {record['base']}. Rerun the train stage.")
    return backbone, record


def _views(shown: _Shown, params: Params, name: str, product: str, step: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch of augmented windows of normals, every other one at a place and of a scale where an exemplar has its anomaly, the others
    anywhere and of any scale, and the state of the stream that drew them; what is drawn depends on the step alone."""
    generator, size = torch_generator(params.seed, name, product, step), params.base.size
    chosen = torch.randint(0, len(shown.normals), (params.adapt.batch,), generator=generator).tolist()
    images = np.stack([_view(shown, index, k % 2 == 0, params, generator) for k, index in enumerate(chosen)])
    batch = make_batch(images, np.zeros((len(chosen), size, size), bool))
    return augment_batch(batch, 0.05, 0.05, 3.0, generator).image.numpy(), generator.get_state().numpy()


def _view(shown: _Shown, index: int, marked: bool, params: Params, generator: torch.Generator) -> np.ndarray:
    canvas, size = shown.normals.shape(index), params.base.size
    if params.window.cut == "around" and marked and shown.marked:
        box, other = shown.marked[int(torch.randint(0, len(shown.marked), (1,), generator=generator))]
        window = placed_like(drawn_around(box, other, params.window, size, generator), other, canvas)
    else:
        sides = [round(size * (min(canvas) / size) ** (k / SCALES)) for k in range(SCALES + 1)]
        window = drawn_anywhere(canvas, sides, params.window, size, generator)
    return window.picture(shown.normals[index].image, size)


Loss: TypeAlias = Callable[[slice], Tensor]  # of some pictures of a batch, the mean over them


def _adapt_decoder(backbone: Backbone, params: Params, product: str, shown: _Shown, checkpoint: Path) -> None:
    decoder = backbone.vae.decoder.requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=DECODER_RATE, weight_decay=0)

    def losses(images: Tensor, generator: torch.Generator) -> Loss:
        def loss(rows: slice) -> Tensor:
            view = images[rows].to(backbone.device)
            output = backbone.vae.decode(backbone.encode(view) / backbone.vae.config["scaling_factor"]).sample
            return reconstruction_loss(output, view, torch.zeros_like(view[:, :1], dtype=torch.bool))

        return loss

    modules, scaler = {"decoder": decoder}, new_scaler(backbone.device, torch.float32)
    _fit("decoder", params, product, shown, modules, optimizer, scaler, params.adapt.vae_steps, checkpoint, losses)
    decoder.requires_grad_(False)


def _adapt_unet(backbone: Backbone, params: Params, product: str, shown: _Shown, checkpoint: Path) -> None:
    unet, adapt = backbone.unet, params.adapt
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_("attn2" not in name)
    if params.train.checkpointing:
        recompute(unet)
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=adapt.learning_rate, weight_decay=0.01)
    prompts = [template.format(product="product") for template in NORMAL_TEMPLATES]
    with torch.no_grad():
        texts = backbone.encode_text(backbone.tokenize([*prompts, ""]))

    def losses(images: Tensor, generator: torch.Generator) -> Loss:
        count, side = len(images), backbone.latent_side(params.base.size)
        noises = torch.randn((count, int(unet.config["in_channels"]), side, side), generator=generator).to(backbone.device)
        levels = torch.randint(0, len(backbone.schedule), (count,), generator=generator).to(backbone.device)
        said = torch.randint(0, len(texts), (count,), generator=generator).to(backbone.device)

        def loss(rows: slice) -> Tensor:
            latent, noise, t = backbone.encode(images[rows], narrow=True), noises[rows], levels[rows]
            with backbone.autocast():
                predicted = unet(backbone.schedule.add_noise(latent, noise, t), t, texts[said[rows]]).sample
            return F.mse_loss(predicted.float(), velocity_or_noise(backbone, latent, noise, t))

        return loss

    scaler = new_scaler(backbone.device, backbone.dtype)
    _fit("unet", params, product, shown, {"unet": unet}, optimizer, scaler, adapt.steps, checkpoint, losses)
    unet.requires_grad_(False)


def _fit(
    name: str, params: Params, product: str, shown: _Shown, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler, steps: int, checkpoint: Path, losses: Callable[[Tensor, torch.Generator], Loss],
) -> None:  # fmt: skip
    """Steps from where the checkpoint is to the end, each batch in ``train.accumulate`` passes; the last step is kept too, since what
    comes after it may be stopped."""
    rate, passes = optimizer.param_groups[0]["lr"], params.train.accumulate
    left = Steps(f"adapt {name} {product}", steps, checkpoint, modules, optimizer, scaler)
    device = next(next(iter(modules.values())).parameters()).device
    if workers := beside(device):
        list(shown.normals)  # decoded once for all of them
    drawn = batches(partial(_views, shown, params, f"adapt-{name}", product), left.start, steps, workers)
    for step, (images, state) in zip(left, drawn, strict=True):
        generator = torch.Generator()
        generator.set_state(torch.from_numpy(state))
        optimizer.param_groups[0]["lr"] = rate * cosine(step, steps, warmup=20)
        optimizer.zero_grad()
        loss_of, total = losses(torch.from_numpy(images), generator), 0.0
        with within_memory(LEANER_TRAINING):
            for rows in in_passes(len(images), passes):
                loss = loss_of(rows) / passes
                scaler.scale(loss).backward()
                total += loss.item()
            update(optimizer, scaler)
        left.figures = {"loss": total}


def seed_everything(params: Params, *names: object) -> None:
    """Seeds torch's global stream, for layers whose initialisation draws from it."""
    torch.manual_seed(derive_seed(params.seed, *names))
