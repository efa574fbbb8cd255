from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cadiff.errors import UsageError
from cadiff.masks import foreground, make_masks, masks_of_type
from cadiff.masks.exemplars import ExemplarMasks, ProductFinder
from cadiff.masks.shapes import LEAST_SHIFT
from cadiff.params import Params
from cadiff.records import MASK_SCHEMA, MaskRow, from_table, to_table
from cadiff.storage import read_image, write_image


def pixels(row: MaskRow) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row.mask["bytes"])))


def with_masks(params: Params, **values) -> Params:
    return params.model_copy(update={"masks": params.masks.model_copy(update=values)})


def test_rows_are_complete_and_fit_their_schema(params, samples):
    rows = make_masks(params, "bar", samples)
    assert Counter(row.anomaly_type for row in rows) == {"missing": 40, "scratch": 40, "spot": 40}
    assert [row.mask_id for row in rows[40:42]] == ["bar/scratch/00000", "bar/scratch/00001"]
    exemplars = {row.sample_id: row.anomaly_type for row in samples if row.role == "exemplar"}
    normals = {row.sample_id for row in samples if row.role == "normal"}
    for row in rows:
        assert pixels(row).shape == (32, 32)
        assert set(np.unique(pixels(row))) == {0, 255}
        assert exemplars[row.exemplar_id] == row.anomaly_type
        assert row.normal_id in normals
    assert from_table(to_table(rows, MASK_SCHEMA), MaskRow) == rows


def test_a_mask_depends_on_its_own_name_alone(params, samples):
    rows = {row.mask_id: row for row in make_masks(params, "bar", samples)}
    few = masks_of_type(params, "bar", list(reversed(samples))[::-1], "spot", 3)
    assert few == [rows[f"bar/spot/{k:05}"] for k in range(3)]
    other_seed = params.model_copy(update={"seed": 1})
    assert masks_of_type(other_seed, "bar", samples, "spot", 3) != few


def test_masks_keep_to_the_product_of_their_normal(params, samples):
    paths = {row.sample_id: row.image_path for row in samples}
    for row in masks_of_type(params, "bar", samples, "scratch", 40):
        if row.mask_source == "exemplars":
            product = foreground(read_image(paths[row.normal_id]))
            assert not (pixels(row)[~product]).any()


def outermost(mask: np.ndarray, product: np.ndarray) -> float:
    """The share of a mask in the product's outermost layer of pixels."""
    layer = product & ~ndimage.binary_erosion(product)
    return layer[mask > 0].mean()


def test_masks_lie_by_the_products_edge_as_their_exemplars_do(params, samples, tmp_path):
    """Chips in a bar's upper rim and marks in its middle: placed at random, masks of both would be cut at the edge or not as it comes."""
    paths = {row.sample_id: row.image_path for row in samples}
    normals = [row for row in samples if row.role == "normal"]
    known = next(row for row in samples if row.role == "exemplar")
    top, left = np.argwhere(foreground(read_image(known.image_path))).min(axis=0)
    for kind, downs, expected in (("chip", (0, 0, 0), 1 / 3), ("mark", (4, 7, 10), 0)):
        exemplars = []
        for index, down in enumerate(downs):
            mask, at = np.zeros((params.base.size,) * 2, np.uint8), left + 6 + 4 * index
            mask[top + down : top + down + 3, at : at + 4] = 255
            write_image(path := tmp_path / kind / f"{index}_mask.png", mask)
            exemplars.append(replace(known, sample_id=f"bar/test/{kind}/{index}", anomaly_type=kind, mask_path=str(path)))
        free, kept = (masks_of_type(with_masks(params, edge=edge), "bar", [*normals, *exemplars], kind, 40) for edge in (1.0, 0.1))
        away = [[abs(outermost(pixels(r), foreground(read_image(paths[r.normal_id]))) - expected) for r in rows] for rows in (free, kept)]
        assert {r.mask_source for r in kept} == {"exemplars"}
        assert max(away[1]) <= 0.1 + 1e-9
        assert max(away[0]) > 0.15, "without the rule some lie elsewhere"


