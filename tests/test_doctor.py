"""The sizes that ``cadiff doctor`` tells of, against what the base itself says when it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from parameters import bare

from cadiff.backbone import EMBEDDED, load_backbone
from cadiff.backbone.load import least_side, reduction_of, weights_digest
from cadiff.doctor import describe_size, facts, sizes
from cadiff.errors import UsageError
from cadiff.params import BaseParams


@pytest.mark.parametrize("size", [16, 24, 48, 56, 64, 100])
def test_a_size_that_the_base_cannot_draw_is_an_error_line_as_when_it_is_loaded(size: int, tiny_base: Path) -> None:
    for path in ("embedded", str(tiny_base)):
        settings = BaseParams(path=path, size=size, device="cpu", dtype="float32")
        refused = None
        try:
            load_backbone(settings)
        except UsageError as error:
            refused = str(error)
        said = describe_size(settings)
        assert said == f"error: {refused}" if refused else said.startswith(f"{size} px, a multiple of ")


def test_a_base_of_the_hub_is_not_guessed(tmp_path: Path) -> None:
    assert describe_size(BaseParams(path="someone/model", dtype="float32")) == "64 px; its levels are read when a stage starts"
    shutil.copytree(EMBEDDED / "unet", tmp_path / "unet", ignore=lambda *_: ["diffusion_pytorch_model.safetensors"])
    assert "read when a stage starts" in describe_size(BaseParams(path=str(tmp_path), dtype="float32")), "half of a base says nothing"


def test_a_base_in_the_hubs_cache_is_read_and_named_by_its_own_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "models--someone--model"
    for revision, left_out in (("a" * 40, "nothing"), ("b" * 40, "scheduler_config.json")):
        shutil.copytree(EMBEDDED, cache / "snapshots" / revision, ignore=shutil.ignore_patterns(left_out))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("b" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    digests = {}
    for revision in (None, "a" * 40, "b" * 40):
        base = {"path": "someone/model", "revision": revision, "size": 72}
        said = dict(facts(bare(products={"a": {}}, base=base)))
        assert said["size base"] == "error: base.size: expected a multiple of 16 for this base, found 72"
        assert not [name for name in said if name.startswith("need")], "no step of a size that it cannot draw"
        digests[revision] = said["weights digest"]
    assert digests["a" * 40] == weights_digest(str(EMBEDDED)) != digests["b" * 40] == digests[None]


def test_a_device_that_is_not_here_leaves_the_other_facts() -> None:
    said = dict(facts(bare(products={"a": {}}, base={"device": "cuda:99"})))
    assert said["device used"].startswith("none: base.device: expected auto or a device that is here, found 'cuda:99'")
    assert said["size base"].startswith("64 px")


def test_steps_by_hand() -> None:
    four, three = {"block_out_channels": [1] * 4}, {"block_out_channels": [1] * 3}
    assert least_side(four, reduction_of({"_class_name": "AutoencoderKL", "block_out_channels": [1] * 4})) == 64, "Stable Diffusion 1.5"
    assert least_side(three, reduction_of({"_class_name": "AutoencoderDC", "encoder_block_out_channels": [1] * 3})) == 16
    tiny = {"_class_name": "AutoencoderTiny", "encoder_block_out_channels": [1] * 4, "upsampling_scaling_factor": 2}
    assert least_side(four, reduction_of(tiny)) == 64


def test_every_size_is_told() -> None:
    said = dict(sizes(bare(products={"a": {}}, dataset={"size": 512}, detector={"size": 128, "tile": 64}, metrics={"mask_rule": "any"})))
    assert said["size canvas"] == "512 px of the shorter side (dataset.size)"
    assert "drawn at 64 x 64 px (base.size)" in said["size window"]
    assert said["size detector"] == "128 px of the shorter side (detector.size), in squares of 64 px (detector.tile)"
    assert said["size metrics"] == "256 px of the shorter side, mask rule any (recipe.metrics.size, mask_rule)"
    native = dict(sizes(bare(products={"a": {}}, dataset={"size": "native"}, window={"cut": "whole"})))
    assert native["size canvas"] == "each picture as it is (dataset.size)"
    assert native["size detector"].startswith("each picture as it is")
    assert native["size window"].startswith("all of the picture")
    assert json.dumps(dict(facts(bare(products={"a": {}})))).count("size ") >= 5
