"""Quality signals on images whose answer is known: copies, changes beside the mask, defects that cannot be seen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cadiff.errors import CADiffError
from cadiff.masks.shapes import Transform, apply_transform, transform_picture
from cadiff.metrics.copies import originals
from cadiff.metrics.quality import assess, background_spread, mask_agreement, normal_spread
from cadiff.params import Params
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, QualityRow, SampleRow, to_table
from cadiff.reporting.signals import COPY, FAINT
from cadiff.storage import encode_png, sha256_bytes, write_image, write_table

SIDE = 64
COPIES: dict[str, dict[str, Any]] = {
    "pasted": {}, "mirrored": {"mirror": True}, "turned": {"turn": 37}, "larger": {"scale": 1.2},
    "all of it": {"turn": 200, "mirror": True, "scale": 0.9},
}  # fmt: skip


def plate(seed: int) -> np.ndarray:
    """A cloudy grey plate."""
    clouds = gaussian_filter(np.random.default_rng(seed).normal(0, 60, (SIDE, SIDE)), 4)
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
    image: np.ndarray, mask: np.ndarray, on: int, turn: float = 0, mirror: bool = False, scale: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """What is inside the mask, and nothing around it, on a normal plate; off its place where anything is done to it."""
    there, colours = mask, image
    if turn or mirror or scale != 1:
        transform = Transform(scale, math.radians(turn), mirror, (30.3, 33.8))
        there, colours = apply_transform(mask, transform), transform_picture(image, mask, transform)
    return np.where(there[..., None], colours, plate(on)).round().clip(0, 255).astype(np.uint8), there


def sample(root: Path, role: str, name: str, image: np.ndarray, mask: np.ndarray | None = None) -> SampleRow:
    write_image(root / f"{name}.png", image)
    if mask is not None:
        write_image(root / f"{name}-mask.png", np.where(mask, 255, 0).astype(np.uint8))
    kind, mask_path = ("spot", str(root / f"{name}-mask.png")) if mask is not None else (None, None)
    return SampleRow(name, "plates", "plate", kind, role, str(root / f"{name}.png"), mask_path, SIDE, SIDE, "0" * 64)  # type: ignore[arg-type]


def generated(name: str, image: np.ndarray, mask: np.ndarray) -> GeneratedRow:
    png = encode_png(image)
    masked = encode_png(np.where(mask, 255, 0).astype(np.uint8))
    return GeneratedRow(name, "plate", ["spot"], {"bytes": png, "path": f"{name}.png"}, {"bytes": masked, "path": f"{name}-mask.png"},
                        "drawn", None, None, 0, None, None, None, None, None, "0" * 16, sha256_bytes(png))  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, QualityRow]:
    root = tmp_path_factory.mktemp("quality")
    samples = [sample(root, "normal", f"normal-{k}", plate(k)) for k in range(8)]
    exemplars = [spot(k, (60, 40, 30)) for k in range(5)]
    samples += [sample(root, "exemplar", f"spot-{k}", *exemplar) for k, exemplar in enumerate(exemplars)]
    fresh, fresh_mask = spot(50, (60, 40, 30))
    original, original_mask = exemplars[2]
    other = original.copy()
    other[original_mask] = np.clip((60, 40, 30) + grain(51)[original_mask], 0, 255)
    on_normal, unseen = plate(3), plate(4)
    on_normal[fresh_mask] = (60, 40, 30)
    shard = [
        generated("copy", *exemplars[2]),
        *(generated(f"copy, {name}", *pasted(original, original_mask, on=7, **how)) for name, how in COPIES.items()),
        generated("copied mask", other, original_mask),
        generated("fresh", fresh, fresh_mask),
        generated("on-normal", on_normal, fresh_mask),
        generated("unseen", unseen, fresh_mask),
    ]
    write_table(root / "shards" / "spot.parquet", to_table(shard, GENERATED_SCHEMA))
    found = assess(Params(products={"plate": {}}), "plate", "cadiff", samples, root / "shards")
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
    known = originals(image[None], mask[None])
    shown = [pasted(image, mask, on=7, turn=37), spot(50, (60, 40, 30)), spot(51, (60, 40, 30))]
    turned, *independent = known.distances(*(np.stack(each) for each in zip(*shown, strict=True)))[:, 0]
    assert turned < COPY < min(independent)


def test_no_copy_can_be_told_among_exemplars_that_are_all_alike() -> None:
    image, mask = plate(0), np.zeros((2, SIDE, SIDE), bool)
    mask[:, 20:30, 20:30], image[20:30, 20:30] = True, 10
    assert np.isinf(originals(np.stack([image] * 2), mask).distances(image[None], mask[:1])).all()
    assert np.isinf(originals(image[None], mask[:1]).distances(image[None], mask[:1])).all(), "a flat one alone"


def test_a_large_picture_is_compared_as_a_small_one() -> None:
    """Cells take the mean of the pixels that they cover: noise finer than a cell does not hide a copy."""
    image, mask = (np.kron(each, np.ones((4, 4) + (1,) * (each.ndim - 2), each.dtype)) for each in spot(2, (60, 40, 30)))
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 30, image.shape), 0, 255).astype(np.uint8)
    assert originals(image[None], mask[None]).distances(noisy[None], mask[None]).item() < COPY


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


def test_agreement_is_known_only_on_a_known_background(rows: dict[str, QualityRow]) -> None:
    assert rows["on-normal"].mask_agreement == 1
    assert rows["fresh"].mask_agreement is None, "its plate is none of the normals"
    assert rows["unseen"].mask_agreement is None, "nothing changed"


def test_agreement_by_hand() -> None:
    backgrounds = np.stack([plate(k) for k in range(3)])
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:20, 10:20] = True
    image = backgrounds[1].copy()
    image[10:20, 10:20] = np.clip(image[10:20, 10:20].astype(int) - 40, 0, 255)
    image[40:50, 40:45] = np.clip(image[40:50, 40:45].astype(int) - 40, 0, 255)  # half the area, beside the mask
    spread = background_spread(backgrounds)
    assert mask_agreement(image, mask, backgrounds, spread) == pytest.approx(2 / 3, rel=0.01)
    assert mask_agreement(image, mask, backgrounds[[0, 2]], spread) is None
    faint = backgrounds[1].copy()
    faint[10:20, 10:20] += 1
    assert mask_agreement(faint, mask, backgrounds, spread) is None
    assert mask_agreement(image, np.ones_like(mask), backgrounds, spread) is None, "no outside to find the background by"


def test_spread_of_patches_by_hand() -> None:
    """Three images of one patch each at 0, 1 and 10: nearest others at 1, 1 and 9."""
    assert normal_spread(torch.tensor([[[0.0]], [[1.0]], [[10.0]]])) == 1
    assert np.isnan(normal_spread(torch.zeros(1, 1, 1)))


def test_no_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CADiffError, match="expected shards of anomalies"):
        assess(Params(products={"plate": {}}), "plate", "cadiff", [], tmp_path)


def test_the_same_piece_twice_among_the_exemplars_hides_no_copy() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    images[1] = images[0]
    masks = np.zeros((3, 24, 24), bool)
    masks[:, 6:18, 6:18] = True
    found = originals(images, masks).distances(images[:1], masks[:1])
    assert np.isfinite(found).all()
    assert found[0, 0] < COPY < found[0, 2]