def test_registered_masks_lie_on_each_normals_part_where_their_exemplar_has_them(params, samples):
    """Of six bars in six places; without registration the same masks lie where the exemplar's picture has its bar."""
    by_id = {row.sample_id: row for row in samples}

    def off_place(**values) -> list[float]:
        away = []
        for row in masks_of_type(with_masks(params, spread=0.0, edge=1.0, **values), "bar", samples, "spot", 40):
            exemplar = by_id[row.exemplar_id]
            own = [foreground(read_image(by_id[name].image_path)) for name in (row.exemplar_id, row.normal_id)]
            masks = [read_image(exemplar.mask_path, "L") > 0, pixels(row) > 0]
            corners = [np.argwhere(mask).mean(axis=0) - np.argwhere(bar).min(axis=0) for mask, bar in zip(masks, own, strict=True)]
            away.append(float(np.abs(corners[1] - corners[0]).max()))
        return away

    assert max(off_place(registered=True)) < 1
    assert max(off_place()) > 3


def test_what_is_spread_on_the_part_is_not_what_its_poses_are(params, samples, tmp_path):
    """One corner of six bars in six places: a spread of its own it has none."""
    normals = [row for row in samples if row.role == "normal"]
    exemplars, side, rng = [], params.base.size, np.random.default_rng(0)
    for index, row in enumerate(normals):
        top, left = np.argwhere(foreground(read_image(row.image_path))).min(axis=0)
        mask = np.zeros((side, side), np.uint8)
        mask[top + 3 : top + 7, left + 3 : left + 7] = 255
        write_image(path := tmp_path / f"{index}_mask.png", mask)
        exemplars.append(replace(row, role="exemplar", anomaly_type="spot", mask_path=str(path)))
    write_image(noise := tmp_path / "noise.png", rng.integers(0, 255, (side, side, 3), dtype=np.uint8))
    normals = [replace(row, image_path=str(noise)) if row is normals[0] else row for row in normals]  # a spoilt picture
    shifts = [
        np.array(ExemplarMasks(exemplars, normals, ProductFinder(side), with_masks(params, registered=asked)).spread.shift)
        for asked in (False, True)
    ]
    assert shifts[0].min() > 1.2 * LEAST_SHIFT
    assert shifts[1] == pytest.approx(LEAST_SHIFT)


def test_a_registered_mask_that_a_border_cut_gains_nothing(params, samples, tmp_path):
    """What was beyond the border is not known, so it does not come into the picture with the part."""
    rows, side = [], params.base.size
    known = next(row for row in samples if row.role == "exemplar")
    for index, (top, left) in enumerate([(2, 2), (8, 8), (9, 7)]):
        picture = np.full((side, side, 3), 40, np.uint8)
        picture[top : top + 16, left : left + 20] = 180
        write_image(path := tmp_path / f"{index}.png", picture)
        rows.append(replace(known, sample_id=f"bar/{index}", image_path=str(path), role="normal", anomaly_type=None, mask_path=None))
    mask = np.zeros((side, side), np.uint8)
    mask[:4, :4] = 255
    write_image(path := tmp_path / "mask.png", mask)
    exemplar = replace(rows[0], role="exemplar", anomaly_type="corner", mask_path=str(path))
    chosen = with_masks(params, registered=True, spread=0.0, edge=1.0, min_area=1e-4)
    made = masks_of_type(chosen, "bar", [exemplar, *rows[1:]], "corner", 8)
    assert {row.mask_source for row in made} == {"exemplars"}
    assert max((pixels(row) > 0).sum() for row in made) <= 20


