"""The embedded base's U-Net and text encoder: captions, and the words of a defect held to its mask."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cadiff.backbone import CrossAttentionTap
from cadiff.checkpoint import cosine, load_training, save_training, update_average
from cadiff.data.drawing.defects import DEFECTS
from cadiff.data.drawing.materials import COLOURS, MATERIALS
from cadiff.data.drawing.products import DEMO
from cadiff.data.drawing.shapes import SHAPES
from cadiff.pretraining.stream import EXTRA_WORDS, Stream
from cadiff.progress import Progress
from cadiff.prompt import localizing_loss
from cadiff.prompt.tokens import NORMAL_TEMPLATES, TEMPLATES
from cadiff.seeds import derive_seed, numpy_generator

PROMPT_LENGTH = 32
LOCALIZING_WEIGHT = 0.3
EMPTY_SHARE = 0.1  # prompts left out, so that guidance has something to subtract
LEARNING_RATE = 1e-3


def build_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's layout in which every word of the captions is one token."""
    phrases = [*COLOURS, *MATERIALS, *SHAPES, *DEFECTS, *EXTRA_WORDS, *TEMPLATES, *NORMAL_TEMPLATES, "surface pins"]
    phrases += [product.words for product in DEMO.values()]
    phrases += [kind.replace("_", " ") for product in DEMO.values() for kind in product.kinds]
    words = sorted({w for phrase in phrases for w in phrase.replace("{product}", "").replace("{defect}", "").split()})
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789-_.,<>")
    trainer = trainers.BpeTrainer(
        vocab_size=4000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False
    )
    bpe.train_from_iterator([*words, *letters], trainer)
    state = json.loads(bpe.to_str())["model"]
    tokens = sorted(set(state["vocab"]) | set(letters) | {f"{letter}</w>" for letter in letters})
    vocab = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    merges = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in state["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=PROMPT_LENGTH)


def build_text_encoder(tokenizer: CLIPTokenizer, width: int = 128) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=PROMPT_LENGTH, projection_dim=width,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(latent_channels: int, side: int = 16, width: int = 128) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=side, in_channels=latent_channels, out_channels=latent_channels, block_out_channels=(80, 128, 160),
        layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",) * 3,
        mid_block_type="UNetMidBlock2DCrossAttn", up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=width, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


def build_schedule() -> DDPMScheduler:
    """SD's betas brought to zero terminal SNR (small latents show their mean through SD's own), v-prediction."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Captioned:
    """Prompts as ids (n length) and where the product's and the defect's last word stand (-1: not there)."""

    ids: Tensor
    product_at: Tensor
    defect_at: Tensor


def caption(stream: Stream, chosen: np.ndarray, rng: np.random.Generator, tokenizer: CLIPTokenizer) -> Captioned:
    """Captions of the chosen pictures from random templates; some are left empty."""
    texts, products, defects = [], [], []
    for index in chosen:
        product, defect = str(stream.product[index]), str(stream.defect[index])
        if rng.random() < EMPTY_SHARE:
            text, product, defect = "", "", ""
        elif defect:
            text = str(rng.choice(TEMPLATES)).format(product=product, defect=defect)
        else:
            text = str(rng.choice(NORMAL_TEMPLATES)).format(product=product)
        texts.append(text)
        products.append(product)
        defects.append(defect)
    ids = tokenizer(texts, padding="max_length", max_length=PROMPT_LENGTH, return_tensors="pt").input_ids
    return Captioned(ids, _last_word(ids, products, tokenizer), _last_word(ids, defects, tokenizer))


def _last_word(ids: Tensor, phrases: list[str], tokenizer: CLIPTokenizer) -> Tensor:
    places = []
    for row, phrase in zip(ids.tolist(), phrases, strict=True):
        wanted = tokenizer(phrase, add_special_tokens=False).input_ids if phrase else []
        at = [i for i in range(len(row)) if wanted and row[i : i + len(wanted)] == wanted]
        places.append(at[0] + len(wanted) - 1 if at else -1)
    return torch.tensor(places)


@torch.no_grad()
def encode_stream(vae: AutoencoderDC, stream: Stream, batch: int = 50) -> Float[Tensor, "n c h w"]:
    """All pictures' latents in half precision, scaled to unit variance."""
    bar, latents = Progress("encode pictures", len(stream.image)), []
    for start in range(0, len(stream.image), batch):
        images = torch.from_numpy(stream.image[start : start + batch]).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents.append((vae.encode(images).latent * vae.config["scaling_factor"]).half())
        bar.advance(len(images))
    return torch.cat(latents)


def train_diffusion(
    stream: Stream, vae: AutoencoderDC, work: Path, steps: int, batch: int = 16, seed: int = 0
) -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer]:
    """Trains U-Net and text encoder together, going on from ``work/diffusion.safetensors``; averaged weights."""
    tokenizer, schedule = build_tokenizer(), build_schedule()
    torch.manual_seed(derive_seed(seed, "diffusion"))
    unet, text = build_unet(int(vae.config["latent_channels"])), build_text_encoder(tokenizer)
    averages = {"unet_average": copy.deepcopy(unet), "text_average": copy.deepcopy(text)}
    parameters = [*unet.parameters(), *text.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
    modules, checkpoint = {"unet": unet, "text": text, **averages}, work / "diffusion.safetensors"
    start, latents = load_training(checkpoint, modules, optimiser), encode_stream(vae, stream)
    bar, saved = Progress("diffusion", steps, start), time.monotonic()
    with CrossAttentionTap(unet) as tap:
        for step in range(start, steps):
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * cosine(step, steps, warmup=300)
            rng = numpy_generator(seed, "diffusion", step)
            chosen = rng.integers(0, len(latents), batch)
            captioned = caption(stream, chosen, rng, tokenizer)
            masks = torch.from_numpy(stream.mask[chosen])[:, None]
            generator = torch.Generator().manual_seed(derive_seed(seed, "diffusion-noise", step))
            latent = latents[torch.from_numpy(chosen)].float()
            noise = torch.randn(latent.shape, generator=generator)
            t = torch.randint(0, 1000, (batch,), generator=generator)
            tap.clear()
            with torch.autocast("cpu", torch.bfloat16):
                hidden = text(captioned.ids)[0]
                predicted = unet(schedule.add_noise(latent, noise, t), t, hidden).sample
            denoising = F.mse_loss(predicted.float(), schedule.get_velocity(latent, noise, t))
            positions = torch.stack([captioned.product_at, captioned.defect_at], 1)
            localizing = localizing_loss(tap.maps, positions, torch.cat([~masks, masks], 1), balanced=True) / len(tap.maps)
            optimiser.zero_grad()
            (denoising + LOCALIZING_WEIGHT * localizing).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            decay = min(0.999, (step + 1) / (step + 10))
            update_average(averages["unet_average"], unet, decay)
            update_average(averages["text_average"], text, decay)
            bar.advance(1, {"denoising": denoising.item(), "localizing": localizing.item()})
            if time.monotonic() - saved > 120 or step + 1 == steps:
                save_training(checkpoint, step + 1, modules, optimiser)
                saved = time.monotonic()
    return averages["unet_average"], averages["text_average"], tokenizer
