"""A trained toy detector applied to pictures as anybody has them: files, Pillow images, arrays, of other sizes and modes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label, regionprops

import cadiff
from cadiff.detection.inspector import Inspector, load_detector, marked, regions_of
from cadiff.detection.scoring import load_segmenter
from cadiff.errors import CADiffError, UsageError
from cadiff.storage import read_image, read_json, write_json
from cadiff.task import Task
from cadiff.thresholds import Threshold, Thresholds


@pytest.fixture(scope="module")
def inspector(inspected) -> Inspector:
    return load_detector(inspected.detector)


def _rows(inspected, role: str, kind: str | None = None):
    return [row for row in inspected.samples if row.role == role and row.anomaly_type == kind]


def test_says_what_the_evaluated_detector_says(inspected, inspector) -> None:
    """The same scores, maps and thresholds as in the stage's own table, whichever way the detector is named."""
    rows = [row for row in inspected.samples if row.role in ("held_out", "test_good", "calibration")]
    scores = load_segmenter(Task(inspected.params, "cube", "exemplars"), 0, inspected.detector)[0].score(rows)
    threshold = read_json(inspected.detector / "seed-0.json")["image"]["value"]
    for row, map_, score in zip(rows, scores.maps, scores.images, strict=True):
        found = inspector.predict(row.image_path)
        assert found.score == pytest.approx(score, abs=1e-5)
        assert np.abs(found.heat - map_).max() < 1e-5, "these pictures are at the canvas already"
        if abs(score - threshold) > 1e-4:
            assert found.defective == (score > threshold)
    for path in (inspected.detector, inspected.detector / "seed-0.json", str(inspected.detector / "seed-0.safetensors")):
        assert cadiff.load_detector(path).predict(rows[0].image_path).score == inspector.predict(rows[0].image_path).score


def test_a_defect_has_a_type_a_mask_and_regions_where_it_is(inspected, inspector) -> None:
    right, found_at = [], []
    for kind in ("blot", "line"):
        for row in _rows(inspected, "held_out", kind):
            found = inspector.predict(Path(row.image_path))
            truth = read_image(row.mask_path, "L") > 0
            if not found.defective:
                continue
            assert found.mask.any()
            assert found.mask.shape == truth.shape
            assert found.score > found.threshold
            right.append(found.anomaly_type == kind)
            found_at.append((found.mask & truth).any())
            assert sum(region.area for region in found.regions) == found.mask.sum()
    assert len(right) >= 5, "the toy is learned"
    assert np.mean(right) >= 0.7
    assert np.mean(found_at) >= 0.8


def test_a_good_picture_has_none_of_these(inspected, inspector) -> None:
    seen = [inspector.predict(row.image_path) for row in _rows(inspected, "calibration")]
    good = [found for found in seen if found.defective is False]
    assert len(good) == len(seen), "none lies above the largest of their scores"
    assert all(found.anomaly_type is None and found.regions == [] and not found.mask.any() for found in good)


def test_paths_pillow_images_and_arrays_are_one_picture(inspected, inspector) -> None:
    path = _rows(inspected, "held_out", "blot")[0].image_path
    first = inspector.predict(path)
    with Image.open(path) as image:
        others = [inspector.predict(image), inspector.predict(image.convert("RGBA")), inspector.predict(np.asarray(image))]
    assert {found.score for found in others} == {first.score}
    grey = np.random.default_rng(0).integers(100, 140, (40, 40), dtype=np.uint8)
    colour = inspector.predict(np.stack([grey] * 3, -1)).score
    assert inspector.predict(grey).score == inspector.predict(Image.fromarray(grey)).score == colour


def test_another_size_is_answered_at_its_own_size(inspected, inspector) -> None:
    row = _rows(inspected, "held_out", "blot")[0]
    large = Image.open(row.image_path).resize((row.width * 5, row.height * 5), Image.Resampling.NEAREST)
    found = inspector.predict(large)
    assert found.heat.shape == found.mask.shape == (row.height * 5, row.width * 5)
    small = inspector.predict(row.image_path)
    assert found.score == pytest.approx(small.score, abs=0.2)
    assert found.defective
    assert small.defective
    first, other = small.regions[0], found.regions[0]
    assert other.left == pytest.approx(first.left * 5, abs=10)
    assert other.top == pytest.approx(first.top * 5, abs=10)
    assert inspector.predict(np.full((20, 100, 3), 120, np.uint8)).heat.shape == (20, 100)


