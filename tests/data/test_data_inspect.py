from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from cadiff.data import inspect_root
from cadiff.errors import UsageError
from cadiff.params import Params


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


@pytest.mark.parametrize(("height", "width", "small"), [(1, 1, True), (4, 6, False)])
def test_a_defect_is_told_as_large_as_it_will_be_learned(mvtec_root, height: int, width: int, small: bool):
    """24 px images: one pixel is about seven at 64 px, which is hardly to be seen; told at 24 px it is one of 576."""
    for path in (mvtec_root / "nut/ground_truth/scratch").glob("*.png"):
        mask = np.zeros((24, 24), np.uint8)
        mask[4 : 4 + height, 6 : 6 + width] = 255
        Image.fromarray(mask).save(path)
    assert f"5 held out, a defect covers {height * width} of 24x24 pixels in the median" in inspect_root(mvtec_root, size=24).text()
    line = next(line for line in inspect_root(mvtec_root).text().splitlines() if "scratch" in line)
    assert ("of 64x64 pixels in the median  (hardly to be seen" in line) == small


def test_images_that_are_not_square_are_said_to_be_squeezed(mvtec_root):
    for path in (mvtec_root / "nut/train/good").glob("*.png"):
        Image.new("RGB", (48, 24)).save(path)
    assert "squeezed to 64x64" in inspect_root(mvtec_root).text()


def test_few_images_of_a_type_are_told(mvtec_root):
    lines = {line.split(":")[0].strip(): line for line in inspect_root(mvtec_root).text().splitlines()}
    assert lines["scratch"].endswith("(few: give 3 to learn from and 6 that tell whether it helped)"), "two and five"
    assert "(few" not in lines["dent"], "nothing at all is held out, which is told instead"


def test_masks_that_mark_all_but_the_defect_are_told(mvtec_root):
    for path in (mvtec_root / "nut/ground_truth/scratch").glob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(path)
    line = next(line for line in inspect_root(mvtec_root).text().splitlines() if "scratch" in line)
    assert "more than half: a mask is white where the defect is; are these inverted?" in line


def test_the_lines_for_the_parameters_are_those_that_read_it(mvtec_root, tmp_path):
    (mvtec_root / "nut").rename(mvtec_root / "01")
    values = yaml.safe_load(inspect_root(mvtec_root).text().split("In params.yaml:\n")[1])
    assert values == {"dataset": {"layout": "mvtec", "root": str(mvtec_root.resolve())}, "products": {"01": {}}}
    assert Params(**values).products == {"01": {}}
    (mvtec_root / "01").rename(mvtec_root / "nut")
    (mvtec_root / "nut/train/good/001.png").write_bytes(b"not an image")
    assert "In params.yaml" not in inspect_root(mvtec_root).text(), "first the problems"


@pytest.mark.parametrize(("name", "spelt"), [("train", "Train"), ("ground_truth", "groundtruth"), ("test", "TEST")])
def test_a_folder_in_other_letters_is_named(mvtec_root, name: str, spelt: str):
    (mvtec_root / "nut" / name).rename(mvtec_root / "nut" / spelt)
    assert inspect_root(mvtec_root).problems[0] == f"{mvtec_root / 'nut' / spelt}: not read; expected the name {name}: rename it"
