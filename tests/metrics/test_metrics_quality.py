"""Quality signals on images whose answer is known: copies, changes beside the mask, defects that cannot be seen."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parameters import bare
from scipy.ndimage import affine_transform, center_of_mass, gaussian_filter

from cadiff.errors import CADiffError
from cadiff.metrics.copies import originals
from cadiff.metrics.quality import assess, mask_agreement
from cadiff.metrics.windows import Normals, usual_distance, window_around
from cadiff.pictures import Pictures
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, QualityRow, SampleRow, to_table
from cadiff.reporting.signals import COPY, FAINT
from cadiff.storage import encode_png, sha256_bytes, write_image, write_table
from cadiff.task import Task

SIDE = 64
PARAMS = bare(products={"plate": {}}, dataset={"size": SIDE})
SHAPES = [(64, 64), (64, 96), (80, 64)]  # of the normals, in turn
COPIES: dict[str, dict[str, Any]] = {
    "pasted": {}, "mirrored": {"mirror": True}, "turned": {"turn": 37}, "larger": {"scale": 1.2},
    "all of it": {"turn": 200, "mirror": True, "scale": 0.9},
}  # fmt: skip


def plate(seed: int, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """A cloudy grey plate."""
    clouds = gaussian_filter(np.random.default_rng(seed).normal(0, 60, shape), 4)
    return np.repeat((150 + clouds)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def grain(seed: int) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(200 + seed).normal(0, 60, (SIDE, SIDE, 3)), (1, 1, 0))


def spot(seed: int, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A plate with a ragged spot, and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx = rng.uniform(16, 48, 2)
    mask = np.hypot(y - cy, x - cx) < 8 + 3 * np.sin(5 * np.arctan2(y - cy, x - cx) + seed)
    image = plate(100 + seed)
    image[mask] = np.clip(np.array(colour) + grain(seed)[mask], 0, 255)
    return image, mask


def pasted(
    image: np.ndarray, mask: np.ndarray, on: np.ndarray, turn: float = 0, mirror: bool = False, scale: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """What is inside the mask, and nothing around it, on a normal plate of any shape; off its place where anything is done to it."""
    there, colours = np.zeros(on.shape[:2], bool), np.zeros(on.shape)
    there[:SIDE, :SIDE], colours[:SIDE, :SIDE] = mask, image
    if turn or mirror or scale != 1:
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        back = np.array([[cos, sin], [-sin, cos]]) @ np.diag([1, -1 if mirror else 1]) / scale
        offset = np.array(center_of_mass(mask)) - back @ (30.3, 33.8)
        there = affine_transform(mask.astype(float), back, offset, on.shape[:2], order=1) > 0.5
        colours = np.stack([affine_transform(image[..., c].astype(float), back, offset, on.shape[:2], order=1) for c in range(3)], -1)
    return np.where(there[..., None], colours, on).round().clip(0, 255).astype(np.uint8), there


def sample(root: Path, role: str, name: str, image: np.ndarray, mask: np.ndarray | None = None) -> SampleRow:
    write_image(root / f"{name}.png", image)
    if mask is not None:
        write_image(root / f"{name}-mask.png", np.where(mask, 255, 0).astype(np.uint8))
    kind, mask_path = ("spot", str(root / f"{name}-mask.png")) if mask is not None else (None, None)
    height, width = image.shape[:2]
    return SampleRow(name, "plates", "plate", kind, role, str(root / f"{name}.png"), mask_path, width, height, "0" * 64)  # type: ignore[arg-type]


def generated(name: str, image: np.ndarray, mask: np.ndarray, normal: str | None = None) -> GeneratedRow:
    png = encode_png(image)
    masked = encode_png(np.where(mask, 255, 0).astype(np.uint8))
    return GeneratedRow(name, "plate", ["spot"], {"bytes": png, "path": f"{name}.png"}, {"bytes": masked, "path": f"{name}-mask.png"},
                        "drawn", None, None, 0, None, None, None, normal, [None], None, None, "0" * 16, sha256_bytes(png))  # fmt: skip


def normal(k: int) -> np.ndarray:
    return plate(k, SHAPES[k % 3])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, QualityRow]:
    root = tmp_path_factory.mktemp("quality")
    samples = [sample(root, "normal", f"normal-{k}", normal(k)) for k in range(8)]
    exemplars = [spot(k, (60, 40, 30)) for k in range(5)]
    samples += [sample(root, "exemplar", f"spot-{k}", *exemplar) for k, exemplar in enumerate(exemplars)]
    fresh, fresh_mask = spot(50, (60, 40, 30))
    original, original_mask = exemplars[2]
    other = original.copy()
    other[original_mask] = np.clip((60, 40, 30) + grain(51)[original_mask], 0, 255)
    on_normal = normal(4)
    on_normal[:SIDE, :SIDE][fresh_mask] = (60, 40, 30)
    on_mask = np.zeros(SHAPES[1], bool)
    on_mask[:SIDE, :SIDE] = fresh_mask
    shard = [
        generated("copy", *exemplars[2]),
        *(generated(f"copy, {name}", *pasted(original, original_mask, normal(7), **how), "normal-7") for name, how in COPIES.items()),
        generated("copied mask", other, original_mask),
        generated("fresh", fresh, fresh_mask),
        generated("on-normal", on_normal, on_mask, "normal-4"),
        generated("unseen", normal(3), fresh_mask, "normal-3"),
    ]
    write_table(root / "shards" / "spot.parquet", to_table(shard, GENERATED_SCHEMA))
    found = assess(Task(PARAMS, "plate", "cadiff", samples), root / "shards")
    return {row.sample_id: row for row in found}


def test_a_copy_is_found_and_its_original_named(rows: dict[str, QualityRow]) -> None:
    copy, fresh = rows["copy"], rows["fresh"]
    assert copy.nearest_exemplar == "spot-2"
    assert copy.exemplar_distance == pytest.approx(0, abs=1e-4)
    assert fresh.exemplar_distance is not None
    assert fresh.exemplar_distance > COPY


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_on_any_normal_and_however_it_lies(rows: dict[str, QualityRow], name: str) -> None:
    row = rows[f"copy, {name}"]
    assert row.nearest_exemplar == "spot-2"
    assert row.exemplar_distance is not None
    assert row.exemplar_distance < COPY


def test_other_content_in_a_copied_mask_is_no_copy(rows: dict[str, QualityRow]) -> None:
    distance = rows["copied mask"].exemplar_distance
    assert distance is not None
    assert distance > COPY


def test_copies_of_a_single_exemplar_are_found() -> None:
    image, mask = spot(2, (60, 40, 30))
    shown = [pasted(image, mask, normal(7), turn=37), spot(50, (60, 40, 30)), spot(51, (60, 40, 30))]
    turned, *independent = originals([image], [mask]).distances(*zip(*shown, strict=True))[:, 0]
    assert turned < COPY < min(independent)


def test_no_copy_can_be_told_among_exemplars_that_are_all_alike() -> None:
    image, mask = plate(0), np.zeros((2, SIDE, SIDE), bool)
    mask[:, 20:30, 20:30], image[20:30, 20:30] = True, 10
    assert np.isinf(originals([image] * 2, mask).distances([image], mask[:1])).all()
    assert np.isinf(originals([image], mask[:1]).distances([image], mask[:1])).all(), "a flat one alone"


def test_a_large_picture_is_compared_as_a_small_one() -> None:
    """Cells take the mean of the pixels that they cover: noise finer than a cell does not hide a copy."""
    image, mask = (np.kron(each, np.ones((4, 4) + (1,) * (each.ndim - 2), each.dtype)) for each in spot(2, (60, 40, 30)))
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 30, image.shape), 0, 255).astype(np.uint8)
    assert originals([image], [mask]).distances([noisy], [mask]).item() < COPY


def test_what_lies_beside_a_defect_and_how_large_the_canvas_is_change_no_distance() -> None:
    exemplars, (image, mask) = [spot(k, (60, 40, 30)) for k in range(4)], spot(9, (60, 40, 30))
    known = originals(*zip(*exemplars, strict=True))
    far, far_mask = np.random.default_rng(0).integers(0, 256, (900, 1300, 3), dtype=np.uint8), np.zeros((900, 1300), bool)
    far[600 : 600 + SIDE, 900 : 900 + SIDE], far_mask[600 : 600 + SIDE, 900 : 900 + SIDE] = image, mask
    expected, found = known.distances([image, far], [mask, far_mask])
    assert found == pytest.approx(expected, abs=1e-3)
    assert (expected > 0.1).all()


def test_exemplars_are_measured_against_each_other(rows: dict[str, QualityRow]) -> None:
    own = [row for row in rows.values() if row.source == "exemplar"]
    assert len(own) == 5
    assert all(row.nearest_exemplar != row.sample_id for row in own)
    assert np.median([row.exemplar_distance for row in own if row.exemplar_distance]) == pytest.approx(1, rel=1e-5)


def test_a_defect_that_is_not_there_is_as_usual_as_normal_images(rows: dict[str, QualityRow]) -> None:
    unseen, fresh = rows["unseen"].normal_distance, rows["fresh"].normal_distance
    assert unseen is not None
    assert fresh is not None
    assert unseen < FAINT < fresh


def test_agreement_is_with_the_rows_own_normal(rows: dict[str, QualityRow]) -> None:
    assert rows["on-normal"].mask_agreement == 1
    assert rows["fresh"].mask_agreement is None, "it has no normal of its own"
    assert rows["unseen"].mask_agreement is None, "nothing changed"


def test_agreement_by_hand() -> None:
    normals = [plate(k, (64, 100)) for k in range(2)]
    mask = np.zeros((64, 100), bool)
    mask[10:20, 10:20] = True
    image = normals[1].copy()
    image[10:20, 10:20] = np.clip(image[10:20, 10:20].astype(int) - 40, 0, 255)
    image[40:50, 40:45] = np.clip(image[40:50, 40:45].astype(int) - 40, 0, 255)  # half the area, beside the mask
    assert mask_agreement(image, mask, normals[1]) == pytest.approx(2 / 3, rel=0.01)
    assert mask_agreement(image, mask, normals[0]) < 0.2, "another normal differs everywhere"
    faint = normals[1].copy()
    faint[10:20, 10:20] += 1
    assert mask_agreement(faint, mask, normals[1]) is None
    beside = normals[1].copy()
    beside[20, 10:20] = np.clip(beside[20, 10:20].astype(int) - 40, 0, 255)  # the row below: within the margin of 1
    assert mask_agreement(beside, mask, normals[1]) == 1
    assert mask_agreement(beside, np.zeros_like(mask), normals[1]) == 0


@pytest.mark.parametrize(("change", "message"), [
    ({"normal_id": "another"}, "its normal another is none of the samples"),
    ({"normal_id": "normal-1"}, r"expected 96x64 px, the canvas of its normal normal-1 \(dataset.size: 64\), found 64x64"),
])  # fmt: skip
def test_a_row_that_does_not_fit_its_normal_is_named(change: dict[str, str], message: str, tmp_path: Path) -> None:
    samples = [sample(tmp_path, "normal", f"normal-{k}", normal(k)) for k in range(2)]
    shard = [dataclasses.replace(generated("odd", *spot(3, (60, 40, 30))), **change)]  # type: ignore[arg-type]
    write_table(tmp_path / "shards" / "spot.parquet", to_table(shard, GENERATED_SCHEMA))
    with pytest.raises(CADiffError, match=f"odd: {message}"):
        assess(Task(PARAMS, "plate", "cadiff", samples), tmp_path / "shards")


def test_usual_distance_by_hand() -> None:
    """Windows of one patch each at 0, 1 and 10, of three images: nearest others at 1, 1 and 9; the first two of one image: 10, 9, 9."""
    found = torch.tensor([[[0.0]], [[1.0]], [[10.0]]])
    assert usual_distance(found, torch.tensor([0, 1, 2]), 3) == 1
    assert usual_distance(found, torch.tensor([0, 0, 1]), 3) == 9
    assert usual_distance(found, torch.tensor([0, 1, 2]), 1) == 1
    assert np.isnan(usual_distance(found, torch.tensor([4, 4, 4]), 3))


@pytest.mark.parametrize(("shape", "place", "expected"), [
    ((64, 64), np.s_[10:12, 10:12], (64, 0, 0)),  # the picture is no larger than the smallest window
    ((256, 400), np.s_[100:104, 300:304], (64, 70, 270)),
    ((256, 400), np.s_[0:2, 398:400], (64, 0, 336)),  # at a corner: moved into the picture
    ((256, 400), np.s_[100:145, 100:102], (91, 77, 56)),  # twice 45 is 90: the next step of sqrt(2) from 64
    ((256, 400), np.s_[10:250, 20:200], (256, 0, 0)),  # as large as the shorter side lets it be
    ((200, 900), np.s_[90:92, 10:890], (200, 0, 350)),  # longer than any window: around its middle
])  # fmt: skip
def test_window_by_hand(shape: tuple[int, int], place: tuple[slice, slice], expected: tuple[int, int, int]) -> None:
    mask = np.zeros(shape, bool)
    mask[place] = True
    window = window_around(mask)
    side, top, left = expected
    assert (window.side, window.top) == (side, pytest.approx(top, abs=1))
    assert window.left == pytest.approx(left, abs=1)
    assert window.of(mask).shape == (side, side)
    assert window.of(mask).any()


def test_a_window_has_some_of_a_mask_whose_middle_is_free() -> None:
    mask = np.zeros((100, 600), bool)
    mask[40:60, :20] = mask[40:60, -20:] = True
    assert window_around(mask).of(mask).any()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Normals:
    """Normal plates of 400 px and more: shrunk to the network's 224 a defect of 6 px has 3."""
    root = tmp_path_factory.mktemp("large")
    shapes = [(400, 400), (400, 520), (480, 400), (400, 400)]
    rows = [sample(root, "normal", f"n{k}", plate(k, shape)) for k, shape in enumerate(shapes)]
    return Normals(Pictures(rows, 400))