def test_a_normal_of_another_part_gets_no_registered_mask(params, samples, tmp_path):
    rng = np.random.default_rng(0)
    write_image(path := tmp_path / "other.png", rng.normal(128, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8))
    other = [replace(row, image_path=str(path)) if row.role == "normal" else row for row in samples]
    rows = masks_of_type(with_masks(params, registered=True), "bar", other, "spot", 2)
    assert {row.mask_source for row in rows} == {"exemplars, unmoved"}


def test_a_type_beside_the_product_is_not_moved_onto_it(params, samples):
    rows = masks_of_type(params, "bar", samples, "missing", 40)
    centres = np.array([np.argwhere(pixels(row)).mean(axis=0) for row in rows])
    assert np.abs(centres.mean(axis=0) - 2).max() < 1


def test_masks_are_like_their_exemplars_but_no_copies(params, samples):
    own = [read_image(row.mask_path, "L") for row in samples if row.anomaly_type == "scratch"]
    made = [pixels(row) for row in masks_of_type(params, "bar", samples, "scratch", 40)]
    areas, own_areas = ([(mask > 0).sum() for mask in masks] for masks in (made, own))
    assert np.mean(areas) == pytest.approx(np.mean(own_areas), rel=0.35)
    level = [np.ptp(np.argwhere(mask)[:, 1]) > 2 * np.ptp(np.argwhere(mask)[:, 0]) for mask in made]
    assert np.mean(level) > 0.9  # all exemplars are level
    assert len({mask.tobytes() for mask in made}) > 30


def test_what_cannot_be_placed_is_the_exemplar_unmoved_and_says_so(params, samples, capsys):
    rows = masks_of_type(with_masks(params, min_area=0.9), "bar", samples, "spot", 4)
    assert "masks bar spot: 4 of 4 found no place and lie as in their exemplar's picture; see masks.max_cut" in capsys.readouterr().err
    masks = {row.sample_id: read_image(row.mask_path, "L") for row in samples if row.anomaly_type == "spot"}
    for row in rows:
        assert row.mask_source == "exemplars, unmoved"
        assert np.array_equal(pixels(row), masks[row.exemplar_id])


def test_masks_from_a_folder_cycle_in_a_seeded_order(params, samples, tmp_path):
    for kind in ("missing", "scratch", "spot"):
        for index in range(3):
            mask = np.zeros((64, 64), np.uint8)
            mask[20 * index : 20 * index + 8, 8:16] = 255
            write_image(tmp_path / "drawn" / "bar" / kind / f"{index}.png", mask)
    chosen = with_masks(params, source="folder", folder=str(tmp_path / "drawn"))
    rows = [row for row in make_masks(chosen, "bar", samples) if row.anomaly_type == "spot"]
    tops = [int(np.argwhere(pixels(row))[0, 0]) for row in rows]
    assert sorted(tops[:3]) == [0, 10, 20]
    assert tops[:6] == tops[:3] * 2
    assert {(row.mask_source, row.exemplar_id, row.normal_id) for row in rows} == {("folder", None, None)}


def test_what_is_missing_is_named(params, samples, tmp_path):
    with pytest.raises(UsageError, match="bar: expected at least one anomaly"):
        make_masks(params, "bar", [row for row in samples if row.role == "normal"])
    with pytest.raises(UsageError, match="bar: expected train normals"):
        make_masks(params, "bar", [row for row in samples if row.role != "normal"])
    with pytest.raises(UsageError, match="bar: expected exemplars of rust"):
        masks_of_type(params, "bar", samples, "rust", 1)
    empty = with_masks(params, source="folder", folder=str(tmp_path / "drawn"))
    with pytest.raises(UsageError, match=r"bar/missing: expected at least one mask"):
        make_masks(empty, "bar", samples)
    for kind in ("missing", "scratch", "spot"):
        write_image(tmp_path / "drawn" / "bar" / kind / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"a\.png: empty mask"):
        make_masks(empty, "bar", samples)
