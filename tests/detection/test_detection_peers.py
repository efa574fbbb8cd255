"""Peers: PatchCore on the toy, its coreset and distances by hand; anomaly maps of another detector from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from cadiff.detection import fit_peer, score_maps, score_peer
from cadiff.detection.patchcore import SHARE, coreset, load_patchcore, patch_features
from cadiff.errors import CADiffError, UsageError
from cadiff.records import SCORED_SCHEMA, SampleRow
from cadiff.storage import read_image, read_tensors, write_image
from cadiff.task import Task


@pytest.fixture(scope="module")
def fitted(toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("patchcore")
    fit_peer(Task(toy.params, "cube", "patchcore", toy.samples), 0, out, out)
    return out


def test_patchcore_finds_what_no_normal_image_has(toy, fitted, tmp_path) -> None:
    tables: list[pa.Table] = []
    rows = score_peer(Task(toy.params, "cube", "patchcore", toy.samples), 0, fitted, tables.append)
    values = {row.metric: row.value for row in rows}
    assert values["image_auroc"] > 0.9
    assert values["pixel_auroc"] > 0.8
    assert values["pixel_ap/blot"] > 0.2
    assert {(row.method, row.variant.split("(")[0], row.protocol) for row in rows} == {("patchcore", "patchcore", "strict")}
    assert pa.concat_tables(tables).schema == SCORED_SCHEMA
    fit_peer(Task(toy.params, "cube", "patchcore", toy.samples), 0, tmp_path, tmp_path)
    assert (tmp_path / "seed-0.safetensors").read_bytes() == (fitted / "seed-0.safetensors").read_bytes()
    with pytest.raises(CADiffError, match=r"seed-1.safetensors: expected this file"):
        score_peer(Task(toy.params, "cube", "patchcore", toy.samples), 1, fitted)
    with pytest.raises(CADiffError, match="expected normal images to train on"):
        fit_peer(Task(toy.params, "cube", "patchcore", [r for r in toy.samples if r.role != "normal"]), 0, tmp_path, tmp_path)


def test_distances_are_those_to_the_nearest_patch_in_the_bank(toy, fitted) -> None:
    bank = read_tensors(fitted / "seed-0.safetensors")[0]["bank"]
    rows = [row for row in toy.samples if row.role == "held_out"][:3]
    detector = load_patchcore(Task(toy.params, "cube", "patchcore"), 0, fitted)
    found = detector.score(rows)
    neighbours = NearestNeighbors(n_neighbors=1).fit(bank.numpy())
    for row, map_, image in zip(rows, found.maps, found.images, strict=True):
        picture = read_image(row.image_path)
        patches = patch_features(picture)
        expected = neighbours.kneighbors(patches.flatten(0, 1).numpy())[0].reshape(patches.shape[:2])
        assert image == pytest.approx(expected.max(), rel=1e-3)
        assert map_.shape == picture.shape[:2]
        rows_of, columns_of = (np.linspace(0, 27, side).round().astype(int) for side in map_.shape)
        assert np.corrcoef(expected[rows_of][:, columns_of].ravel(), map_.ravel())[0, 1] > 0.9, "each patch is where it was in the picture"
    count = round(SHARE * 8 * 28 * 28)
    assert bank.shape == (count, patches.shape[-1])


def test_the_coreset_covers_every_cluster() -> None:
    centres = 100 * torch.randn(20, 40, generator=torch.Generator().manual_seed(0))
    points = centres.repeat_interleave(10, dim=0) + torch.rand(200, 40)
    chosen = coreset(points, (0, "x"))
    assert len(chosen) == 20
    assert sorted((chosen // 10).tolist()) == list(range(20)), "one of each cluster: the farthest is never a neighbour"


def _truth(row: SampleRow) -> np.ndarray:
    return read_image(row.mask_path, "L") > 0 if row.mask_path else np.zeros((row.height, row.width), bool)


def _write_maps(toy, folder: Path, form: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    maps = {}
    for row in toy.samples:
        if row.role in ("held_out", "test_good"):
            truth = _truth(row)
            maps[row.sample_id] = (rng.random(truth.shape) * 0.7 + 0.6 * truth).astype(np.float32)
            path = folder / f"{row.sample_id}.{form}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if form == "npy":
                np.save(path, maps[row.sample_id])
            elif form == "tiff":
                Image.fromarray(maps[row.sample_id]).save(path)
            else:
                write_image(path, np.round(maps[row.sample_id] * 190).astype(np.uint8))
    return maps


@pytest.mark.parametrize("form", ["npy", "tiff", "png"])
def test_maps_from_a_folder_get_the_figures_that_scikit_learn_gives_them(toy, form: str, tmp_path) -> None:
    maps = _write_maps(toy, tmp_path, form)
    rows = {row.metric: row for row in score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)}
    scored = [row for row in toy.samples if row.role in ("held_out", "test_good")]
    masks = np.concatenate([_truth(row).ravel() for row in scored])
    values = np.concatenate([maps[row.sample_id].ravel() for row in scored])
    if form == "png":
        values = np.round(values * 190)
    assert rows["pixel_auroc"].value == pytest.approx(roc_auc_score(masks, values), abs=1e-9)
    assert rows["pixel_ap"].value == pytest.approx(average_precision_score(masks, values), abs=1e-9)
    assert {(row.method, row.variant, row.n) for row in rows.values() if "/" not in row.metric} == {("destseg", "maps", 12)}
    assert {row.protocol for row in rows.values()} == {"unknown"}, "what its detector had seen is not known here"


def test_maps_below_zero_score_as_those_above_it(toy, tmp_path) -> None:
    """Log-likelihoods, say: what lies beyond the border must not be the most anomalous of all."""
    maps = _write_maps(toy, tmp_path, "npy")
    first = {row.metric: row.value for row in score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)}
    for name, values in maps.items():
        np.save(tmp_path / f"{name}.npy", values - 5)
    second = {row.metric: row.value for row in score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)}
    assert second == pytest.approx(first, abs=1e-3, nan_ok=True)
    assert len({*first.values()}) > 3


def test_one_value_far_below_changes_no_figure(toy, tmp_path) -> None:
    maps = _write_maps(toy, tmp_path, "npy")
    first = {row.metric: row.value for row in score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)}
    name = next(row.sample_id for row in toy.samples if row.role == "test_good")
    maps[name][0, 0] = -1e8
    np.save(tmp_path / f"{name}.npy", maps[name])
    second = {row.metric: row.value for row in score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)}
    assert second["pixel_ap"] == pytest.approx(first["pixel_ap"], abs=1e-3), "that pixel is normal, and the lowest"
    assert second["pixel_auroc"] == pytest.approx(first["pixel_auroc"], abs=1e-3)


def test_a_map_of_palette_indices_or_of_several_pages_is_refused(toy, tmp_path) -> None:
    maps = _write_maps(toy, tmp_path, "tiff")
    path = tmp_path / f"{next(iter(maps))}.tiff"
    pages = [Image.fromarray(np.zeros((32, 32), np.float32))] * 2
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(CADiffError, match="found 2 pages"):
        score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)
    path.unlink()
    Image.fromarray(np.full((32, 32), 40, np.uint8)).convert("P").save(path.with_suffix(".png"))
    with pytest.raises(CADiffError, match="mode P"):
        score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)
    path.with_suffix(".png").unlink()
    path.with_suffix(".npy").write_bytes(b"")
    with pytest.raises(CADiffError, match="does not open"):
        score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)


def test_maps_of_another_size_are_brought_to_ours_and_wrong_ones_are_named(toy, tmp_path) -> None:
    maps = _write_maps(toy, tmp_path, "npy")
    name = next(iter(maps))
    np.save(tmp_path / f"{name}.npy", maps[name].repeat(2, axis=0).repeat(2, axis=1))
    assert score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)
    np.save(tmp_path / f"{name}.npy", np.full((32, 32), np.nan))
    with pytest.raises(CADiffError, match=rf"{name}.npy: expected a map of finite numbers"):
        score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)
    np.save(tmp_path / f"{name}.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CADiffError, match="does not open"):
        score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)
    (tmp_path / f"{name}.npy").unlink()
    with pytest.raises(UsageError, match=rf"{name}: expected one anomaly map of .*, found none"):
        score_maps(Task(toy.params, "cube", "destseg", toy.samples), tmp_path)
