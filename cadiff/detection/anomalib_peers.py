"""Detectors that anomalib implements, trained on a product's normal images alone: DRAEM, DRAEM with SSPCAB, RD4AD, CFA.

Networks, losses and simulated anomalies are anomalib's (an optional extra), as are the optimisers' settings; the loop is
this package's, so that a run is seeded and resumes. Two departures, both named in the rows' variant: so many steps, and
DRAEM's textures are scikit-image's three CC0 ones, tinted (paper: the Describable Textures Dataset). RD4AD and CFA want the ImageNet
weights of their backbone (``peers.weights``); nothing is downloaded. A peer sees the whole of a picture stretched to a square
(``View.square``); its maps are brought back to the picture's own shape.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from skimage import data
from torch import Tensor, nn

from cadiff.checkpoint import Steps
from cadiff.detection.measuring import Scores, resized
from cadiff.detection.tiles import View
from cadiff.detection.trained import read_weights
from cadiff.devices import autocast, pick_device, pick_dtype
from cadiff.errors import CADiffError, UsageError
from cadiff.metrics.networks import find_weights, load_weights
from cadiff.params import Params
from cadiff.pictures import Pictures, resize_picture
from cadiff.records import SampleRow
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.storage import digest, write_bytes, write_tensors
from cadiff.task import Task

BACKBONE_SIDE = 256  # pixels, as the papers of RD4AD and CFA have it; DRAEM sees images at the square's own side
BETA = (0.1, 1.0)  # DRAEM's opacity
TINT = 0.5  # the textures are grey: a channel is brighter or darker by at most this share
SSPCAB_WEIGHT = 0.1  # anomalib's sspcab_lambda
LAYERS = ["layer1", "layer2", "layer3"]
FROZEN = ("encoder.", "feature_extractor.")  # the backbone: read from its own file again
WHITE = 2.0  # a distance's map is shown up to this multiple of the largest score of a training image
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_BATCH = 8
Image = UInt8[np.ndarray, "s s 3"]


@dataclass(frozen=True)
class Network:
    """One of anomalib's models and what it takes to train it. ``loss`` is of a batch of normal images as it takes them."""

    model: nn.Module
    loss: Callable[[Float[Tensor, "b 3 s s"]], Tensor]
    optimizer: torch.optim.Optimizer
    backbone: str | None = None  # then it takes images as that ImageNet network does, and its maps are distances, no probabilities
    drops: tuple[float, ...] = ()  # the shares of the steps after which the learning rate falls to a tenth
    prepare: Callable[[Iterator[Tensor]], None] | None = None  # before the first step, from all normal images


@dataclass(frozen=True)
class Fitted:
    """A trained detector; scores are anomalib's."""

    network: Network
    view: View
    device: torch.device
    white: float
    made: str
    variant: str
    black: float = 0.0

    def score(self, rows: Sequence[SampleRow]) -> Scores:
        side = self.view.square()
        squares, images = scores(self.network, [resize_picture(self.view.read(row).image, (side, side)) for row in rows], self.device)
        return Scores([resized(map_, self.view.shape(row)) for map_, row in zip(squares, rows, strict=True)], images)


class Squares(Sequence[Image]):
    """Pictures at a detector's scale, each stretched to the square that a peer sees when it is asked for."""

    def __init__(self, rows: Sequence[SampleRow], view: View) -> None:
        self.pictures, self.side = Pictures(rows, view.canvas, seen=view.seen), view.square()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Image:  # type: ignore[override]
        return resize_picture(self.pictures[index].image, (self.side, self.side))


def fit_anomalib(task: Task, seed: int, out: Path, work: Path) -> None:
    """Writes ``out/seed-<seed>.safetensors``; goes on from the checkpoint in ``work``.

    Raises:
        UsageError: if anomalib is not installed, a backbone's weights are not there, or pictures are too small.
        CADiffError: if there are no train normals, training diverges, or the checkpoint is broken.
    """
    rows = [row for row in task.samples if row.product == task.product and row.role == "normal"]
    if not rows:
        raise CADiffError(f"{task.product}: expected normal images to train on, found none. Check dataset.root.")
    device, stream = pick_device(task.params.base.device), (seed, "peer", task.method, task.product)
    checkpoint, finished = (Path(work) / f"{name}seed-{seed}.safetensors" for name in ("", "finished-"))
    if not finished.exists():
        images = Squares(rows, View.of(task.params))
        network = build(task.params, task.method, stream, device)
        _train(task.params, network, images, stream, checkpoint, device)
        tensors, about = _result(network, images, device)
        write_tensors(finished, tensors, identity(task, seed) | about | {"variant": variant(task.params, task.method, network)})
        checkpoint.unlink(missing_ok=True)  # a gigabyte for DRAEM
    write_bytes(Path(out) / f"seed-{seed}.safetensors", finished.read_bytes())


