"""Shards of every method: exact masks, the record's schema, the same rows whatever the count."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from parameters import bare
from PIL import Image

from cadiff.errors import CADiffError, UsageError
from cadiff.params import Params
from cadiff.pictures import read_picture
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.storage import read_table, sha256_bytes, write_image
from cadiff.synthesis import synthesize
from cadiff.synthesis.cutpaste import cutpaste
from cadiff.synthesis.exemplars import warp
from cadiff.synthesis.nsa import nsa
from cadiff.synthesis.perlin import perlin, perlin_mask, perlin_noise
from cadiff.task import Task

SIZE = 32
SHAPES = {  # height and width of the files; at the canvas 32 x 48, 45 x 32 and 32 x 32
    "n0": (64, 96), "n1": (45, 32), "n2": (40, 40), "b0": (64, 96), "b1": (40, 40), "l0": (45, 32), "h0": (40, 40),
}  # fmt: skip
CANVASES = {(32, 48), (45, 32), (32, 32)}


def _params(per_type: int = 5, **train) -> Params:
    return bare(
        products={"cube": {}}, dataset={"size": SIZE}, base={"size": SIZE}, generate={"per_type": per_type}, train=train
    )


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[SampleRow]:
    root = tmp_path_factory.mktemp("real")
    rng = np.random.default_rng(0)
    rows = []
    for name, role, kind in [
        ("n0", "normal", None), ("n1", "normal", None), ("n2", "normal", None), ("b0", "exemplar", "blot"),
        ("b1", "exemplar", "blot"), ("l0", "exemplar", "line"), ("h0", "held_out", "line"),
    ]:  # fmt: skip
        height, width = SHAPES[name]
        image = rng.integers(100, 140, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        if kind:
            mask[height // 3 : height // 2, width // 3 : width // 2] = 255
            image[mask > 0] = (240, 20, 20)
        write_image(root / f"{name}.png", image)
        write_image(root / f"{name}-mask.png", mask)
        mask_path = str(root / f"{name}-mask.png") if kind else None
        rows.append(SampleRow(name, "toy", "cube", kind, role, str(root / f"{name}.png"), mask_path, width, height, name))
    return rows


def _open(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def _read(path: Path) -> pd.DataFrame:
    read_table(path, GENERATED_SCHEMA)
    return pd.read_parquet(path)


@pytest.mark.parametrize("method", ["cutpaste", "nsa", "perlin"])
def test_outside_the_mask_is_the_normal_that_the_row_names(method: str, samples, tmp_path) -> None:
    synthesize(Task(_params(per_type=20), "cube", method, samples), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["anomaly.parquet"]
    table = _read(tmp_path / "anomaly.parquet")
    assert len(table) == 40  # two types
    by_id = {row.sample_id: read_picture(row, SIZE).image for row in samples}
    for row in table.itertuples():
        image, mask, base = _open(row.image["bytes"]), _open(row.mask["bytes"]) > 0, by_id[row.normal_id]
        assert image.shape == base.shape
        assert mask.any()
        assert np.array_equal(image[~mask], base[~mask])
        assert np.abs(image[mask].astype(int) - base[mask]).mean() >= 1.5
        assert row.image_sha256 == sha256_bytes(row.image["bytes"])
        assert list(row.anomaly_types) == ["anomaly"]
        assert list(row.exemplar_ids) == []
    assert set(table["normal_id"]) == {"n0", "n1", "n2"}
    assert {_open(row.image["bytes"]).shape[:2] for row in table.itertuples()} == CANVASES, "each at its normal's own canvas"


@pytest.mark.parametrize("method", [cutpaste, nsa, perlin])
def test_a_grey_picture_gives_a_grey_one_whatever_lies_beside_it(method) -> None:
    """A colour picture among them: its patches and textures lose their colours, as do the tints."""
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(60, 200, (40, 64, 1), dtype=np.uint8), 3, axis=2)
    coloured = rng.integers(60, 200, (48, 32, 3), dtype=np.uint8)
    bases = set()
    for seed in range(24):
        image, mask, base = method([grey, coloured], seed)
        bases.add(base)
        has_colour = (image != image[..., :1]).any()
        assert has_colour == (base == 1), (seed, base)
        assert image.shape == (grey if base == 0 else coloured).shape
        assert mask.shape == image.shape[:2]
    assert bases == {0, 1}


def test_a_warped_grey_exemplar_stays_grey() -> None:
    grey = np.repeat(np.random.default_rng(0).integers(0, 255, (30, 47, 1), dtype=np.uint8), 3, axis=2)
    mask = np.zeros((30, 47), bool)
    mask[10:15, 20:28] = True
    for seed in range(5):
        image, moved = warp(grey, mask, _params().train, seed)
        assert (image == image[..., :1]).all()
        assert image.shape[:2] == moved.shape == (30, 47)


def test_exemplars_keep_the_defect_in_its_mask(samples, tmp_path) -> None:
    synthesize(Task(_params(per_type=6), "cube", "exemplars", samples), tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["blot", "good", "line"]
    blots = _read(tmp_path / "blot.parquet")
    assert blots.mask_source.tolist() == ["exemplar:b0", "exemplar:b1"] * 3
    assert [list(ids) for ids in blots.exemplar_ids] == [["b0"], ["b1"]] * 3
    assert blots.normal_id.isna().all(), "a warp resamples every pixel"
    assert [_open(row.image["bytes"]).shape[:2] for row in blots.itertuples()] == [(32, 48), (32, 32)] * 3
    for row in blots.itertuples():
        image, mask = _open(row.image["bytes"]).astype(int), _open(row.mask["bytes"])
        assert set(np.unique(mask)) == {0, 255}
        red = image[..., 0] - image[..., 1]
        assert red[mask > 0].mean() > 120
        assert (red > 130).sum() <= (mask > 0).sum()
    good = _read(tmp_path / "good.parquet")
    assert all(len(types) == 0 for types in good.anomaly_types)
    assert not any(_open(mask["bytes"]).any() for mask in good["mask"])


def test_without_any_warp_an_exemplar_is_itself_but_for_its_light(samples) -> None:
    image, mask = read_picture(samples[3], SIZE)
    same, moved = warp(image, mask, _params(crop=0, translate=0, rotate=0).train, seed=3)
    assert np.array_equal(moved, mask)
    assert np.abs(same.astype(int) - image).max() <= math.ceil(0.05 * 255 + 5)


@pytest.mark.parametrize("method", ["exemplars", "cutpaste", "nsa", "perlin"])
def test_rows_depend_on_their_names_only(method: str, samples, tmp_path) -> None:
    for name, count in (("few", 2), ("again", 2), ("many", 4)):
        synthesize(Task(_params(per_type=count), "cube", method, samples), tmp_path / name)
    synthesize(Task(_params(per_type=2).model_copy(update={"seed": 1}), "cube", method, samples), tmp_path / "other")
    for path in (tmp_path / "few").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        few, many, other = (_read(tmp_path / name / path.name) for name in ("few", "many", "other"))
        assert few.image_sha256.tolist() == many.image_sha256.tolist()[: len(few)]
        assert many.image_sha256.is_unique
        assert not set(few.image_sha256) & set(other.image_sha256)


def test_what_is_missing_is_named(samples, tmp_path) -> None:
    with pytest.raises(UsageError, match="found 'magic'"):
        synthesize(Task(_params(), "cube", "magic", samples), tmp_path)
    with pytest.raises(CADiffError, match="expected exemplars to augment"):
        synthesize(Task(_params(), "cube", "exemplars", samples[:3]), tmp_path)
    with pytest.raises(CADiffError, match="expected train normals"):
        synthesize(Task(_params(), "cube", "perlin", samples[3:]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cutpaste_on_one_colour_shows_by_its_light_alone() -> None:
    image, mask, base = cutpaste([np.full((SIZE, 2 * SIZE, 3), 128, np.uint8)], seed=0)
    assert base == 0
    assert (image[~mask] == 128).all()
    assert (image[mask] != 128).any()


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (24, 8)])
def test_perlin_noise_is_the_definition(shape: tuple[int, int]) -> None:
    rows, columns = 2, 4
    noise = perlin_noise(shape, (rows, columns), np.random.default_rng(5))
    angle = np.random.default_rng(5).uniform(0, 2 * math.pi, (rows + 1, columns + 1))
    for i, j in [(0, 0), (3, 5), (9, 7), (15, 1)]:
        y, x = i * rows / shape[0], j * columns / shape[1]

        def dot(a: int, b: int, y: float = y, x: float = x) -> float:
            return math.cos(angle[a, b]) * (y - a) + math.sin(angle[a, b]) * (x - b)

        a, b = int(y), int(x)
        s, t = (6 * f**5 - 15 * f**4 + 10 * f**3 for f in (y - a, x - b))
        top, bottom = ((1 - t) * dot(r, b) + t * dot(r, b + 1) for r in (a, a + 1))
        assert noise[i, j] == pytest.approx(math.sqrt(2) * ((1 - s) * top + s * bottom), abs=1e-12)
    assert np.abs(noise).max() <= 1
    assert np.abs(noise[:: shape[0] // rows, :: shape[1] // columns]).max() < 1e-12  # lattice points


def test_perlin_masks_vary_and_its_opacity_stays_in_range() -> None:
    areas = [perlin_mask((64, 64), np.random.default_rng(seed)).mean() for seed in range(60)]
    assert np.std(areas) > 0.01
    assert max(areas) < 0.9
    image, mask, _ = perlin([np.zeros((64, 48, 3), np.uint8)], seed=1)
    assert image[mask].max() <= 255
    assert (image[~mask] == 0).all()


def test_perlin_masks_reach_both_ends_of_a_long_picture() -> None:
    masks = [perlin_mask((32, 128), np.random.default_rng(seed)) for seed in range(60)]
    reached = np.any(masks, axis=0)
    assert reached.shape == (32, 128)
    assert reached[:, :8].any()
    assert reached[:, -8:].any()
