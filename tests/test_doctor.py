"""The sizes that ``cadiff doctor`` tells of, against what the base itself says when it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cadiff.backbone import EMBEDDED, load_backbone
from cadiff.doctor import describe_size, facts, sizes, step_of
from cadiff.errors import UsageError
from cadiff.params import BaseParams, Params


@pytest.mark.parametrize("size", [16, 24, 48, 56, 64, 100])
def test_a_size_that_the_base_cannot_draw_is_an_error_line_as_when_it_is_loaded(size: int, tiny_base: Path) -> None:
    for path in ("embedded", str(tiny_base)):
        settings = BaseParams(path=path, size=size, device="cpu")
        refused = None
        try:
            load_backbone(settings)
        except UsageError as error:
            refused = str(error)
        said = describe_size(settings)
        assert said == f"error: {refused}" if refused else said.startswith(f"{size} px, a multiple of ")


def test_a_base_of_the_hub_is_not_guessed(tmp_path: Path) -> None:
    assert describe_size(BaseParams(path="someone/model")) == "64 px; its levels are read when a stage starts"
    shutil.copytree(EMBEDDED / "unet", tmp_path / "unet", ignore=lambda *_: ["diffusion_pytorch_model.safetensors"])
    assert "read when a stage starts" in describe_size(BaseParams(path=str(tmp_path))), "half of a base says nothing either"


def test_steps_by_hand() -> None:
    four, three = {"block_out_channels": [1] * 4}, {"block_out_channels": [1] * 3}
    assert step_of(four, {"_class_name": "AutoencoderKL", "block_out_channels": [1] * 4}) == 64, "Stable Diffusion 1.5"
    assert step_of(three, {"_class_name": "AutoencoderDC", "encoder_block_out_channels": [1] * 3}) == 16
    tiny = {"_class_name": "AutoencoderTiny", "encoder_block_out_channels": [1] * 4, "upsampling_scaling_factor": 2}
    assert step_of(four, tiny) == 64


def test_every_size_is_told() -> None:
    said = dict(sizes(Params(products={"a": {}}, dataset={"size": 512}, detector={"size": 128, "tile": 64}, metrics={"mask_rule": "any"})))
    assert said["size canvas"] == "512 px of the shorter side (dataset.size)"
    assert "drawn at 64 x 64 px (base.size)" in said["size window"]
    assert said["size detector"] == "128 px of the shorter side (detector.size), in squares of 64 px (detector.tile)"
    assert said["size metrics"] == "256 px of the shorter side (metrics.size), mask rule any (metrics.mask_rule)"
    native = dict(sizes(Params(products={"a": {}}, dataset={"size": "native"}, window={"cut": "whole"})))
    assert native["size canvas"] == "each picture as it is (dataset.size)"
    assert native["size detector"].startswith("each picture as it is")
    assert native["size window"].startswith("all of the picture")
    assert json.dumps(dict(facts(Params(products={"a": {}})))).count("size ") >= 5
