"""Pictures that are there twice, however they were saved, are found; pictures of equal parts under the same light are no copies."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cadiff.data import read_samples
from cadiff.data.inspect import inspect_root
from cadiff.data.resaved import Pair, copy_lines, find_pairs
from cadiff.params import DatasetParams
from cadiff.storage import write_image

SIDE = 96


def part(seed: int, shift: float = 0.0, light: float = 0.0, noise: float = 4.0) -> np.ndarray:
    """A disc with a notch on a dark ground, with the camera's noise: always the same part, ``shift`` px to the right, ``light`` levels
    brighter."""
    y, x = np.mgrid[:SIDE, :SIDE] / 1.0
    inside = np.clip(0.38 * SIDE - np.hypot(x - SIDE / 2 - shift, y - SIDE / 2), 0, 1) * np.clip(abs(y - SIDE / 2) - 4, 0, 1)
    shown = 30 + inside[..., None] * np.array([120, 90, 60]) + light
    return (shown + np.random.default_rng(seed).normal(0, noise, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def different(seed: int) -> np.ndarray:
    """A texture that is another one in every picture."""
    coarse = np.random.default_rng(seed).normal(0, 40, (12, 12))
    smooth = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return (128 + smooth[..., None] + np.random.default_rng(seed + 10**6).normal(0, 3, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def as_jpeg(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def saved(pixels: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return saved


def halved(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC))


def pairs_of(pictures: list[np.ndarray]) -> list[Pair]:
    return find_pairs(len(pictures), pictures.__getitem__, lambda first, second: True)


@pytest.mark.parametrize("saved", [as_jpeg(95), as_jpeg(75), as_jpeg(50), halved], ids=["95", "75", "50", "half"])
def test_what_was_saved_again_with_losses_is_found(saved: Callable[[np.ndarray], np.ndarray]) -> None:
    pictures = [different(seed) for seed in range(14)]
    copies = [saved(pictures[3]), saved(pictures[8])]
    assert pairs_of(pictures + copies) == [Pair(3, 14, False), Pair(8, 15, False)]


@pytest.mark.parametrize("shown", [
    part, lambda seed: part(seed, light=np.random.default_rng(seed).uniform(-6, 6)),
    lambda seed: part(seed, shift=np.random.default_rng(seed).normal(0, 1.5), noise=1.0), lambda seed: part(seed, noise=0.5),
], ids=["alike", "a lamp that flickers", "parts that lie a little elsewhere", "hardly any noise"])  # fmt: skip
def test_alike_parts_under_one_light_are_no_copies(shown: Callable[[int], np.ndarray]) -> None:
    assert pairs_of([shown(seed) for seed in range(40)]) == []


def test_equal_pixels_are_found_among_alike_parts_and_alone() -> None:
    pictures = [part(seed) for seed in range(8)]
    assert pairs_of([*pictures, pictures[2].copy(), pictures[2].copy()]) == [Pair(2, 8, True), Pair(2, 9, True), Pair(8, 9, True)]
    assert pairs_of(pictures[:1] * 2) == [Pair(0, 1, True)]
    assert pairs_of([]) == []


def test_a_defect_in_an_otherwise_equal_picture_is_no_copy() -> None:
    """As a board and its template: nearer to each other than to anything else, and yet not the same."""
    pictures = [different(seed) for seed in range(14)]
    defective = pictures[5].copy()
    defective[40:52, 30:50] = (230, 230, 60)
    assert pairs_of([*pictures, defective]) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A product of alike parts; no picture is there twice."""
    base = tmp_path / "data" / "part"
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:40, 30:50] = 255
    for seed in range(6):
        write_image(base / f"train/good/{seed:03}.png", part(seed))
    for seed in range(3):
        write_image(base / f"test/good/{seed:03}.png", part(100 + seed))
    for seed in range(9):
        pixels = part(200 + seed)
        pixels[mask > 0] = (230, 230, 60)
        write_image(base / f"test/scratch/{seed:03}.png", pixels)
        write_image(base / f"ground_truth/scratch/{seed:03}_mask.png", mask)
    return tmp_path / "data"


def test_a_held_out_picture_in_another_format_among_the_normals_is_named_by_inspect(root: Path) -> None:
    base = root / "part"
    assert "copies" not in inspect_root(root).text()
    Image.open(base / "test/scratch/008.png").save(base / "train/good/000again.bmp")
    Image.open(base / "test/scratch/007.png").save(base / "train/good/001packed.png", compress_level=9)
    assert (base / "test/scratch/007.png").read_bytes() != (base / "train/good/001packed.png").read_bytes()
    text = inspect_root(root).text()
    assert "  2 images to be scored are copies of train normals or exemplars: their scores prove nothing" in text
    for held_out, normal in (("008", "000again.bmp"), ("007", "001packed.png")):
        one, other = base / f"test/scratch/{held_out}.png", base / f"train/good/{normal}"
        assert f"    {one} (scratch, held out) shows the same pixels as {other} (train normal)" in text
        other.unlink()  # what the line says to do
    assert "copies" not in inspect_root(root).text()


def test_which_copies_matter(root: Path) -> None:
    """Within one side of the split and under one label a copy does no harm; an exemplar among the normals contradicts itself."""
    base = root / "part"
    dataset = DatasetParams(name="x", layout="mvtec", root=str(root), calibration=0.0)
    (base / "train/good/000b.png").write_bytes((base / "train/good/000.png").read_bytes())
    (base / "test/good/000b.png").write_bytes((base / "test/good/000.png").read_bytes())
    assert copy_lines(read_samples(dataset, "part")) == []
    Image.open(base / "test/scratch/000.png").save(base / "train/good/000c.bmp")
    first, second = copy_lines(read_samples(dataset, "part"))
    assert first.startswith("1 images are there as a normal one and as an anomaly; remove either of the two:")
    assert "(scratch, learned from)" in second
    assert "(train normal)" in second
