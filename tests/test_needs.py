"""What ``cadiff doctor`` counts before anything is started, on a small base."""

from __future__ import annotations

from pathlib import Path

import pytest
from parameters import bare

from cadiff.needs import Drawing, configurations, drawing_of, step_of
from cadiff.params import Params


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
