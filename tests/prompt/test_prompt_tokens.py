"""Learnable tokens in a real tokenizer and text encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from cadiff.backbone import Backbone, load_backbone
from cadiff.errors import CADiffError, UsageError
from cadiff.params import BaseParams
from cadiff.prompt import CONTEXT, LearnedTokens, PlainWords, placeholder
from cadiff.storage import write_tensors


@pytest.fixture
def backbone(tiny_base: Path) -> Backbone:
    return load_backbone(BaseParams(path=str(tiny_base), device="cpu", dtype="float32"))


def test_tokens_start_from_the_initial_word_and_stand_where_the_prompt_says(backbone: Backbone) -> None:
    tokens = LearnedTokens(backbone, "metal_nut", ["rust", "bent lead"], "anomaly")
    word = backbone.tokenizer("anomaly", add_special_tokens=False).input_ids
    assert torch.allclose(tokens.vectors[0], backbone.text_encoder.get_input_embeddings().weight[word].mean(0))
    prompt = tokens.prompt(backbone, ["bent lead"], 0)
    ids = backbone.tokenize([prompt.text])[0]
    assert ids[prompt.positions["bent lead"]] == tokens.ids[2]
    assert ids[prompt.positions[CONTEXT]] == tokens.ids[0]
    assert "rust" not in prompt.positions


def test_the_context_may_start_from_a_word_of_its_own(backbone: Backbone) -> None:
    tokens = LearnedTokens(backbone, "nut", ["rust"], "anomaly", initial_context="product")
    table = backbone.text_encoder.get_input_embeddings().weight
    for row, word in enumerate(("product", "anomaly")):
        ids = backbone.tokenizer(word, add_special_tokens=False).input_ids
        assert torch.allclose(tokens.vectors[row], table[ids].mean(0)), word


def test_encoding_uses_the_learned_vectors_and_gradients_reach_only_those_in_the_prompt(backbone: Backbone) -> None:
    tokens = LearnedTokens(backbone, "nut", ["rust", "chip"], "anomaly")
    prompt = tokens.prompt(backbone, ["rust"], 0)
    before = tokens.encode(backbone, [prompt])
    before.sum().backward()
    assert tokens.vectors.grad is not None
    assert tokens.vectors.grad.abs().sum(1).gt(0).tolist() == [True, True, False]
    with torch.no_grad():
        tokens.vectors[1] += 1
    assert not torch.allclose(tokens.encode(backbone, [prompt]), before)


def test_saved_tokens_come_back_under_their_own_names(backbone: Backbone, tmp_path: Path) -> None:
    tokens = LearnedTokens(backbone, "nut", ["rust"], "anomaly")
    with torch.no_grad():
        tokens.vectors.normal_()
    tokens.save(tmp_path)
    again = LearnedTokens(backbone, "nut", ["rust"], "anomaly")
    again.restore(tmp_path)
    assert torch.equal(again.vectors, tokens.vectors)
    other = LearnedTokens(backbone, "nut", ["chip"], "anomaly")
    with pytest.raises(CADiffError, match=r"expected the tokens .*nut-chip"):
        other.restore(tmp_path)
    write_tensors(tmp_path / "nut-rust.safetensors", {"<nut-rust>": torch.zeros(7)})
    with pytest.raises(CADiffError, match=r"nut-rust.safetensors: expected .*\(32,\).*found .*\(7,\)"):
        again.restore(tmp_path)


@pytest.mark.parametrize("single", [False, True])
def test_a_stock_pipeline_loads_the_tokens_and_reads_prompts_as_we_do(tiny_base: Path, tmp_path: Path, single: bool) -> None:
    backbone = load_backbone(BaseParams(path=str(tiny_base), device="cpu", dtype="float32"))
    tokens = LearnedTokens(backbone, "metal_nut", ["rust", "bent lead"], "anomaly", single)
    with torch.no_grad():
        tokens.vectors.normal_()
    tokens.save(tmp_path)
    prompt = tokens.prompt(backbone, ["bent lead", "rust"], 0)
    ours = tokens.encode(backbone, [prompt])
    stock = stock_pipeline(tiny_base)
    stock.load_textual_inversion([str(path) for path in sorted(tmp_path.iterdir())], use_safetensors=True)
    theirs, _ = stock.encode_prompt(prompt.text, "cpu", 1, do_classifier_free_guidance=False)
    assert torch.allclose(ours, theirs, atol=1e-6)
    picture = stock(prompt.text, num_inference_steps=1, height=64, width=64, output_type="np").images[0]
    assert picture.shape == (64, 64, 3)


def stock_pipeline(base: Path) -> StableDiffusionPipeline:
    """diffusers' own pipeline on the base's parts, none of our code in it."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(base, subfolder="vae"), unet=UNet2DConditionModel.from_pretrained(base, subfolder="unet"),
        text_encoder=CLIPTextModel.from_pretrained(base, subfolder="text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(base, subfolder="tokenizer"),
        scheduler=DDIMScheduler.from_pretrained(base, subfolder="scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@pytest.mark.parametrize(("context", "noun"), [("product", "product"), (None, "part")])
def test_a_single_token_stands_beside_a_word_that_the_base_knows(backbone: Backbone, context: str | None, noun: str) -> None:
    tokens = LearnedTokens(backbone, "nut", ["rust"], "anomaly", single=True, initial_context=context)
    assert tokens.prompt(backbone, ["rust"], 0).text == f"a photo of a {noun} with <nut-rust>"
    assert tokens.prompt(backbone, [], 0).text == f"a photo of a {noun}"


def test_types_of_other_alphabets_have_tokens_of_their_own(backbone: Backbone) -> None:
    tokens = LearnedTokens(backbone, "ねじ", ["傷", "錆", "Kratzer ä", "Kratzer ö"], "anomaly")
    prompt = tokens.prompt(backbone, ["傷", "Kratzer ö"], 0)
    assert len(set(tokens.ids)) == 5
    ids = backbone.tokenize([prompt.text])[0].tolist()
    assert [ids[prompt.positions[name]] for name in ("傷", "Kratzer ö")] == [tokens.ids[1], tokens.ids[4]]


def test_a_type_cannot_take_the_contexts_name(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="same token"):
        LearnedTokens(backbone, "nut", ["context", "rust"], "anomaly")


def test_clashing_types_and_unknown_words_are_refused(backbone: Backbone) -> None:
    assert placeholder("Metal_Nut", "bent lead!") == "<metal-nut-bent-lead>"
    with pytest.raises(UsageError, match="same token"):
        LearnedTokens(backbone, "nut", ["bent lead", "bent_lead"], "anomaly")


def test_a_prompt_that_is_too_long_is_refused(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="at most 30 tokens"):
        backbone.tokenize(["a photo of a part " * 12])


def test_plain_words_say_types_as_they_are_called_and_learn_nothing(backbone: Backbone, tmp_path: Path) -> None:
    words = PlainWords(backbone, ["rust", "bent_lead", "zzqq", "chip"], "anomaly", "nut")
    known = {word for word in ("rust", "bent lead", "chip") if backbone.tokenizer.unk_token_id not in
             backbone.tokenizer(word, add_special_tokens=False).input_ids}  # fmt: skip
    assert {words.words[kind] for kind in ("rust", "bent_lead", "chip")} <= known | {"anomaly"}
    both = words.prompt(backbone, ["rust", "chip"], 0)
    assert f"{words.words['rust']} and {words.words['chip']}" in both.text
    assert "nut" in both.text
    assert both.positions == {}, "no word of which attention could be re-weighted"
    good = words.prompt(backbone, [], 1)
    assert good.text == words.prompt(backbone, ["hole"], 1).text, "a type that it does not know is not asked for"
    assert not list(words.parameters())
    ids = backbone.tokenize([both.text, good.text])
    assert torch.equal(words.encode(backbone, [both, good]), backbone.encode_text(ids))
    (tmp_path / "an-earlier-trainings.safetensors").touch()
    words.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
