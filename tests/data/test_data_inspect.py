from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cadiff.data import inspect_root
from cadiff.errors import UsageError


def test_layouts_are_guessed(mvtec_root, visa_root, loco_root, folder_root):
    layouts = [inspect_root(root).layout for root in (mvtec_root, visa_root, loco_root, folder_root)]
    assert layouts == ["mvtec", "visa", "loco", "folder"]


def test_counts_and_sizes(mvtec_root):
    inspection = inspect_root(mvtec_root)
    (nut,) = inspection.products
    assert nut.roles == {"normal": 4, "test_good": 2, "exemplar": 3, "held_out": 5}
    assert nut.types == {"scratch": {"exemplar": 2, "held_out": 5}, "dent": {"exemplar": 1}}
    assert nut.sizes == {(24, 24): 14}
    assert inspection.problems == []
    text = inspection.text()
    assert "scratch: 2 exemplars, 5 held out, a defect covers " in text
    assert "nothing is held out" in text
    assert "No problems found." in text


def test_every_problem_is_listed_with_its_file(mvtec_root):
    nut = mvtec_root / "nut"
    (nut / "ground_truth/scratch/003_mask.png").unlink()
    (nut / "test/dent/000.png").unlink()
    (nut / "train/good/001.png").write_bytes(b"not an image")
    inspection = inspect_root(mvtec_root)
    files = ("test/scratch/003.png", "ground_truth/dent/000_mask.png", "train/good/001.png")
    assert len(inspection.problems) == len(files)
    for file in files:
        assert any(problem.startswith(f"{nut / file}: ") for problem in inspection.problems)
        assert file in inspection.text()
    assert inspection.products[0].roles["normal"] == 3


def test_one_broken_product_does_not_hide_the_others(folder_root):
    (folder_root / "worse").mkdir()
    (folder_root / "worse" / "table.csv").write_text("picture\n")
    inspection = inspect_root(folder_root)
    assert [summary.product for summary in inspection.products] == ["gear", "worse"]
    assert len(inspection.problems) == 1
    assert "worse" in inspection.problems[0]


def test_a_root_that_is_no_data_set(tmp_path):
    with pytest.raises(UsageError, match="no known layout"):
        inspect_root(tmp_path)
    with pytest.raises(UsageError, match="not there"):
        inspect_root(tmp_path / "nowhere")


def test_a_defect_is_told_as_large_as_it_will_be_learned(mvtec_root):
    """24 px images brought to 12: a mask of 4 x 6 px covers 2 x 3, which is hardly to be seen; at 24 it is not small."""
    scratches = sorted((mvtec_root / "nut/ground_truth/scratch").glob("*.png"))
    for path in scratches:
        mask = np.zeros((24, 24), np.uint8)
        mask[4:8, 6:12] = 255
        Image.fromarray(mask).save(path)
    small, whole = (inspect_root(mvtec_root, size=size).text() for size in (12, 24))
    assert "scratch: 2 exemplars, 5 held out, a defect covers 6 of 12x12 pixels in the median  (hardly to be seen" in small
    assert "scratch: 2 exemplars, 5 held out, a defect covers 24 of 24x24 pixels in the median\n" in whole
    assert "squeezed" not in whole


def test_images_that_are_not_square_are_said_to_be_squeezed(mvtec_root):
    for path in (mvtec_root / "nut/train/good").glob("*.png"):
        Image.new("RGB", (48, 24)).save(path)
    assert "squeezed to 64x64" in inspect_root(mvtec_root).text()
