"""Shards of every method: exact masks, the record's schema, the same rows whatever the count."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cadiff.data.images import load_samples
from cadiff.errors import CADiffError, UsageError
from cadiff.params import Params
from cadiff.records import GENERATED_SCHEMA, SampleRow
from cadiff.storage import read_table, sha256_bytes, write_image
from cadiff.synthesis import synthesize
from cadiff.synthesis.cutpaste import cutpaste
from cadiff.synthesis.exemplars import warp
from cadiff.synthesis.perlin import perlin, perlin_mask, perlin_noise

SIZE = 32


def _params(per_type: int = 5, **train) -> Params:
    return Params(
        products={"cube": {}}, base={"size": SIZE}, generate={"per_type": per_type}, train=train
    )


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[SampleRow]:
    root = tmp_path_factory.mktemp("real")
    rng = np.random.default_rng(0)
    rows = []
    for name, role, kind in [
        ("n0", "normal", None), ("n1", "normal", None), ("b0", "exemplar", "blot"),
        ("b1", "exemplar", "blot"), ("l0", "exemplar", "line"), ("h0", "held_out", "line"),
    ]:  # fmt: skip
        image = rng.integers(100, 140, (SIZE, SIZE, 3), dtype=np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        if kind:
            mask[10:18, 12:20] = 255
            image[mask > 0] = (240, 20, 20)
        write_image(root / f"{name}.png", image)
        write_image(root / f"{name}-mask.png", mask)
        mask_path = str(root / f"{name}-mask.png") if kind else None
        rows.append(
            SampleRow(name, "toy", "cube", kind, role, str(root / f"{name}.png"), mask_path, SIZE, SIZE, name)
        )
    return rows


def _open(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def _read(path: Path) -> pd.DataFrame:
    read_table(path, GENERATED_SCHEMA)
    return pd.read_parquet(path)


@pytest.mark.parametrize("method", ["cutpaste", "nsa", "perlin"])
def test_outside_the_mask_is_a_normal_image(method: str, samples, tmp_path) -> None:
    synthesize(method, _params(per_type=20), "cube", samples, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["anomaly.parquet"]
    table = _read(tmp_path / "anomaly.parquet")
    assert len(table) == 40  # two types
    normals, _ = load_samples([row for row in samples if row.role == "normal"], SIZE)
    for row in table.itertuples():
        image, mask = _open(row.image["bytes"]), _open(row.mask["bytes"]) > 0
        assert mask.any()
        same = [np.array_equal(image[~mask], normal[~mask]) for normal in normals]
        assert any(same)
        base = normals[same.index(True)]
        assert np.abs(image[mask].astype(int) - base[mask]).mean() >= 1.5
        assert row.image_sha256 == sha256_bytes(row.image["bytes"])
        assert list(row.anomaly_types) == ["anomaly"]


def test_exemplars_keep_the_defect_in_its_mask(samples, tmp_path) -> None:
    synthesize("exemplars", _params(per_type=6), "cube", samples, tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["blot", "good", "line"]
    blots = _read(tmp_path / "blot.parquet")
    assert blots.mask_source.tolist() == ["exemplar:b0", "exemplar:b1"] * 3
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
    (image,), (mask,) = load_samples(samples[2:3], SIZE)
    same, moved = warp(image, mask, _params(crop=0, translate=0, rotate=0).train, seed=3)
    assert np.array_equal(moved, mask)
    assert np.abs(same.astype(int) - image).max() <= math.ceil(0.05 * 255 + 5)


@pytest.mark.parametrize("method", ["exemplars", "cutpaste", "nsa", "perlin"])
def test_rows_depend_on_their_names_only(method: str, samples, tmp_path) -> None:
    for name, count in (("few", 2), ("again", 2), ("many", 4)):
        synthesize(method, _params(per_type=count), "cube", samples, tmp_path / name)
    synthesize(
        method, _params(per_type=2).model_copy(update={"seed": 1}), "cube", samples, tmp_path / "other"
    )
    for path in (tmp_path / "few").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        few, many, other = (_read(tmp_path / name / path.name) for name in ("few", "many", "other"))
        assert few.image_sha256.tolist() == many.image_sha256.tolist()[: len(few)]
        assert many.image_sha256.is_unique
        assert not set(few.image_sha256) & set(other.image_sha256)


def test_what_is_missing_is_named(samples, tmp_path) -> None:
    with pytest.raises(UsageError, match="found 'magic'"):
        synthesize("magic", _params(), "cube", samples, tmp_path)
    with pytest.raises(CADiffError, match="expected exemplars to augment"):
        synthesize("exemplars", _params(), "cube", samples[:2], tmp_path)
    with pytest.raises(CADiffError, match="expected train normals"):
        synthesize("perlin", _params(), "cube", samples[2:], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cutpaste_on_one_colour_shows_by_its_light_alone() -> None:
    grey = np.full((1, SIZE, SIZE, 3), 128, np.uint8)
    image, mask = cutpaste(grey, seed=0)
    assert (image[~mask] == 128).all()
    assert (image[mask] != 128).any()


def test_perlin_noise_is_the_definition() -> None:
    rows, columns, side = 2, 4, 16
    noise = perlin_noise(side, (rows, columns), np.random.default_rng(5))
    angle = np.random.default_rng(5).uniform(0, 2 * math.pi, (rows + 1, columns + 1))
    for i, j in [(0, 0), (3, 5), (9, 14), (15, 1)]:
        y, x = i * rows / side, j * columns / side

        def dot(a: int, b: int, y: float = y, x: float = x) -> float:
            return math.cos(angle[a, b]) * (y - a) + math.sin(angle[a, b]) * (x - b)

        a, b = int(y), int(x)
        s, t = (6 * f**5 - 15 * f**4 + 10 * f**3 for f in (y - a, x - b))
        top, bottom = ((1 - t) * dot(r, b) + t * dot(r, b + 1) for r in (a, a + 1))
        assert noise[i, j] == pytest.approx(math.sqrt(2) * ((1 - s) * top + s * bottom), abs=1e-12)
    assert np.abs(noise).max() <= 1
    assert np.abs(noise[::8, ::4]).max() < 1e-12  # lattice points


def test_perlin_masks_vary_and_its_opacity_stays_in_range() -> None:
    areas = [perlin_mask(64, np.random.default_rng(seed)).mean() for seed in range(60)]
    assert np.std(areas) > 0.01
    assert max(areas) < 0.9
    black = np.zeros((1, 64, 64, 3), np.uint8)
    image, mask = perlin(black, seed=1)
    assert image[mask].max() <= 255
    assert (image[~mask] == 0).all()
