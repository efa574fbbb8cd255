"""A mask's exemplar set into a normal image, against hand-worked pictures."""

from __future__ import annotations

import numpy as np
import pytest

from cadiff.data.images import load_samples
from cadiff.generator.planting import cut, plant, setting_of, without
from cadiff.masks import make_masks, mask_of, placed_mask
from cadiff.masks.exemplars import IN_PLACE, ProductFinder
from cadiff.masks.shapes import Transform, apply_transform, transform_picture
from cadiff.params import Params
from cadiff.records import SampleRow

SIDE = 16


@pytest.fixture
def own() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:5, 3:8] = True
    return mask


def grey(value: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), value).astype(np.uint8)


def test_a_picture_moves_as_its_mask_does(own: np.ndarray) -> None:
    picture = np.where(own[..., None], np.uint8([200, 100, 50]), np.uint8(0))  # black around it: a pixel off would be seen
    for turn, mirror, centre in ((0.0, False, (9.0, 10.0)), (np.pi / 2, False, (8.0, 7.0)), (0.0, True, (6.0, 8.0))):
        transform = Transform(1.0, turn, mirror, centre)
        moved, mask = transform_picture(picture, own, transform), apply_transform(own, transform)
        assert mask.sum() == own.sum()
        np.testing.assert_allclose(moved[mask], np.broadcast_to([200, 100, 50], (15, 3)), atol=1e-2)
        assert Transform.of(transform.numbers()) == transform


def test_inside_the_mask_is_the_exemplar_outside_the_normal(own: np.ndarray) -> None:
    exemplar, normal, transform = grey(50), grey(150), Transform(1.0, 0.0, False, (10.0, 8.0))
    exemplar[own] = [10, 20, 30]
    mask = apply_transform(own, transform)

    def planted(*arguments: object, w: float = 1.0) -> np.ndarray:
        return plant(normal, [cut(exemplar, own, *arguments, "spot")], {"spot": w})  # type: ignore[arg-type]

    assert (planted(transform, mask, None)[mask] == [10, 20, 30]).all()
    assert (planted(transform, mask, normal)[mask] == [30, 60, 90]).all(), "under the normal's light, three times as bright"
    assert (planted(transform, mask, normal)[~mask] == 150).all()
    assert (planted(None, own, None)[own] == [10, 20, 30]).all(), "as it lies"


def test_the_start_follows_the_intensity(own: np.ndarray) -> None:
    """150 - 100 w inside the mask, 0 at least and the picture itself for w <= 0; two types have each its own w."""
    exemplar, other = grey(50), np.roll(own, 8, 0)
    chosen = [cut(exemplar, own, None, own, None, "spot"), cut(exemplar, own, None, other, None, "hole")]
    for w, expected in ((-1.0, 150), (0.0, 150), (0.5, 100), (1.0, 50), (1.4, 10), (2.0, 0)):
        planted = plant(grey(150), chosen, {"spot": w, "hole": 0.5})
        assert (planted[own] == expected).all(), w
        assert (planted[other] == 100).all()
        assert (planted[~own & ~other] == 150).all()


def test_what_the_light_takes_beyond_white_is_white(own: np.ndarray) -> None:
    exemplar = grey(50)
    exemplar[own] = 100
    assert (plant(grey(150), [cut(exemplar, own, None, own, grey(150), "spot")], {"spot": 1.0})[own] == 255).all()


def test_under_the_mask_is_what_lies_around_it(own: np.ndarray) -> None:
    """Of an even picture nothing is left of the anomaly; a ramp is mirrored at the mask's edge, its nearest pixel where that ends."""
    spotted = grey(120)
    spotted[own] = [250, 0, 0]
    assert (without(spotted, own) == 120).all()
    ramp = np.broadcast_to(10 * np.arange(SIDE, dtype=np.uint8)[None, :, None], (SIDE, SIDE, 3)).copy()
    band = np.zeros((SIDE, SIDE), bool)
    band[:, 10:] = True
    row = without(ramp, band)[8, :, 0].tolist()
    assert row[:10] == list(range(0, 100, 10)), "outside it is untouched"
    assert row[10:] == [80, 70, 60, 50, 40, 30]
    most = np.zeros((SIDE, SIDE), bool)
    most[:, 2:] = True
    assert without(ramp, most)[8, :, 0].tolist() == [0, 10, 0, *[10] * 13], "beyond the picture there is nothing to mirror"
    everywhere = np.ones_like(own)
    assert (without(ramp, everywhere) == ramp).all(), "nothing to guess from"


def test_a_mask_in_place_lies_in_its_exemplars_own_picture(small_params: Params, nut_samples: list[SampleRow]) -> None:
    masks = small_params.masks.model_copy(update={"in_place": 1.0})
    generate = small_params.generate.model_copy(update={"start": "exemplar", "strength": 0.5})
    params = small_params.model_copy(update={"masks": masks, "generate": generate})
    by_id, normal = {row.sample_id: row for row in nut_samples}, np.full((64, 64, 3), 99, np.uint8)
    rows = make_masks(params, "nut", nut_samples)
    assert {row.mask_source for row in rows} == {IN_PLACE}
    for row in rows:
        exemplar = by_id[str(row.exemplar_id)]
        images, own = load_samples([exemplar], 64)
        assert (mask_of(row) == own[0]).all()
        assert exemplar.anomaly_type == row.anomaly_type
        assert by_id[str(row.normal_id)].role == "normal"
        picture, chosen = setting_of(params, normal, row, by_id)
        assert (picture[~own[0]] == images[0][~own[0]]).all(), "its surroundings are its own"
        assert (plant(picture, chosen, {row.anomaly_type: 1.0}) == images[0]).all(), "w = 1 is the exemplar"
        assert np.abs(picture[own[0]].astype(int) - images[0][own[0]]).mean() > 2, "w = 0 is without its anomaly"
    normals, exemplars = ([row for row in nut_samples if row.role == role] for role in ("normal", "exemplar"))
    placed = placed_mask(params, "nut", normals, exemplars, "rust", ProductFinder(64))
    assert placed.mask_source != IN_PLACE, "where a given picture is to be seen, the mask lies on it"


def test_half_of_the_masks_in_place_is_about_half(small_params: Params, nut_samples: list[SampleRow]) -> None:
    masks = small_params.masks.model_copy(update={"in_place": 0.5})
    generate = small_params.generate.model_copy(update={"per_type": 60})
    rows = make_masks(small_params.model_copy(update={"masks": masks, "generate": generate}), "nut", nut_samples)
    assert 60 < sum(row.mask_source == IN_PLACE for row in rows) < 120
