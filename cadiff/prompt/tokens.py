"""The learnable tokens of one product, and the prompts they stand in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTokenizer

from cadiff.backbone import Backbone
from cadiff.errors import CADiffError, UsageError
from cadiff.names import CONTEXT, placeholder
from cadiff.params import PromptParams
from cadiff.storage import read_tensors, write_tensors

TEMPLATES = (
    "a photo of a {product} with {defect}", "a close up photo of a {product} with {defect}",
    "a picture of {defect} on a {product}", "{defect} on the {product}", "a {product} with {defect}",
)  # fmt: skip
NORMAL_TEMPLATES = ("a photo of a {product}", "a close up photo of a {product}", "a picture of a {product}", "a {product}")


@dataclass(frozen=True)
class Prompt:
    """A prompt and where each concept's token stands in it (position in the padded sequence, the first of its ``vectors``)."""

    text: str
    positions: dict[str, int]
    vectors: int = 1


EMPTY = Prompt("", {})


class LearnedTokens(nn.Module):
    """One token for the context (the product) and one per anomaly type, in one prompt space (CTP); each stands for ``per_token``
    embeddings side by side (paper: 1).

    The embeddings start from the mean of the initial word's sub-tokens (paper: "anomaly"); the context's may have a word
    of its own, ``initial_context``. A ``single`` token a type (Textual Inversion) has no context's: prompts name the product
    by ``initial_context`` itself, or "part". The text encoder stays frozen: its embedding table is extended by rows that
    `encode` replaces on the way in, so that gradients reach these embeddings and nothing else.
    """

    def __init__(self, backbone: Backbone, product: str, types: list[str], initial_word: str, single: bool = False,
                 initial_context: str | None = None, per_token: int = 1) -> None:  # fmt: skip
        super().__init__()
        self.product, self.types, self.single, self.per_token = product, list(types), single, per_token
        self.noun = initial_context or "part"
        self.concepts = [*([] if single else [CONTEXT]), *self.types]
        self.texts = {concept: placeholder(product, concept) for concept in self.concepts}
        if len(set(self.texts.values())) < len(self.concepts):
            raise UsageError(f"products.{product}: two anomaly types give the same token: {sorted(self.texts.values())}")
        self.ids = self._extend(backbone)
        words = [initial_context or initial_word if concept == CONTEXT else initial_word for concept in self.concepts]
        self.vectors = nn.Parameter(torch.stack([self._initial(backbone, word) for word in words for _ in range(per_token)]))

    def spelt(self, text: str) -> str:
        """A prompt as it is tokenised: a token of several embeddings is ``<nut-rust> <nut-rust>_1 ...``, as diffusers has it."""
        for own in self.texts.values():
            text = text.replace(own, " ".join(_parts(own, self.per_token)))
        return text

    def _extend(self, backbone: Backbone) -> list[int]:
        """The ids of all embeddings, in the order of ``vectors``."""
        parts = [part for concept in self.concepts for part in _parts(self.texts[concept], self.per_token)]
        backbone.tokenizer.add_tokens(parts)
        ids = backbone.tokenizer.convert_tokens_to_ids(parts)
        if max(ids) >= backbone.text_encoder.get_input_embeddings().num_embeddings:
            backbone.text_encoder.resize_token_embeddings(len(backbone.tokenizer), mean_resizing=False)
            backbone.text_encoder.requires_grad_(False)
        return list(ids)

    @staticmethod
    def _initial(backbone: Backbone, word: str) -> Float[Tensor, " d"]:
        ids = backbone.tokenizer(word, add_special_tokens=False).input_ids
        if not ids or backbone.tokenizer.unk_token_id in ids:
            raise UsageError(f"recipe.prompt.initial_word, recipe.prompt.initial_context: {word!r} is not in this base's vocabulary")
        mean: Tensor = backbone.text_encoder.get_input_embeddings().weight[ids].detach().float().mean(0).clone()
        return mean

    def prompt(self, backbone: Backbone, types: list[str], template: int) -> Prompt:
        """The ``template``-th way to say the product with these anomaly types (none: a good part)."""
        product = self.noun if self.single else self.texts[CONTEXT]
        if types:
            form = TEMPLATES[template % len(TEMPLATES)]
            text = form.format(product=product, defect=" and ".join(self.texts[t] for t in types))
        else:
            text = NORMAL_TEMPLATES[template % len(NORMAL_TEMPLATES)].format(product=product)
        ids = backbone.token_ids([self.spelt(text)])[0].tolist()
        present = [*([] if self.single else [CONTEXT]), *types]
        try:
            first = {concept: self.ids[self.concepts.index(concept) * self.per_token] for concept in present}
            return Prompt(text, {concept: ids.index(token) for concept, token in first.items()}, self.per_token)
        except ValueError:
            raise CADiffError(f"prompt {text!r}: a learned token did not survive tokenisation") from None

    def encode(self, backbone: Backbone, prompts: list[Prompt]) -> Float[Tensor, "b tokens d"]:
        """The prompts' hidden states, with the learned vectors in their places; differentiable in the vectors."""
        ids = backbone.tokenize([self.spelt(p.text) for p in prompts])
        table = backbone.text_encoder.get_input_embeddings()

        def replace(_module: nn.Module, _inputs: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
            for row, token in enumerate(self.ids):
                embedded = torch.where((ids == token)[..., None], self.vectors[row].to(embedded.dtype), embedded)
            return embedded

        handle = table.register_forward_hook(replace)
        try:
            return backbone.encode_text(ids)
        finally:
            handle.remove()

    def save(self, folder: Path) -> None:
        """One file a token, ``nut-rust.safetensors`` with the embedding (d), or several (n d), under the token's text ``<nut-rust>``.

        That is the form that a stock pipeline's ``load_textual_inversion`` reads (it refuses a file of several).
        An earlier training's tokens that this one does not have are removed.
        """
        kept = {_file_of(text) for text in self.texts.values()}
        for path in folder.glob("*.safetensors"):
            if path.name not in kept:
                path.unlink()
        for row, concept in enumerate(self.concepts):
            text, vectors = self.texts[concept], self._of(row).detach().float()
            write_tensors(folder / _file_of(text), {text: vectors}, {"product": self.product, "concept": concept})

    def _of(self, row: int) -> Float[Tensor, "*n d"]:
        """The embeddings of a concept, by its place among ``concepts``."""
        found = self.vectors[row * self.per_token : (row + 1) * self.per_token]
        return found[0] if self.per_token == 1 else found

    def restore(self, folder: Path) -> None:
        """Takes over what `save` wrote.

        Raises:
            CADiffError: if the folder holds other tokens, or a token of another length.
        """
        expected, found = {_file_of(text) for text in self.texts.values()}, {path.name for path in folder.glob("*.safetensors")}
        if found != expected:
            raise CADiffError(f"{folder}: expected the tokens {sorted(expected)}, found {sorted(found)}. Rerun the train stage.")
        for row, text in enumerate(self.texts.values()):
            tensors, _ = read_tensors(folder / _file_of(text))
            if set(tensors) != {text} or tensors[text].shape != self._of(row).shape:
                shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
                wanted = {text: tuple(self._of(row).shape)}
                raise CADiffError(f"{folder / _file_of(text)}: expected {wanted}, found {shapes}. Rerun the train stage.")
            with torch.no_grad():
                self._of(row).copy_(tensors[text])


class PlainWords(nn.Module):
    """Prompts that name anomaly types by their own words and learn nothing: what a plain text-to-image model is told.

    A type of which the base's vocabulary lacks a word is called ``word``. Attention to it is nowhere re-weighted.
    """

    single = True
    per_token = 1
    concepts: tuple[str, ...] = ()

    def __init__(self, backbone: Backbone, types: list[str], word: str, noun: str | None = None) -> None:
        super().__init__()
        self.types, self.noun = list(types), noun or "part"
        spelt = {kind: kind.replace("_", " ").replace("-", " ") for kind in types}
        self.words = {kind: text if self._known(backbone, text) else word for kind, text in spelt.items()}

    @staticmethod
    def _known(backbone: Backbone, text: str) -> bool:
        ids = backbone.tokenizer(text, add_special_tokens=False).input_ids
        return bool(ids) and backbone.tokenizer.unk_token_id not in ids

    def prompt(self, backbone: Backbone, types: list[str], template: int) -> Prompt:
        """The ``template``-th way to say the product with these anomaly types (none, or unknown ones: a good part)."""
        said = [self.words[kind] for kind in types if kind in self.words]
        if said:
            return Prompt(TEMPLATES[template % len(TEMPLATES)].format(product=self.noun, defect=" and ".join(said)), {})
        return Prompt(NORMAL_TEMPLATES[template % len(NORMAL_TEMPLATES)].format(product=self.noun), {})

    def encode(self, backbone: Backbone, prompts: list[Prompt]) -> Float[Tensor, "b tokens d"]:
        """The prompts' hidden states."""
        return backbone.encode_text(backbone.tokenize([p.text for p in prompts]))

    def save(self, folder: Path) -> None:
        """Nothing: words are the base's own. An earlier training's tokens are removed."""
        for path in folder.glob("*.safetensors"):
            path.unlink()


def longest_prompt(tokenizer: CLIPTokenizer, product: str, named: list[str], params: PromptParams) -> tuple[int, str]:
    """How many tokens a base reads (its two marks included) of the longest prompt that names these anomaly types, and the prompt as it
    is tokenised. ``tokenizer`` learns the tokens' texts."""
    texts = [placeholder(product, concept) for concept in (CONTEXT, *named)]
    words = [" ".join(_parts(text, params.vectors)) for text in texts]
    tokenizer.add_tokens([part for text in texts for part in _parts(text, params.vectors)])
    noun = (params.initial_context or "part") if params.tokens == "single" else words[0]
    spelt = [form.format(product=noun, defect=" and ".join(words[1:])) for form in TEMPLATES]
    return max((len(tokenizer(text).input_ids), text) for text in spelt)


def _parts(text: str, count: int) -> list[str]:
    """The tokens that a token of so many embeddings is spelt with."""
    return [text, *(f"{text}_{part}" for part in range(1, count))]


def _file_of(text: str) -> str:
    return f"{text.strip('<>')}.safetensors"
