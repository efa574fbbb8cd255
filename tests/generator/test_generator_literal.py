"""The paper's own readings (presets/paper-literal.yaml), each against what the paper prints, and all of them together."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from parameters import sampling

from cadiff.backbone import Backbone, load_backbone
from cadiff.generator.adapt import adapt_base
from cadiff.generator.examples import Shown, draw_view
from cadiff.generator.joint import joint_loss
from cadiff.generator.model import Generator
from cadiff.generator.reweighting import Reading, Reweighting
from cadiff.generator.sample import Request, sample
from cadiff.generator.train import load, new_generator, train
from cadiff.params import IntensityParams, Params, load_params
from cadiff.params.loading import read_layers
from cadiff.prompt import CONTEXT
from cadiff.records import SampleRow
from cadiff.seeds import torch_generator
from cadiff.storage import read_json
from cadiff.task import Task

KINDS = ["chip", "rust", "scratch"]
PRESETS = Path(__file__).resolve().parents[2] / "presets"
LITERAL = {
    "prompt": {
        "localizing_over": "printed", "contrastive_over": "printed", "contrastive_without": "image", "contrastive_of": "all",
        "weight_decay": 0.01,
    },
    "control": {"interaction": "literal", "positions": False},
    "train": {"normal_share": 0.0, "empty_prompts": 0.5, "clip": None},
    "intensity": {"outside": "zero", "norm": "cells", "focus": "each_step", "in_control": False},
}  # fmt: skip


@pytest.fixture
def backbone(small_params: Params) -> Backbone:
    return load_backbone(small_params.base)


def changed(params: Params, **sections: dict[str, object]) -> Params:
    values = params.model_dump()
    return Params(**{**values, **{name: {**values[name], **own} for name, own in sections.items()}})


def test_the_literal_preset_is_the_recommended_one_but_for_the_papers_own_readings() -> None:
    ours, literal = (load_params(PRESETS / f"{name}.yaml").model_dump() for name in ("mvtec-sd15", "paper-literal"))
    found = {
        section: {key: value for key, value in literal[section].items() if value != ours[section][key]}
        for section in ours if isinstance(ours[section], dict) and literal[section] != ours[section]
    }  # fmt: skip
    assert found == LITERAL
    assert literal["train"]["epochs"] == 1000
    assert literal["train"]["steps"] is None
    assert (literal["control"]["weight_decay"], literal["control"]["learning_rate"]) == (0.01, 1e-5)


def test_the_recommended_preset_says_of_each_departure_that_it_is_one_and_why() -> None:
    """Not a default that nobody sees: each stands there, with the value that is used."""
    path = PRESETS / "mvtec-sd15.yaml"
    own, params = read_layers(path)[-1], load_params(path)
    for section, keys in LITERAL.items():
        for key in keys:
            assert own.states(f"{section}.{key}"), f"{section}.{key}"
            assert own.values[section][key] == getattr(getattr(params, section), key)
            line = re.search(rf"^    {key}: .*# departs[: ](.+)$", path.read_text(), re.MULTILINE)
            assert line, f"{key}: no reason"
    assert own.values["detector"]["seeds"] == [0, 1, 2]
    assert own.states("detector.seeds")


def rewriting_of(params: IntensityParams, vectors: int = 1) -> Reweighting:
    """One image of one type at 32x32 latents, its mask the upper left quarter: 16 of the 64 cells that focus is read from."""
    masks = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    masks[..., :32, :32] = True
    return Reweighting(torch.tensor([[1]]), masks, torch.full((1, 1), 1.5), params, 32, torch.zeros(1, 1, dtype=torch.bool), vectors)


def lit(cells: int, tokens: tuple[int, ...] = (1,)) -> list[torch.Tensor]:
    """A layer of 8x8 whose map of some tokens has so many of the mask's cells above its mean."""
    maps, quarter = torch.full((1, 2, 8, 8, 4), 0.1), torch.full((16,), 0.1)
    quarter[:cells] = 0.9
    for token in tokens:
        maps[0, :, :4, :4, token] = quarter.view(4, 4)
    return [maps.flatten(2, 3)]


def test_equation_11_is_tested_at_each_step_by_that_steps_own_maps() -> None:
    rewriting, before = rewriting_of(IntensityParams(focus="each_step", threshold=0.75)), torch.rand(1, 2, 64, 4)
    acting = []
    for step, cells in enumerate((12, 13, 4, 16)):
        reading = rewriting.test(lit(cells), step)
        assert reading.focus.item() == cells / 16
        assert torch.equal(rewriting(before), before) == (cells / 16 <= 0.75), step
        acting.append(reading.acting.item())
    assert acting == [False, True, False, True], "not latched"
    assert rewriting.focus.since.item() == 1, "the first step that it acted in"


