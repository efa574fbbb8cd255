"""``window.cut: whole`` with ``generate.blend: null`` draws as before there were windows.

``before_windows.npz`` holds three anomalies and three normals of 64 px, drawn at commit 2ce400f, the last one without windows, from the
pictures of ``write_pictures`` by the settings below. Equal to the bit on the machine that wrote it; other processors round the last
bits of three training steps differently, hence one grey level.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from parameters import bare
from scipy import ndimage

from cadiff.data import read_samples
from cadiff.generator import adapt_base, generate_shards, train_generator
from cadiff.masks import make_scenes
from cadiff.records import GENERATED_SCHEMA
from cadiff.storage import decode_image, read_table, write_image
from cadiff.task import Task

BEFORE = Path(__file__).parent / "before_windows.npz"
LEVEL = 1


def write_pictures(folder: Path) -> None:
    """Three normals and three anomalies of smooth noise, with the masks that are to be drawn in."""
    rng = np.random.default_rng(0)

    def picture() -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.random((64, 64, 3)), (4, 4, 0))
        return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)

    mask = np.zeros((64, 64), np.uint8)
    mask[20:36, 24:44] = 255
    for k in range(3):
        write_image(folder / f"data/part/train/good/{k}.png", picture())
    for k in range(3):
        write_image(folder / f"data/part/test/spot/{k}.png", picture())
        write_image(folder / f"data/part/ground_truth/spot/{k}_mask.png", mask)
        write_image(folder / f"data/masks/part/spot/{k}.png", np.roll(mask, 3 * k, 0))


def pictures_in(path: Path) -> np.ndarray:
    rows = read_table(path, GENERATED_SCHEMA).to_pylist()
    return np.stack([decode_image(row["image"]["bytes"], "RGB") for row in rows])


@pytest.fixture(scope="module")
def drawn(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    write_pictures(root)
    params = bare(
        products={"part": {}},
        dataset={"name": "own", "layout": "mvtec", "root": str(root / "data"), "size": 64},
        base={"path": str(tiny_base), "size": 64, "device": "cpu"},
        window={"cut": "whole"},
        train={"steps": 3, "batch": 4},
        prompt={"learning_rate": 1e-3},
        control={"learning_rate": 1e-3},
        masks={"source": "folder"},
        generate={"per_type": 3, "steps": 3, "batch": 2, "guidance_scale": 1.5, "blend": None},
        intensity={"threshold": 0.0},
    ).for_product("part")  # type: ignore[arg-type]
    samples = read_samples(params.dataset, "part")
    adapt_base(Task(params, "part", samples=samples), root / "adapted", root / "work-a")
    train_generator(Task(params, "part", "cadiff", samples), root / "adapted", root / "generator", root / "work-t")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        scenes = make_scenes(Task(params, "part", samples=samples))
    generate_shards(Task(params, "part", "cadiff", samples), root / "adapted", root / "generator", scenes, root / "out", root / "work-g")
    return root / "out"


@pytest.mark.parametrize("name", ["spot", "good"])
def test_whole_pictures_are_drawn_as_before_there_were_windows(drawn: Path, name: str) -> None:
    before, found = np.load(BEFORE)[name], pictures_in(drawn / f"{name}.parquet")
    assert found.shape == before.shape
    difference = np.abs(found.astype(int) - before)
    print(f"{name}: equal to the bit: {not difference.any()}")
    assert difference.max() <= LEVEL
    assert len({picture.tobytes() for picture in before}) == 3, "pictures that differ, or it proves little"
