"""benchmarks/base.py: each figure against something known, and all of them on a tiny base."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from cadiff.backbone import Backbone, load_backbone
from cadiff.params import BaseParams
from cadiff.pretraining.stream import Stream, picture
from cadiff.storage import read_image, read_json, write_json


@pytest.fixture
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("base")


@pytest.fixture
def tiny(bench: ModuleType) -> object:
    return bench.Scale(train=16, test=16, steps=2, width=2, words=6, samples=1, sampling_steps=2)


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Backbone:
    return load_backbone(BaseParams(path=str(tiny_base), device="cpu", dtype="float32"))


def test_held_out_pictures_are_the_streams_own(bench: ModuleType) -> None:
    stream, own = bench.held_out(bench.TEST_FROM + 3, 2, 64, workers=1), picture(0, bench.TEST_FROM + 4, 64)
    assert np.array_equal(stream.image[1], own.image)
    assert np.array_equal(stream.mask[1], own.mask)
    assert (stream.product[1], stream.defect[1]) == (own.product, own.defect)


def test_psnr_inside_masks_counts_only_what_is_inside(bench: ModuleType) -> None:
    images, masks = np.full((2, 8, 8, 3), 100, np.uint8), np.zeros((2, 8, 8), bool)
    masks[0, :2] = True  # a quarter of the first picture; the second has no defect and does not count
    copies = images + np.where(masks, 10, 1).astype(np.uint8)[..., None]
    figures = dict(bench.psnr_figures(images, copies, masks, np.array([4.0, 1.5])))
    assert figures["autoencoder.psnr_inside_masks"] == pytest.approx(20 * np.log10(255 / 10))
    errors = np.array([0.25 * 100 + 0.75, 1.0])
    each = 10 * np.log10(255**2 / errors)
    assert figures["autoencoder.psnr"] == pytest.approx(np.mean(each))
    assert [figures["autoencoder.whole.psnr"], figures["autoencoder.windows.psnr"]] == pytest.approx(each.tolist())


def test_the_width_of_a_disc_is_its_diameter_and_a_line_is_thin(bench: ModuleType) -> None:
    y, x = np.mgrid[:64, :64]
    disc, line = np.hypot(y - 32, x - 32) <= 6, x == 20
    assert bench.median_width(disc[None]) == pytest.approx(13, abs=1.1)
    assert bench.median_width(line[None]) == 2
    assert bench.median_width(np.stack([disc, line, line])) == 2


@pytest.mark.parametrize(
    ("kept", "gate"), [({"hole": 9}, "pass"), ({"hole": 8}, "fail"), ({"hole": 10, "thread": 1}, "pass"), ({"hole": 10, "burn": 0}, "fail")]
)
def test_the_gate_asks_wide_kinds_alone_and_never_passes_what_was_not_seen(bench: ModuleType, kept: dict[str, int], gate: str) -> None:
    """Ten columns of a defect, of which so many survive; the segmenter never saw a burn at all."""
    truth, before, after = (np.zeros((len(kept), 32, 32), bool) for _ in range(3))
    for row, (kind, columns) in enumerate(kept.items()):
        height = 1 if kind == "thread" else 10
        truth[row, 4 : 4 + height, 4:14], after[row, 4 : 4 + height, 4 : 4 + columns] = True, True
        before[row] = truth[row] & (kind != "burn")
    figures = dict(bench.gate_figures(truth, before, after, np.array(list(kept))))
    assert figures["autoencoder.gate"] == gate
    assert figures["autoencoder.hole.ratio"] == pytest.approx(kept["hole"] / 10)
    assert figures.get("autoencoder.thread.gate", "thin") == "thin"
    assert figures.get("autoencoder.burn.gate", "blind") == "blind"


def test_the_segmenter_learns_to_find_a_bright_square(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 120, (40, 32, 32, 3)).astype(np.uint8), np.zeros((40, 32, 32), bool)
    for row, (top, left) in enumerate(rng.integers(0, 22, (40, 2))):
        mask[row, top : top + 10, left : left + 10] = True
    image[mask] += 120
    stream = Stream(image, mask, np.full(40, "plate"), np.full(40, "square"), np.ones(40))
    found = bench.segmented(bench.train_segmenter(stream, steps=60, width=4, batch=8), image)
    assert (found & mask).sum() / (found | mask).sum() > 0.8


def test_the_maps_of_all_words_add_up_to_one_everywhere(bench: ModuleType, base: Backbone) -> None:
    latents, ids = torch.randn(1, 4, 8, 8).expand(32, -1, -1, -1), base.tokenize(["a photo of a nut with rust"]).expand(32, -1)
    maps = bench.word_maps(base, latents, ids, torch.arange(32), 400, torch.zeros(32, 4, 8, 8))
    assert maps.shape == (32, 8, 8)
    assert torch.allclose(maps.sum(0), torch.ones(8, 8), atol=1e-5)


def test_guidance_acts_and_a_sample_does_not_depend_on_its_batch(bench: ModuleType, base: Backbone) -> None:
    noise, prompts = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), ["a nut", "a nut with rust"]
    plain, guided = (bench.sampled(base, prompts, noise, guidance, 3) for guidance in (1.0, 8.0))
    assert plain.shape == (2, 64, 64, 3)
    assert not np.array_equal(plain, guided)
    alone = bench.sampled(base, prompts[1:], noise[1:], 1.0, 3)
    assert np.abs(plain[1].astype(int) - alone[0]).max() <= 1  # of 255: sums in another order


def test_everything_is_measured_and_measured_again_the_same(bench: ModuleType, tiny: object, base: Backbone, tmp_path: Path) -> None:
    first = list(bench.measure(base, 64, tiny, tmp_path / "a", workers=1))
    figures = dict(first)
    assert len(figures) == len(first)
    assert figures["autoencoder.gate"] == "fail"  # random weights keep nothing
    assert 0 <= figures["words.auroc"] <= 1
    assert figures["words.n"] > 0
    grids = sorted((tmp_path / "a").iterdir())
    assert [grid.stem for grid in grids] == ["base_capsule", "base_connector", "base_fabric", "base_nut"]
    assert read_image(grids[3]).shape == (4 * 128, 2 * 128 + 8, 3)
    again = list(bench.measure(base, 64, tiny, tmp_path / "b", workers=1))
    assert repr(again) == repr(first)
    assert [(tmp_path / "b" / grid.name).read_bytes() for grid in grids] == [grid.read_bytes() for grid in grids]


def test_a_card_takes_what_was_measured_and_keeps_the_rest(
    bench: ModuleType, tiny: object, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "Scale", lambda: tiny)
    monkeypatch.setattr(bench, "measure", functools.partial(bench.measure, workers=1))
    base = shutil.copytree(tiny_base, tmp_path / "base")
    call = ["base.py", "--base", str(base), "--parts", "words", "--card"]

    def ended(*further: str) -> int:
        monkeypatch.setattr(sys, "argv", [*call, *further])
        with pytest.raises(SystemExit) as end:
            bench.main()
        return end.value.code  # type: ignore[return-value]

    assert ended() == 2
    assert "expected" in capsys.readouterr().err, "there is no card yet"
    write_json(base / "card.json", {"version": 2, "figures": {"autoencoder.psnr": 34.3, "words.gone.auroc": 0.5}})
    assert ended("--quick") == 2
    assert ended() == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    card = read_json(base / "card.json")
    assert card["version"] == 2
    assert card["figures"].pop("autoencoder.psnr") == 34.3, "a part that was not run keeps its figures"
    assert set(card["figures"]) == set(printed), "of one that was run none is older"
    assert card["figures"]["words.auroc"] == pytest.approx(float(printed["words.auroc"]), rel=1e-3)
    bench.write_card(base, {"autoencoder.pit.ratio": float("nan"), "autoencoder.gate": "fail"})
    assert read_json(base / "card.json")["figures"]["autoencoder.pit.ratio"] is None
    assert read_json(base / "card.json")["figures"]["autoencoder.gate"] == "fail"