def test_the_bare_norm_multiplies_by_the_masks_cells_and_nothing_is_left_outside() -> None:
    rewriting, before = rewriting_of(IntensityParams(delayed_focus=False, norm="cells", outside="zero")), torch.rand(1, 2, 16 * 16, 4)
    factor = torch.zeros(16, 16)
    factor[:8, :8] = 1.5 * 16
    expected = before.clone()
    expected[..., 1] *= factor.flatten()
    assert torch.allclose(rewriting(before), expected)


def test_all_embeddings_of_a_token_are_re_weighted_and_its_focus_is_of_their_sum() -> None:
    rewriting, before = rewriting_of(IntensityParams(delayed_focus=False), vectors=2), torch.rand(1, 2, 64, 4)
    factor = torch.ones(8, 8)
    factor[:4, :4] = 1.5
    expected = before.clone()
    expected[..., 1:3] *= factor.flatten()[:, None]
    assert torch.allclose(rewriting(before), expected)
    maps = [lit(4)[0] + lit(16, (2,))[0]]
    reading = rewriting.observe(maps, 0)
    both = maps[0].mean(1)[0, :, 1:3].sum(-1)
    assert torch.allclose(reading.attention[0, 0], both)
    assert reading.focus.item() == pytest.approx((both > both.mean()).view(8, 8)[:4, :4].sum().item() / 16)


@pytest.fixture
def generator(small_params: Params, backbone: Backbone) -> Generator:
    made = new_generator(small_params, "nut", KINDS, backbone)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (*made.control.parameters(), made.tokens.vectors):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    return made


def test_a_tested_step_is_the_step_of_no_delay_or_of_no_re_weighting(generator: Generator) -> None:
    """A threshold that every focus passes gives what re-weighting without delay gives, one that none passes what w = 1 gives: to the
    bit, as no map is read later than the step that it acts in."""
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[:, 8:40, 8:40] = True

    def drawn(w: float, **settings: object) -> tuple[torch.Tensor, list[Reading]]:
        readings: list[Reading] = []
        request = Request(generator.prompt(["rust"], 0), ("rust",), masks, (w,), seed=1)
        found = sample(generator, [request], sampling(steps=3, background="generated"), IntensityParams(**settings), readings.append)
        return found.drawn, readings

    always, readings = drawn(2.0, focus="each_step", threshold=0.0)
    assert min(reading.focus[0, 0].item() for reading in readings) > 0
    assert torch.equal(always, drawn(2.0, delayed_focus=False)[0])
    assert torch.equal(drawn(2.0, focus="each_step", threshold=9)[0], drawn(1.0)[0])
    assert not torch.equal(always, drawn(2.0, threshold=0.0)[0]), "latched, the first step is drawn as it is"


def test_equation_7_over_all_concepts_of_every_image(backbone: Backbone, small_params: Params, nut_samples: list[SampleRow]) -> None:
    """Each image has a vector of each of the product's concepts, from a prompt that names them all, its own type first."""
    params = changed(small_params, prompt=LITERAL["prompt"], train={"normal_share": 0.4, "empty_prompts": 0.3, "batch": 6})
    generator, rng = new_generator(params, "nut", KINDS, backbone), torch_generator(0, "all")
    view = draw_view(Shown.of(nut_samples, params), generator.tokens, backbone, params, rng)
    assert len(view.everything) == 6
    for b, said in enumerate(view.everything):
        assert set(said.positions) == {CONTEXT, *KINDS}
        shown = [kind for c, kind in enumerate(KINDS, start=1) if view.positions[b, c] >= 0]
        assert shown in ([], [min(KINDS, key=said.positions.__getitem__)])
    with torch.no_grad():
        parts = joint_loss(generator, view, params, rng)[1]
        v = np.array([
            [generator.encode([said])[0, said.positions[concept]].numpy() for concept in (CONTEXT, *KINDS)] for said in view.everything
        ])  # fmt: skip
    unit = v / np.linalg.norm(v, axis=-1, keepdims=True)
    close = np.exp(np.einsum("ice,jde->icjd", unit, unit) / params.prompt.temperature)
    images, concepts = v.shape[:2]
    expected = 0.0
    for c, i, j in itertools.product(range(concepts), range(images), range(images)):
        below = sum(close[i, c, k, d] for d in range(concepts) for k in range(images) if k != i)
        expected -= np.log(close[i, c, j, c] / below) / concepts / images
    assert parts["contrastive"] == pytest.approx(expected, rel=1e-4)