def test_several_together_are_each_as_alone(inspected, inspector) -> None:
    """Of three shapes, so of one tile and of two, in another order; and one of more tiles than go together."""
    images = [read_image(row.image_path) for row in inspected.samples if row.role != "exemplar"][:14]
    images.insert(3, np.random.default_rng(0).integers(100, 140, (32, 250, 3), dtype=np.uint8))
    together = inspector.predict_all(images)
    for image, found in zip(images, together, strict=True):
        alone = inspector.predict(image)
        assert found.score == pytest.approx(alone.score, abs=1e-5)
        assert np.abs(found.heat - alone.heat).max() < 1e-5


def _pair(image: float, pixel: float) -> Thresholds:
    return Thresholds(*(Threshold(value, 9, 0.1, 0.0, 0.3, 90) for value in (image, pixel)))


def test_marked_is_above_the_pixel_threshold_or_the_images_or_the_peak() -> None:
    heat = np.array([[0.1, 0.4], [0.6, 0.9]], np.float32)
    assert marked(heat, _pair(0.3, 0.5)).tolist() == [[False, False], [True, True]]
    assert marked(heat, _pair(0.3, 0.95)).tolist() == [[False, True], [True, True]]
    assert marked(heat, _pair(0.91, 0.95)).tolist() == [[False, False], [False, True]]


def test_regions_are_scikit_images_components() -> None:
    rng = np.random.default_rng(0)
    for density in (0.05, 0.3, 0.6):
        heat = rng.random((40, 60)).astype(np.float32)
        mask = heat > 1 - density
        expected = {
            (p.bbox[1], p.bbox[0], p.bbox[3] - p.bbox[1], p.bbox[2] - p.bbox[0], int(p.area), float(p.intensity_max))
            for p in regionprops(label(mask, connectivity=2), heat)
        }
        found = regions_of(mask, heat)
        assert {(r.left, r.top, r.width, r.height, r.area) for r in found} == {e[:5] for e in expected}
        assert sorted(r.score for r in found) == pytest.approx(sorted(e[5] for e in expected))
        areas = [r.area for r in found]
        assert areas == sorted(areas, reverse=True)
    assert regions_of(np.zeros((4, 4), bool), np.zeros((4, 4), np.float32)) == []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((40, 40, 3), np.float32), r"the array: expected pixels of shape \(h, w, 3\).* found float32"),
        (np.zeros((40, 40, 4), np.uint8), r"found uint8 \(40, 40, 4\)"),
        (np.zeros((8, 40, 3), np.uint8), "expected at least 16 px of the shorter side"),
        (np.zeros((20, 400, 3), np.uint8), "expected sides of at most 8 to 1"),
        (Image.fromarray(np.zeros((40, 40), np.uint16)), "expected 8 bits a channel"),
        (Image.fromarray(np.zeros((40, 40, 4), np.uint8)), "found transparent pixels"),
        ("no.png", "no.png: expected an image, but there is no such file"),
    ],
)
def test_what_is_no_such_picture_is_refused(inspector, image, said: str) -> None:
    with pytest.raises(CADiffError, match=said):
        inspector.predict(image)


def test_without_a_threshold_there_is_a_score_and_no_verdict(inspected, tmp_path) -> None:
    shutil.copytree(inspected.detector, tmp_path / "made")
    values = read_json(tmp_path / "made" / "seed-0.json")
    write_json(tmp_path / "made" / "seed-0.json", {**values, "image": None, "pixel": None, "classifier": None, "classes": None})
    (tmp_path / "made" / "classifier-0.safetensors").unlink()
    row = _rows(inspected, "held_out", "blot")[0]
    found = load_detector(tmp_path / "made").predict(row.image_path)
    assert (found.defective, found.threshold, found.regions, found.anomaly_type, found.mask.any()) == (None, None, [], None, False)
    assert found.score == load_detector(inspected.detector).predict(row.image_path).score


def test_what_is_no_trained_detector_is_told(inspected, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"expected a trained detector \(seed-\*.json with .*found none"):
        load_detector(tmp_path)
    with pytest.raises(UsageError, match=r"seed-4.json with .*, found seeds 0"):
        load_detector(inspected.detector, 4)
    shutil.copytree(inspected.detector, tmp_path / "made")
    values = read_json(tmp_path / "made" / "seed-0.json")
    write_json(tmp_path / "made" / "seed-0.json", {**values, "made_by": "another"})
    with pytest.raises(CADiffError, match=r"seed-0.safetensors: not the weights that .*seed-0.json is about"):
        load_detector(tmp_path / "made")
    write_json(tmp_path / "made" / "seed-0.json", {**values, "classifier": {**values["classifier"], "variant": "other"}})
    with pytest.raises(CADiffError, match=r"classifier-0.safetensors: expected a classifier other"):
        load_detector(tmp_path / "made")
    (tmp_path / "made" / "classifier-0.safetensors").unlink()
    with pytest.raises(CADiffError, match=r"classifier-0.safetensors: expected this file"):
        load_detector(tmp_path / "made")