def test_a_small_defect_in_a_large_picture_is_seen(large: Normals) -> None:
    clean = plate(50, (400, 460))
    mask = np.zeros(clean.shape[:2], bool)
    mask[200:206, 300:306] = True
    marked = clean.copy()
    marked[mask] = np.random.default_rng(0).integers(0, 256, (36, 3))
    unseen, seen = large.distances([clean, marked], [mask, mask])
    assert unseen is not None
    assert seen is not None
    assert seen > 1.5 * unseen
    assert seen > FAINT
    assert large.distances([clean], [np.zeros_like(mask)]) == [None]


def test_places_beside_each_other_share_a_bank(large: Normals) -> None:
    masks = []
    for left in (300, 302, 304):
        mask = np.zeros((400, 460), bool)
        mask[100:104, left : left + 4] = True
        masks.append(mask)
    before = large.bank.cache_info().misses
    large.distances([plate(51, (400, 460))] * 3, masks)
    assert large.bank.cache_info().misses == before + 1


def test_one_normal_alone_says_nothing_of_what_is_usual(tmp_path: Path) -> None:
    alone = Normals(Pictures([sample(tmp_path, "normal", "n", plate(0))], SIDE))
    image, mask = spot(3, (60, 40, 30))
    assert alone.distances([image], [mask]) == [None]


def test_no_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CADiffError, match="expected shards of anomalies"):
        assess(Task(PARAMS, "plate", "cadiff", []), tmp_path)


def test_the_same_piece_twice_among_the_exemplars_hides_no_copy() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    images[1] = images[0]
    masks = np.zeros((3, 24, 24), bool)
    masks[:, 6:18, 6:18] = True
    found = originals(images, masks).distances(images[:1], masks[:1])
    assert np.isfinite(found).all()
    assert found[0, 0] < COPY < found[0, 2]