def test_a_share_of_pictures_has_an_empty_prompt_as_guidance_asks_for(
    backbone: Backbone, small_params: Params, nut_samples: list[SampleRow]
) -> None:
    params = changed(small_params, train={"batch": 200, "empty_prompts": 0.5, "normal_share": 0.3})
    generator = new_generator(params, "nut", KINDS, backbone)
    view = draw_view(Shown.of(nut_samples, params), generator.tokens, backbone, params, torch_generator(0, "empty"))
    empty = torch.tensor([prompt.text == "" for prompt in view.prompts])
    assert abs(empty.double().mean().item() - 0.5) < 4 * np.sqrt(0.25 / 200)
    assert (view.positions[empty] == -1).all(), "no token of it is to attend anywhere"
    assert view.mask[empty].flatten(1).any(1).all(), "the control sees its mask all the same"
    blank = backbone.encode_text(backbone.tokenize([""]))
    assert torch.equal(generator.encode([view.prompts[int(empty.nonzero()[0])]]), blank)
    sometimes = changed(params, train={"batch": 4, "empty_prompts": 0.9, "normal_share": 0.0})
    rng = torch_generator(0, "loss")
    view = draw_view(Shown.of(nut_samples, sometimes), generator.tokens, backbone, sometimes, rng)
    assert torch.isfinite(joint_loss(generator, view, sometimes, rng)[0]), "also where next to no word is said"


def test_epochs_count_the_products_exemplars(small_params: Params) -> None:
    """Of a batch of 4 a quarter are normals: 3 exemplars a step."""
    def steps(exemplars: int, **own: object) -> int:
        return changed(small_params, train={"steps": None, "batch": 4, **own}).train.steps_for(exemplars)

    assert steps(6, epochs=10, normal_share=0.0) == 15
    assert steps(6, epochs=10, normal_share=0.25) == 20
    assert steps(7, epochs=10, normal_share=0.25) == 24, "rounded up"
    assert changed(small_params, train={"steps": 5}).train.steps_for(100) == 5
    for both in ({"steps": 5, "epochs": 2}, {"steps": None, "epochs": None}):
        with pytest.raises(ValueError, match="set one of the two, the other to null"):
            changed(small_params, train=both)


def test_all_literal_readings_go_together(small_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    """Trained for two epochs of six exemplars in batches of four, and an image drawn."""
    adapt_base(Task(small_params, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "work")
    literal = {**LITERAL, "train": {**LITERAL["train"], "steps": None, "epochs": 2, "batch": 4}}
    params = changed(small_params, **literal, generate={"background": "generated"})
    train(Task(params, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "out", tmp_path / "work")
    assert read_json(tmp_path / "out" / "generator.json")["steps"] == 3
    generator = load(params, "nut", tmp_path / "adapted", tmp_path / "out")
    request = Request(generator.prompt(["rust"], 0), ("rust",), torch.ones(1, 64, 64, dtype=torch.bool), (1.5,), seed=0)
    assert torch.isfinite(sample(generator, [request], params.generate, params.intensity).drawn).all()


def test_decay_and_clipping_are_those_that_are_set(small_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    """Clipped to nothing, Adam's epsilon leaves no step: what is left is AdamW's decay, (1 - rate * decay) a step."""
    adapt_base(Task(small_params, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "work")
    rates = {"prompt": {"weight_decay": 0.5, "learning_rate": 1e-2}, "control": {"weight_decay": 0.25, "learning_rate": 1e-2}}
    params = changed(small_params, **rates, train={"clip": 1e-15, "decay": "none"})
    train(Task(params, "nut", samples=nut_samples), tmp_path / "adapted", tmp_path / "out", tmp_path / "work")
    start = new_generator(params, "nut", KINDS, load_backbone(params.base))
    found = load(params, "nut", tmp_path / "adapted", tmp_path / "out")
    assert torch.allclose(found.tokens.vectors, start.tokens.vectors * (1 - 0.5e-2) ** 3, atol=1e-6)
    assert not torch.allclose(found.tokens.vectors, start.tokens.vectors, atol=1e-6)
    for name, value in start.control.state_dict().items():
        assert torch.allclose(found.control.state_dict()[name], value * (1 - 0.25e-2) ** 3, atol=1e-6), name
