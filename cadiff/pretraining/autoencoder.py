"""The embedded base's autoencoder: trained on drawn pictures and on photographs that packages ship."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC
from jaxtyping import Float
from torch import Tensor

from cadiff.backbone.reconstruction import reconstruction_loss
from cadiff.checkpoint import Steps, cosine, update_average
from cadiff.data.workers import batches, beside
from cadiff.devices import autocast, pick_dtype
from cadiff.pretraining.photographs import crop_of, photographs
from cadiff.pretraining.reached import check_reached
from cadiff.pretraining.stream import VIEWS, Stream
from cadiff.seeds import derive_seed, numpy_generator

LATENT_CHANNELS = 24
WIDTHS = (8, 32, 128)  # a factor of 4 from level to level, so that the shortcuts are exact pixel (un)shuffles
SPREAD = 0.75  # of the latents, between 1 (as pixels: coarse is loud, fine is quiet) and 0 (all alike)
SAMPLER_NOISE = 0.2  # what a small base's sampler leaves in latents of unit variance, at most; the decoder learns to clear it
LEARNING_RATE = 5e-4
CPU = torch.device("cpu")
LATENT_NOISE = 0.05  # the decoder must bear what a sampler leaves; latents are kept near unit variance


def build_autoencoder(patches: Float[Tensor, "n 48"], latent_channels: int = LATENT_CHANNELS) -> AutoencoderDC:
    """Reduction 4 (64 px become 16x16 cells), started as the best linear code of 4x4 pixel patches.

    A decoder that repeats pixels upwards cannot draw what is finer than a cell until it has learnt where in the cell
    it is; pixel shuffling can from the first step. So the network starts as principal component analysis of
    ``patches`` (in pixel-unshuffled order) and learns what is not linear on top of it.
    """
    empty: tuple[tuple[int, ...], ...] = ((), (), ())
    model = AutoencoderDC(
        in_channels=3, latent_channels=latent_channels, attention_head_dim=32,
        encoder_block_types="ResBlock", decoder_block_types="ResBlock",
        encoder_block_out_channels=WIDTHS, decoder_block_out_channels=WIDTHS,
        encoder_layers_per_block=(0, 1, 2), decoder_layers_per_block=(0, 1, 3),
        encoder_qkv_multiscales=empty, decoder_qkv_multiscales=empty,
        encoder_out_shortcut=False, decoder_in_shortcut=False, decoder_norm_types="rms_norm", scaling_factor=1.0,
    )  # fmt: skip
    _start_linear(model, patches, latent_channels)
    return model


@torch.no_grad()
def _start_linear(model: AutoencoderDC, patches: Float[Tensor, "n 48"], channels: int) -> None:
    for name, parameter in model.named_parameters():
        if ".norm." in name or name.endswith("norm.weight"):
            parameter.zero_()
    # 3 colours as 7 features, without loss. The eighth is a large constant: beside it the decoder's last RMS norm
    # divides by almost the same number everywhere, and its ReLU is passed by an offset; so both start as linear.
    lift = torch.cat([torch.linalg.qr(torch.randn(7, 3))[0], torch.zeros(1, 3)])
    constant, offset = 20.0, 1.2
    encoder, decoder = model.encoder, model.decoder
    encoder.conv_in.conv.weight.zero_()[:, :, 1, 1] += lift
    encoder.conv_in.conv.bias.zero_()
    for block in (encoder.down_blocks[1][-1], decoder.up_blocks[1][0]):
        block.conv.weight.zero_()
        block.conv.bias.zero_()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    values, vectors = values.flip(0)[:channels], vectors.flip(1)[:, :channels]
    # between no whitening (fine channels drown in noise at once) and full (they cost as much as the coarse ones)
    spread = (values / values.mean()).pow(0.25)
    spread = spread / spread.square().mean().sqrt()
    code = (vectors / values.sqrt() * spread).T
    lifted = torch.kron(torch.eye(16), lift.contiguous())  # (128, 48): features of a cell from its pixels, position-major
    order = _feature_order()
    encoder.conv_out.weight.zero_()[:, order, 1, 1] += code @ lifted.T
    encoder.conv_out.bias.copy_(-code @ mean)
    decoder.conv_in.weight.zero_()[order, :, 1, 1] += lifted @ (vectors * values.sqrt() / spread)
    decoder.conv_in.bias[order] = lifted @ mean + constant * torch.eye(8)[7].repeat(16)
    decoder.norm_out.weight.fill_(constant * (4 / WIDTHS[1]) ** 0.5)
    decoder.norm_out.bias.fill_(offset)
    out = torch.zeros(12, 32)
    for position in range(4):
        for colour in range(3):
            out[colour * 4 + position, torch.arange(8) * 4 + position] = lift[:, colour]
    decoder.conv_out.conv.weight.zero_()[:, :, 1, 1] += out
    decoder.conv_out.conv.weight[:, 7 * 4 :] = 0
    decoder.conv_out.conv.bias.copy_(-offset * out.sum(1))


@torch.no_grad()
def spread_latents(model: AutoencoderDC, images: Float[Tensor, "b 3 h w"], spread: float = SPREAD) -> None:
    """Turns and scales the latents, without changing what is decoded, so that their spread follows the pixels' own.

    A diffusion model draws coarse to fine where fine channels are quiet, as in pixels: noise hides them first.
    With all channels alike it must settle everything at once, and a small one draws speckle. The best linear map from
    latents to 4x4 patches tells what a latent is in pixels; along its principal axes, with standard deviation d in
    pixels, latents get the standard deviation d^spread. Both layers at the code are linear, so they take it up.
    """
    latents, patches = model.encode(images).latent.movedim(1, -1).flatten(0, 2), F.pixel_unshuffle(images, 4).movedim(1, -1).flatten(0, 2)
    latents, patches = (latents - latents.mean(0)).double(), (patches - patches.mean(0)).double()
    in_pixels = latents @ torch.linalg.lstsq(latents, patches).solution
    channels = latents.shape[1]
    deviations, axes = torch.linalg.eigh(in_pixels.T @ in_pixels / len(in_pixels))
    axes, deviations = axes[:, -channels:].flip(1), deviations[-channels:].flip(0).sqrt()
    turn = torch.linalg.lstsq(latents, in_pixels @ axes * deviations.pow(spread - 1)).solution.T  # new = turn @ old
    encoder, decoder = model.encoder.conv_out, model.decoder.conv_in
    encoder.weight.copy_(torch.einsum("no,oihw->nihw", turn, encoder.weight.double()))
    encoder.bias.copy_(turn @ encoder.bias.double())
    decoder.weight.copy_(torch.einsum("oihw,in->onhw", decoder.weight.double(), torch.linalg.inv(turn)))


def _feature_order() -> Tensor:
    """For (pixel of the 4x4 cell row by row, feature) the channel that two pixel-unshuffles put it in, flattened."""
    index = torch.arange(8 * 16).view(1, 128, 1, 1)
    placed = F.pixel_shuffle(F.pixel_shuffle(index.float(), 2), 2)[0].long()  # (8, 4, 4)
    return placed.permute(1, 2, 0).reshape(-1)


def patches_of(images: np.ndarray, count: int = 60000, seed: int = 0) -> Float[Tensor, "n 48"]:
    """4x4 pixel patches in [-1, 1] of uint8 images (n s s 3), row by row, colours last."""
    n, side = images.shape[:2]
    cells = images.reshape(n, side // 4, 4, side // 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 48)
    chosen = numpy_generator(seed, "patches").integers(0, len(cells), count)
    return torch.from_numpy(cells[chosen]).float() / 127.5 - 1


def vary_colours(image: Float[Tensor, "b 3 h w"], rng: np.random.Generator) -> Float[Tensor, "b 3 h w"]:
    """Grey for a third, and brightness, contrast and colour balance varied; values stay in [-1, 1]."""
    b = len(image)

    def drawn(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (b, channels, 1, 1))).float()

    grey = image.mean(1, keepdim=True).expand_as(image)
    image = torch.where(torch.from_numpy(rng.random((b, 1, 1, 1)) < 0.33), grey, image * drawn(0.85, 1.15, 3))
    return (image * drawn(0.5, 1.1) + drawn(-0.25, 0.25)).clamp(-1, 1)


def _batch(stream: Stream, seed: int, batch: int, step: int) -> tuple[Tensor, Tensor]:
    rng, photos = numpy_generator(seed, "autoencoder", step), photographs()
    chosen = rng.integers(0, len(stream.image), batch)
    image, mask = stream.image[chosen].copy(), stream.mask[chosen].copy()
    for slot in range(batch // 5):
        image[slot], mask[slot] = crop_of(photos[int(rng.integers(len(photos)))], rng, image.shape[1], rng.random() < 1 / VIEWS), False
    if rng.random() < 0.5:
        image, mask = image[:, :, ::-1], mask[:, :, ::-1]
    pixels = torch.from_numpy(image.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    return vary_colours(pixels, rng), torch.from_numpy(mask.copy())[:, None]


def train_autoencoder(
    stream: Stream, work: Path, steps: int, batch: int = 16, seed: int = 0, device: torch.device = CPU, workers: int = 0
) -> AutoencoderDC:
    """Trains the autoencoder, going on from ``work/autoencoder.safetensors`` if there; returns the averaged weights."""
    torch.manual_seed(derive_seed(seed, "autoencoder"))
    model = build_autoencoder(patches_of(stream.image[:2000])).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    left = Steps("autoencoder", steps, work / "autoencoder.safetensors", {"model": model, "average": average}, optimiser)
    dtype = pick_dtype("auto", device)
    drawn = batches(partial(_batch, stream, seed, batch), left.start, steps, beside(device, workers), ahead=4)
    for step, (pixels, mask) in zip(left, drawn, strict=True):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * cosine(step, steps)
        image, mask = pixels.to(device, memory_format=torch.channels_last), mask.to(device)
        generator = torch.Generator(device).manual_seed(derive_seed(seed, "autoencoder-noise", step))
        with autocast(device, dtype):
            latent = model.encode(image).latent.float()
            noisy = latent + LATENT_NOISE * torch.randn(latent.shape, generator=generator, device=device)
            output = model.decode(noisy).sample.float()
        loss = reconstruction_loss(output, image, mask)
        scale = (latent.square().mean() - 1).square() + latent.mean((0, 2, 3)).square().mean()
        optimiser.zero_grad()
        (loss + 0.1 * scale).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        update_average(average, model, min(0.998, (step + 1) / (step + 10)))
        psnr = -10 * torch.log10((output - image).detach().square().mean() / 4 + 1e-12)
        left.figures = {"loss": loss.detach(), "psnr": psnr, "scale": scale.detach()}
    return average


def train_decoder(
    vae: AutoencoderDC, stream: Stream, work: Path, steps: int, batch: int = 16, seed: int = 0, workers: int = 0
) -> None:
    """Teaches the decoder, in place, to clear the grain that a sampler leaves; goes on from ``work/decoder.safetensors``.

    A linear code hands every error of a latent on to the pixels. Latents get noise of a strength drawn per picture, from
    none to ``SAMPLER_NOISE``, so that clean ones are decoded as before.

    Raises:
        UsageError: if the checkpoint is beyond ``steps``.
    """
    vae.requires_grad_(False)
    decoder, scale = vae.decoder.requires_grad_(True).train(), vae.config["scaling_factor"]
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=3e-4, weight_decay=1e-4)
    checkpoint, average = work / "decoder.safetensors", copy.deepcopy(decoder)
    left = Steps("decoder", steps, checkpoint, {"decoder": decoder, "average": average}, optimiser)
    check_reached(checkpoint, left.start, steps, "--decoder-steps")
    device = vae.device
    dtype, draw = pick_dtype("auto", device), partial(_batch, stream, derive_seed(seed, "decoder"), batch)
    for step, (pixels, mask) in zip(left, batches(draw, left.start, steps, beside(device, workers), ahead=4), strict=True):
        optimiser.param_groups[0]["lr"] = 3e-4 * cosine(step, steps, warmup=30)
        image, mask = pixels.to(device), mask.to(device)
        generator = torch.Generator(device).manual_seed(derive_seed(seed, "decoder-noise", step))
        strength = SAMPLER_NOISE * torch.rand(batch, 1, 1, 1, generator=generator, device=device)
        with autocast(device, dtype):
            latent = vae.encode(image).latent.float()
            noisy = latent + strength / scale * torch.randn(latent.shape, generator=generator, device=device)
            output = vae.decode(noisy).sample.float()
        loss = reconstruction_loss(output, image, mask)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        update_average(average, decoder, min(0.99, (step + 1) / (step + 10)))
        left.figures = {"loss": loss.detach()}
    decoder.load_state_dict(average.state_dict())
    vae.requires_grad_(False).eval()
