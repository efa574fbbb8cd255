"""The embedded base's U-Net, text encoder and spatial control: captions, and the words of a defect held to its mask.

From step ``CONTROL_FROM`` on every other step is drawn under a mask, through the ControlNet and SAIM that product training
then starts from. A good picture comes with another picture's mask and must stay as it is: the word carries the defect,
not the mask's shape.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cadiff.backbone import Backbone, CrossAttentionTap
from cadiff.checkpoint import Steps, cosine, update_average
from cadiff.control import SpatialControl
from cadiff.data.drawing.defects import DEFECTS
from cadiff.data.drawing.materials import COLOURS, MATERIALS
from cadiff.data.drawing.products import DEMO
from cadiff.data.drawing.shapes import SHAPES
from cadiff.data.workers import batches, beside
from cadiff.devices import autocast, pick_dtype
from cadiff.errors import UsageError
from cadiff.params import ControlParams
from cadiff.pretraining.graphs import Figures, RecordedPasses
from cadiff.pretraining.reached import check_reached
from cadiff.pretraining.stream import EXTRA_WORDS, Stream
from cadiff.progress import Progress
from cadiff.prompt import localizing_loss
from cadiff.prompt.tokens import NORMAL_TEMPLATES, TEMPLATES
from cadiff.seeds import numpy_generator

PROMPT_LENGTH = 32
REDUCTION = 4  # pixels per latent cell, along a side
LOCALIZING_WEIGHT = 0.3
EMPTY_SHARE = 0.1  # prompts left out, so that guidance has something to subtract
GENERAL_SHARE = 0.15  # captions that say "product" or "anomaly": the words that learnable tokens start from
DEFECT_WEIGHT = 4.0  # a defect covers a few per cent of a picture, and is what the base is for
CONTROL_FROM = 1960  # by this step, of batch 16, the encoder is worth copying; no share of the steps: a training may be given more
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


def caption(
    stream: Stream, chosen: np.ndarray, rng: np.random.Generator, tokenizer: CLIPTokenizer, general: float = 0.0, masked: bool = False
) -> Captioned:
    """Captions of the chosen pictures from random templates; some are left empty.

    ``general`` is the share of products and of defects that are called no more than "product" and "anomaly". Beside a
    mask (``masked``) a picture with a defect always has a caption: no word, no defect.
    """
    texts, products, defects = [], [], []
    for index in chosen:
        product = "product" if rng.random() < general else str(stream.product[index])
        defect = "anomaly" if stream.defect[index] and rng.random() < general else str(stream.defect[index])
        if rng.random() < EMPTY_SHARE and not (masked and defect):
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
    places, known = [], {phrase: tokenizer(phrase, add_special_tokens=False).input_ids for phrase in set(phrases) if phrase}
    for row, phrase in zip(ids.tolist(), phrases, strict=True):
        wanted = known.get(phrase, [])
        at = [i for i in range(len(row)) if wanted and row[i : i + len(wanted)] == wanted]
        places.append(at[0] + len(wanted) - 1 if at else -1)
    return torch.tensor(places)


@torch.no_grad()
def encode_stream(vae: AutoencoderDC, stream: Stream, batch: int = 50) -> Float[Tensor, "n c h w"]:
    """All pictures' latents in half precision, scaled to unit variance."""
    bar, latents = Progress("encode pictures", len(stream.image)), []
    for start in range(0, len(stream.image), batch):
        images = torch.from_numpy(stream.image[start : start + batch]).to(vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents.append((vae.encode(images).latent * vae.config["scaling_factor"]).half())
        bar.advance(len(images))
    return torch.cat(latents)


@dataclass(frozen=True)
class Parts:
    """All that is trained here, in float32."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    control: SpatialControl
    tokenizer: CLIPTokenizer
    control_trained: bool  # before: then it is not copied again

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text": self.text, "control": self.control}

    def to(self, device: torch.device) -> Parts:
        for module in self.modules.values():
            module.to(device)
        return self

    @classmethod
    def new(cls, vae: AutoencoderDC) -> Parts:
        tokenizer = build_tokenizer()
        unet, text = build_unet(int(vae.config["latent_channels"])), build_text_encoder(tokenizer)
        return cls(unet, text, SpatialControl.copy_of(unet, REDUCTION, ControlParams(start="copy")), tokenizer, False).to(vae.device)

    @classmethod
    def of(cls, base: Backbone) -> Parts:
        """A base's own parts, to be trained further; one without a control gets a copy of its encoder."""
        tokenizer = base.tokenizer
        if tokenizer.get_vocab() != build_tokenizer().get_vocab():
            raise UsageError("--start: this base has another vocabulary than the captions; train from scratch")
        params = ControlParams(start="base" if base.brings_control else "copy")
        parts = cls(base.unet, base.text_encoder, SpatialControl.started(base, params), tokenizer, base.brings_control)
        for module in parts.modules.values():
            module.requires_grad_(True).train()
        return parts


def train_diffusion(
    parts: Parts, stream: Stream, vae: AutoencoderDC, work: Path, steps: int, batch: int = 16, seed: int = 0,
    control_from: int = CONTROL_FROM, workers: int = 0, learning_rate: float = LEARNING_RATE,
) -> Parts:  # fmt: skip
    """Trains ``parts`` together, going on from ``work/diffusion.safetensors``; returns their averaged weights.

    A control that was not trained before is a copy of the encoder at step ``control_from``, and trained from there on.

    Raises:
        UsageError: if the checkpoint is beyond ``steps``, or so few steps leave such a control untrained.
    """
    if steps <= control_from and not parts.control_trained:
        raise UsageError(f"--diffusion-steps: expected more than --control-from {control_from}, found {steps}")
    schedule, average = build_schedule(), copy.deepcopy(parts)
    if vae.device.type == "cpu":  # there, at these sizes, plain matrix products are a fifth faster than the fused kernel
        parts.unet.set_attn_processor(AttnProcessor())
        parts.control.controlnet.set_attn_processor(AttnProcessor())
    parameters = [p for module in parts.modules.values() for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01, fused=True)
    checkpoint = work / "diffusion.safetensors"
    kept = {**parts.modules, **{f"{name}_average": module for name, module in average.modules.items()}}
    left = Steps("diffusion", steps, checkpoint, kept, optimiser)
    check_reached(checkpoint, left.start, steps, "--diffusion-steps")
    if left.start == steps:
        return average
    latents, device = encode_stream(vae, stream), vae.device
    began = 0 if parts.control_trained else control_from
    drawn = batches(partial(draw_batch, stream, parts.tokenizer, batch, seed, began), left.start, steps, beside(device, workers), ahead=4)
    with CrossAttentionTap(parts.unet) as tap:

        def passes(noised: Noised) -> Figures:
            tap.clear()
            optimiser.zero_grad()
            loss, figures = _loss(parts, tap, noised)
            loss.backward()
            return figures

        learn = RecordedPasses(passes, parameters) if device.type == "cuda" else passes
        for step, said in zip(left, drawn, strict=True):
            if step == control_from and not parts.control_trained:
                for each in (parts, average):
                    each.control.copy_encoder(each.unet)
            optimiser.param_groups[0]["lr"] = learning_rate * cosine(step, steps, warmup=300)
            left.figures = learn(_noised(schedule, latents, said.to(device)))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            for name, module in average.modules.items():
                update_average(module, parts.modules[name], min(0.999, (step + 1) / (step + 10)))
    return average


@dataclass(frozen=True)
class Batch:
    """What a step learns from: pictures by number, their captions and masks, and the seed of its noise.

    ``shown`` are the control's masks (b 1 s s), None where the step is drawn without one.
    """

    chosen: Tensor
    captioned: Captioned
    masks: Tensor
    shown: Tensor | None
    seed: int

    def to(self, device: torch.device) -> Batch:
        captioned = Captioned(*(getattr(self.captioned, f.name).to(device) for f in fields(Captioned)))
        shown = None if self.shown is None else self.shown.to(device)
        return Batch(self.chosen.to(device), captioned, self.masks.to(device), shown, self.seed)


def draw_batch(stream: Stream, tokenizer: CLIPTokenizer, batch: int, seed: int, control_from: int, step: int) -> Batch:
    """The batch of a step; from ``control_from`` on, every odd step's is drawn under masks."""
    rng, masked = numpy_generator(seed, "diffusion", step), step % 2 == 1 and step >= control_from
    chosen = rng.integers(0, len(stream.image), batch)
    captioned = caption(stream, chosen, rng, tokenizer, GENERAL_SHARE, masked)
    noise_seed = int(rng.integers(1 << 62))
    shown = torch.from_numpy(_masks_shown(stream, chosen, rng))[:, None] if masked else None
    return Batch(torch.from_numpy(chosen), captioned, torch.from_numpy(stream.mask[chosen])[:, None], shown, noise_seed)


class Noised(NamedTuple):
    """What a step's loss is computed from; ``masks`` are those of the loss, ``shown`` the control's, or None."""

    latents: Float[Tensor, "b c h w"]
    t: Int[Tensor, " b"]
    velocity: Float[Tensor, "b c h w"]
    ids: Int[Tensor, "b length"]
    positions: Int[Tensor, "b 2"]
    masks: Bool[Tensor, "b 1 s s"]
    shown: Bool[Tensor, "b 1 s s"] | None


def _noised(schedule: DDPMScheduler, latents: Float[Tensor, "n c h w"], batch: Batch) -> Noised:
    generator = torch.Generator(latents.device).manual_seed(batch.seed)
    clean, captioned = latents[batch.chosen].float(), batch.captioned
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    t = torch.randint(0, 1000, (len(clean),), generator=generator, device=clean.device)
    noisy, velocity = schedule.add_noise(clean, noise, t), schedule.get_velocity(clean, noise, t)
    positions = torch.stack([captioned.product_at, captioned.defect_at], 1)
    return Noised(noisy, t, velocity, captioned.ids, positions, batch.masks, batch.shown)


def _loss(parts: Parts, tap: CrossAttentionTap, noised: Noised) -> tuple[Tensor, Figures]:
    """The velocity's squared error, through the control if the batch shows masks, and the words' localisation (Eq. 5, balanced)."""
    device, shown = noised.latents.device, noised.shown
    weighed = noised.masks if shown is None else shown
    with autocast(device, pick_dtype("auto", device)):
        hidden = parts.text(noised.ids)[0]
        if shown is not None:
            predicted = parts.control.denoise(parts.unet, noised.latents, noised.t, hidden, shown.float())
        else:
            predicted = parts.unet(noised.latents, noised.t, hidden).sample
    error = (predicted.float() - noised.velocity).square()
    cells = F.interpolate(weighed.float(), size=error.shape[-2:], mode="area")
    denoising = (error * (1 + DEFECT_WEIGHT * cells)).mean()
    masks = torch.cat([~noised.masks, noised.masks], 1)
    localizing = localizing_loss(tap.maps, noised.positions, masks, balanced=True) / len(tap.maps)
    figures = {"free" if shown is None else "masked": denoising.detach(), "localizing": localizing.detach()}
    return denoising + LOCALIZING_WEIGHT * localizing, figures


def _masks_shown(stream: Stream, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pictures' masks (n s s); a good picture's is another picture's."""
    others = rng.choice(np.flatnonzero(stream.defect != ""), len(chosen))
    shown: np.ndarray = np.where((stream.defect[chosen] != "")[:, None, None], stream.mask[chosen], stream.mask[others])
    return shown
