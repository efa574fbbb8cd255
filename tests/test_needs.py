"""What ``cadiff doctor`` counts before anything is started, on a small base."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from parameters import bare

from cadiff.data import read_samples
from cadiff.devices import LEANER_DRAWING
from cadiff.doctor import needed
from cadiff.needs import Drawing, Step, configurations, drawing_of, step_of
from cadiff.needs.telling import card_of, room, span
from cadiff.needs.totals import Content, Load, content_of, disk, image, loads
from cadiff.params import Params

STEP = Step(
    frozen=100, trained=50, autoencoder=10, text=10, pictures=2, activations=0, learning=600, denoising=70, encoding=30, decoding=40
)  # of a base that is easily summed by hand


def on(base: Path, **sections: dict[str, object]) -> Params:
    return bare(products={"a": {}}, dataset={"size": 512}, base={"path": str(base), "size": 512}, control={"heads": 4}, **sections)


def test_drawing_takes_the_memory_of_a_batch_and_of_one_picture_decoded(tiny_base: Path) -> None:
    """With guidance a batch has its empty prompts beside it, so four are as eight without. One is decoded at a time, so that of a batch
    only what comes out is more."""

    def drawing(batch: int, guidance: float = 1.0) -> Drawing:
        params = on(tiny_base, generate={"batch": batch, "guidance_scale": guidance})
        shapes = configurations(params.base)
        assert shapes is not None
        return drawing_of(params, *shapes)

    one, four, eight = drawing(1), drawing(4), drawing(8)
    assert four.denoising == pytest.approx(4 * one.denoising, rel=0.1)
    assert drawing(4, guidance=2.0).denoising == pytest.approx(eight.denoising, rel=0.05)
    picture = 3 * 512 * 512 * 4  # bytes in float32: what came out, and all of them put together
    assert one.decoding + 7 * picture <= eight.decoding <= one.decoding + 16 * picture
    params = on(tiny_base)
    step = step_of(params, *(configurations(params.base) or ()))
    narrow, wide = step.frozen + step.trained, step.autoencoder + step.text
    for drawn, most in ((one, one.decoding), (Drawing(1, 9, 8), 9)):
        assert drawn.memory(step, narrow=True, cuda=False) == 2 * narrow + 4 * wide + most
        assert drawn.memory(step, narrow=False, cuda=False) == 4 * (narrow + wide) + max(2 * drawn.denoising, drawn.decoding)


def test_a_card_that_is_not_here_is_held_against_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before anything of Stable Diffusion 1.5 was downloaded: its shapes are published, and the line says that they were taken."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = {"path": "stable-diffusion-v1-5/stable-diffusion-v1-5", "size": 512, "device": "cuda", "dtype": "auto"}
    params = bare(products={"a": {}}, dataset={"size": 512}, base=base, control={"heads": 8}, train={"batch": 1}, generate={"batch": 1})
    said = dict(needed(params, card=10))
    assert said["need memory, training"].startswith("11.5 GiB"), "as docs/results.md has it, of CUDA though there is none here"
    assert "; error: does not fit a card of 10 GB: set train.accumulate higher" in said["need memory, training"]
    assert "; fits a card of 10 GB" in said["need memory, drawing"]
    assert all(line.endswith("(by SD 1.5's published shapes)") for line in said.values())


def test_a_card_is_not_filled_to_the_brim(tiny_base: Path) -> None:
    card = card_of(on(tiny_base), 16)
    assert room(15.1, card, LEANER_DRAWING) == "; fits a card of 16 GB"
    assert room(15.3, card, LEANER_DRAWING) == "; error: does not fit a card of 16 GB: set generate.batch lower"
    assert span(Load(1, narrow=35e12, exact=70e12), card) == "5 s to 12 s", "35 TFLOP at 100, 70 at 50, of which 35 and 15 % are reached"


def test_what_a_product_has_is_counted_without_opening_an_image(drawn_root: Path, tmp_path: Path) -> None:
    params = bare(products={"nut": {}}, dataset={"root": str(drawn_root)})
    exemplars = [row for row in read_samples(params.dataset, "nut") if row.role == "exemplar"]
    assert content_of(params, "nut") == (len(exemplars), len({row.anomaly_type for row in exemplars})) == (6, 3)
    assert content_of(params, "bolt") is None
    assert content_of(bare(products={"nut": {}}, dataset={"root": str(tmp_path / "none")}), "nut") is None


def test_all_that_a_product_takes_by_hand() -> None:
    detector = {"size": 64, "tile": 64, "width": 4, "epochs": 2, "samples_per_epoch": 16, "seeds": [0, 1]}
    common = {"train": {"steps": None, "epochs": 10, "batch": 4, "accumulate": 2, "normal_share": 0.25}, "adapt": {"steps": 3, "batch": 4},
              "generate": {"per_type": 8, "steps": 5, "guidance_scale": 2.0}, "classifier": {"epochs": 3}}  # fmt: skip
    params, content = bare(products={"a": {}}, detector=detector, **common), Content(6, 3)
    found = loads(params, content, STEP)
    assert found["training"] == Load(23, 23 * 2 * (600 + 2 * 30)), "20 steps of two passes, and three that adapt"
    assert found["drawing"] == Load(24, 24 * 2 * 5 * 70, 24 * 40)
    assert (found["detectors"].steps, found["classifiers"].steps) == (2 * 2 * 4, 2 * 2 * 9)
    assert found["detectors"].narrow > 0 == found["detectors"].exact
    with_published = loads(bare(products={"a": {}}, detector={**detector, "published": True}, **common), content, STEP)
    assert (with_published["detectors"].steps, with_published["classifiers"].steps) == (2 * 16, 36 + 2 * 2 * 45), "five passes an epoch"
    larger = with_published["detectors"].exact / found["detectors"].narrow
    assert larger == pytest.approx(16, rel=0.05), "at 256 px, in float32"
    assert loads(params, Content(6, 1), STEP)["classifiers"] == Load(), "one type is nothing to tell apart"
    start = bare(products={"a": {}}, generate={"steps": 10, "start": "background", "strength": 0.3})
    assert image(start, STEP) == Load(1, 3 * 70, 40), "of a noised picture a share of the steps is taken"


def test_disk_is_of_all_products_and_held_against_what_is_free(tiny_base: Path) -> None:
    params = bare(products={"a": {}, "b": {}}, dataset={"size": 100}, generate={"per_type": 8})
    found = disk(params, [Content(6, 3), Content(6, 2)], STEP)
    assert found == (2 * 4 * 50, 2 * 2 * 100**2 * 8 * 5, 12 * 50)
    huge = dict(needed(on(tiny_base, generate={"per_type": 10**9, "batch": 1})))
    assert re.search(r"; error: [\d.]+ GiB are free here: make room", huge["need disk"])
    assert "1 product; none is in data/made/demo, so each is assumed to have 26 exemplars of 5 types" in huge["need time, all"]