def _result(network: Network, images: Sequence[Image], device: torch.device) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What is kept: all but the backbone, matrices in half precision; and how bright its maps are shown."""
    largest = max(float(scores(network, [images[index]], device)[0].max()) for index in range(len(images)))
    white = 1.0 if network.backbone is None else WHITE * largest or 1.0
    state, halved = network.model.state_dict(), {name for name, value in network.model.named_parameters() if value.ndim > 1}
    kept = {name: value for name, value in state.items() if not name.startswith(FROZEN)}
    return {name: value.half() if name in halved else value for name, value in kept.items()}, {"white": repr(white)}


def load_anomalib(task: Task, seed: int, out: Path) -> Fitted:
    """What ``fit_anomalib`` wrote.

    Raises:
        UsageError: as ``fit_anomalib``.
        CADiffError: if the file is not there, not whole, or not of this product, method, seed and settings.
    """
    path, device = Path(out) / f"seed-{seed}.safetensors", pick_device(task.params.base.device)
    tensors, metadata = read_weights(path, identity(task, seed), "Fit again.")
    network = build(task.params, task.method, (seed, "peer", task.method, task.product), device)
    absent = network.model.load_state_dict(tensors, strict=False)
    if lost := [name for name in absent.missing_keys if not name.startswith(FROZEN)] + absent.unexpected_keys:
        raise CADiffError(f"{path}: expected the weights of {task.method}, found none for {lost[0]}, or none of its own. Fit again.")
    made = digest([metadata, *(value.double().sum().item() for value in tensors.values())])
    return Fitted(network, View.of(task.params), device, float(metadata["white"]), made, metadata["variant"])


def identity(task: Task, seed: int) -> dict[str, str]:
    settings = digest(task.params.peers.model_dump())
    view = View.of(task.params)
    named = {"method": task.method, "product": task.product, "seed": seed}
    values = {"canvas": view.canvas, "size": view.square(), **named, "settings": settings}
    return {name: str(value) for name, value in values.items()}


def variant(params: Params, method: str, network: Network) -> str:
    """``draem(anomalib-2.7.0,steps=400,textures=3)``, ``rd4ad(anomalib-2.7.0,steps=400,wide_resnet50_2)``."""
    own = network.backbone or "textures=3"
    return f"{method}(anomalib-{importlib.metadata.version('anomalib')},steps={params.peers.steps},{own})"


def build(params: Params, method: str, stream: tuple[Any, ...], device: torch.device) -> Network:
    """An untrained network, its first weights drawn from ``stream``."""
    try:
        import anomalib  # noqa: F401
    except ImportError:
        raise UsageError(f'methods.detectors: {method} needs anomalib, which is not installed. pip install -e ".[anomalib]"') from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(stream[0], *stream[1:], "weights"))
        if method in ("draem", "sspcab"):
            return _draem(device, method == "sspcab")
        return {"rd4ad": _rd4ad, "cfa": _cfa}[method](params, device)


def _draem(device: torch.device, sspcab: bool) -> Network:
    """Zavrtanik et al. (ICCV 2021); SSPCAB in its encoder: Ristea et al. (CVPR 2022)."""
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.draem.torch_model import DraemModel

    model, objective = DraemModel(sspcab=sspcab).to(device), DraemLoss().to(device)
    simulate = simulator()
    seen: dict[str, Tensor] = {}  # what goes into SSPCAB's block, and what it predicts of it
    if sspcab:
        encoder = model.reconstructive_subnetwork.encoder
        encoder.mp4.register_forward_hook(lambda module, given, found: seen.update(given=found))
        encoder.block5.register_forward_hook(lambda module, given, found: seen.update(predicted=found))

    def loss(images: Tensor) -> Tensor:
        shown, masks = simulate(images)
        reconstruction, prediction = model(shown)
        total: Tensor = objective(images, reconstruction.float(), masks, prediction.float())
        return total + SSPCAB_WEIGHT * F.mse_loss(seen["predicted"].float(), seen["given"].float()) if sspcab else total

    return Network(model, loss, torch.optim.Adam(model.parameters(), lr=1e-4), drops=(4 / 7, 6 / 7))


def simulator() -> Callable[[Float[Tensor, "b 3 h w"]], tuple[Tensor, Tensor]]:
    """anomalib's: images in [0, 1] to what DRAEM is shown of them, and its masks (b 1 h w).

    Its own textures would be read from files by torchvision, whose reader not every build has, so they are handed to it here.
    """
    from anomalib.data.utils.generators import PerlinAnomalyGenerator

    textures = [torch.from_numpy(texture).float() / 255 for texture in (data.brick(), data.grass(), data.gravel())]

    class Textured(PerlinAnomalyGenerator):
        def generate_perturbation(
            self, height: int, width: int, device: torch.device | None = None, anomaly_source_path: Path | str | None = None
        ) -> tuple[Tensor, Tensor]:  # fmt: skip
            mask = super().generate_perturbation(height, width, device)[1]
            texture = textures[int(torch.randint(len(textures), ()))]
            window = int(torch.randint(min(height, len(texture)), len(texture) + 1, ()))
            y, x = (int(place) for place in torch.randint(len(texture) - window + 1, (2,)))
            cut = texture[None, None, y : y + window, x : x + window]
            grey = F.interpolate(cut, (height, width), mode="bilinear", antialias=True, align_corners=False)[0]
            tinted = (grey * (1 + TINT * (2 * torch.rand(3, 1, 1) - 1))).clamp(0, 1).to(mask.device)
            return self.augmenters(tinted).permute(1, 2, 0) * mask, mask

    return Textured(blend_factor=BETA)


def _rd4ad(params: Params, device: torch.device) -> Network:
    """Deng and Li, "Anomaly Detection via Reverse Distillation" (CVPR 2022)."""
    from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode
    from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss
    from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel

    path, tag = _weights(params)
    model = ReverseDistillationModel(
        params.peers.backbone, (BACKBONE_SIDE, BACKBONE_SIDE), LAYERS, AnomalyMapGenerationMode.ADD, pre_trained=False
    )
    encoder = model.encoder.feature_extractor
    load_weights(path, encoder, lambda name: name if name in encoder.state_dict() else None)
    model.to(device)
    objective = ReverseDistillationLoss()

    def loss(images: Tensor) -> Tensor:
        known, redrawn = model(images)
        apart: Tensor = objective([level.float() for level in known], [level.float() for level in redrawn])
        return apart

    learnt = [*model.decoder.parameters(), *model.bottleneck.parameters()]
    return Network(model, loss, torch.optim.Adam(learnt, lr=0.005, betas=(0.5, 0.99)), f"{params.peers.backbone}{tag}")


def _cfa(params: Params, device: torch.device) -> Network:
    """Lee et al., "CFA: Coupled-hypersphere-based Feature Adaptation" (IEEE Access 2022)."""
    import torchvision.models
    from anomalib.models.image.cfa import torch_model
    from anomalib.models.image.cfa.loss import CfaLoss
    from torch.fx import GraphModule
    from torchvision.models.feature_extraction import create_feature_extractor

    path, tag = _weights(params)

    def features(backbone: str, return_nodes: list[str]) -> GraphModule:
        network = getattr(torchvision.models, backbone)(weights=None)
        load_weights(path, network)
        extractor: GraphModule = create_feature_extractor(network, return_nodes)
        extractor.requires_grad_(False).eval()
        return extractor

    settings: dict[str, Any] = {"num_nearest_neighbors": 3, "num_hard_negative_features": 3, "radius": 1e-5}
    downloading, torch_model.get_feature_extractor = torch_model.get_feature_extractor, features  # it has no way to be given weights
    try:
        model = torch_model.CfaModel(params.peers.backbone, gamma_c=1, gamma_d=1, **settings).to(device)
    finally:
        torch_model.get_feature_extractor = downloading
    objective = CfaLoss(**settings)
    objective.radius = objective.radius.detach()  # else a second backward pass finds the first one's graph gone
    learnt = list(model.descriptor.parameters())
    optimizer = torch.optim.AdamW(learnt, lr=1e-3, weight_decay=5e-4, amsgrad=True)

    @torch.no_grad()
    def prepare(batches: Iterator[Tensor]) -> None:
        """Its ``initialize_centroid`` without its bar, and each image of one weight, however they fall into batches."""
        total, count = torch.zeros((), device=device), 0
        for batch in batches:
            total, count = total + model.descriptor(model.feature_extractor(batch)).sum(dim=0), count + len(batch)
        model.memory_bank = (total / count).flatten(1)  # channels x cells

    def loss(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):  # distances are small differences of large squares
            apart: Tensor = objective(model(images))
        return apart

    return Network(model, loss, optimizer, f"{params.peers.backbone}{tag}", prepare=prepare)


def _weights(params: Params) -> tuple[Path, str]:
    found = find_weights(params.peers.backbone, params.peers.weights, "peers.weights")
    if found is None:
        raise UsageError(
            "peers.weights: RD4AD and CFA start from a backbone's ImageNet weights; expected hub (torch's cache) or a file, found null"
        )
    return found


def _train(
    params: Params, network: Network, images: Sequence[Image], stream: tuple[Any, ...], checkpoint: Path, device: torch.device
) -> None:
    """The batch and the simulated anomalies of a step depend on its number alone."""
    settings, optimizer, model = params.peers, network.optimizer, network.model
    rate, total, dtype = optimizer.param_groups[0]["lr"], settings.steps, pick_dtype(params.base.dtype, device)
    left = Steps(f"train {stream[3]} {stream[2]} seed {stream[0]}", total, checkpoint, {"model": model}, optimizer, keeps_last=False)
    if left.start == 0 and network.prepare is not None:
        model.eval()  # in training mode a backbone's statistics would follow these images
        starts = range(0, len(images), _BATCH)
        network.prepare(as_taken(network, [images[k] for k in range(len(images))[start : start + _BATCH]], device) for start in starts)
    model.train()
    for step in left:
        chosen = numpy_generator(stream[0], *stream[1:], step).integers(len(images), size=settings.batch)
        optimizer.param_groups[0]["lr"] = rate * 0.1 ** sum(step >= share * total for share in network.drops)
        with torch.random.fork_rng(devices=[]), autocast(device, dtype):
            torch.manual_seed(derive_seed(stream[0], *stream[1:], step))
            loss = network.loss(as_taken(network, [images[int(k)] for k in chosen], device))
        if not torch.isfinite(loss):
            raise CADiffError(f"{stream[3]}: {stream[2]}: the loss is {loss.item()} at step {step}; training has diverged.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        left.figures = {"loss": loss.detach()}


def as_taken(network: Network, images: Sequence[Image], device: torch.device) -> Float[Tensor, "n 3 s s"]:
    """Pixels in [0, 1] for DRAEM; for a backbone at 256 px and with ImageNet's mean and deviation taken off."""
    pixels = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))).float().to(device) / 255
    if network.backbone is None:
        return pixels
    shown = F.interpolate(pixels, (BACKBONE_SIDE, BACKBONE_SIDE), mode="bilinear", antialias=True, align_corners=False)
    mean, deviation = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (shown - mean) / deviation


@torch.no_grad()
def scores(
    network: Network, images: Sequence[Image], device: torch.device
) -> tuple[Float[np.ndarray, "n s s"], Float[np.ndarray, " n"]]:
    """anomalib's maps brought to the images' side, and its image scores."""
    network.model.eval()
    side, maps, whole = images[0].shape[:2], [], []
    for start in range(0, len(images), _BATCH):
        found = network.model(as_taken(network, images[start : start + _BATCH], device))
        map_ = found.anomaly_map.float().reshape(-1, 1, *found.anomaly_map.shape[-2:])
        maps.append(F.interpolate(map_, side, mode="bilinear", antialias=True, align_corners=False)[:, 0].cpu().numpy())
        whole.append(found.pred_score.float().flatten().cpu().numpy())
    return np.concatenate(maps), np.concatenate(whole)
