from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cadiff.data import Inspection, inspect_root
from cadiff.errors import UsageError
from cadiff.params import Params


def look(root: Path) -> Inspection:
    """Of pictures of 24 px, with a base that draws 16."""
    return inspect_root(root, base=16)


def test_layouts_are_guessed(mvtec_root, visa_root, loco_root, folder_root):
    layouts = [look(root).layout for root in (mvtec_root, visa_root, loco_root, folder_root)]
    assert layouts == ["mvtec", "visa", "loco", "folder"]


def test_counts_and_sizes(mvtec_root):
    inspection = look(mvtec_root)
    (nut,) = inspection.products
    assert nut.roles == {"normal": 3, "calibration": 1, "test_good": 2, "exemplar": 3, "held_out": 5}
    assert nut.types == {"scratch": {"exemplar": 2, "held_out": 5}, "dent": {"exemplar": 1}}
    assert nut.sizes == {(24, 24): 14}
    assert inspection.problems == []
    text = inspection.text()
    assert "scratch: 2 exemplars, 5 held out, a defect is 64 px across and covers 4096 px at 256 px" in text, "6 of 24 px, and their square"
    assert "nut: 4 train normals, 2 test normals\n  1 of the train normals set the detector's threshold" in text
    assert "false alarms on 0.5 of good pictures at best" in text
    assert "nothing is held out" in text
    assert "No problems found." in text


def test_every_problem_is_listed_with_its_file(mvtec_root):
    nut = mvtec_root / "nut"
    (nut / "ground_truth/scratch/003_mask.png").unlink()
    (nut / "test/dent/000.png").unlink()
    (nut / "train/good/001.png").write_bytes(b"not an image")
    inspection = look(mvtec_root)
    files = ("test/scratch/003.png", "ground_truth/dent/000_mask.png", "train/good/001.png")
    assert len(inspection.problems) == len(files)
    for file in files:
        assert any(problem.startswith(f"{nut / file}: ") for problem in inspection.problems)
        assert file in inspection.text()
    roles = inspection.products[0].roles
    assert roles["normal"] + roles["calibration"] == 3


def test_a_calibration_picture_that_is_a_trained_on_one_is_told(mvtec_root):
    train = mvtec_root / "nut/train/good"
    assert "copies of ones that are learned from" not in look(mvtec_root).text()
    first, *others = sorted(train.iterdir())
    for path in others:
        path.write_bytes(first.read_bytes())
    assert "  1 of those that set the threshold are copies of ones that are learned from" in look(mvtec_root).text()


def test_too_few_normals_to_keep_one_apart_is_told(mvtec_root):
    for path in sorted((mvtec_root / "nut/train/good").iterdir())[2:]:
        path.unlink()
    text = look(mvtec_root).text()
    assert "nut: 2 train normals" in text
    assert "none of them sets the detector's threshold" in text


def test_one_broken_product_does_not_hide_the_others(folder_root):
    (folder_root / "worse").mkdir()
    (folder_root / "worse" / "table.csv").write_text("picture\n")
    inspection = look(folder_root)
    assert [summary.product for summary in inspection.products] == ["gear", "worse"]
    assert len(inspection.problems) == 1
    assert "worse" in inspection.problems[0]


def test_a_root_that_is_no_data_set(tmp_path):
    with pytest.raises(UsageError, match="no known layout"):
        inspect_root(tmp_path)
    with pytest.raises(UsageError, match="not there"):
        inspect_root(tmp_path / "nowhere")


def resized(root: Path, shape: tuple[int, int], mask: tuple[int, int, int, int], kind: str = "scratch") -> None:
    """All pictures of a product brought to a height and width, and each mask of ``kind`` a box (top, left, height, width)."""
    for path in root.rglob("*.png"):
        Image.open(path).resize(shape[::-1]).save(path)
    top, left, height, width = mask
    for path in (root / "nut/ground_truth" / kind).glob("*.png"):
        pixels = np.zeros(shape, np.uint8)
        pixels[top : top + height, left : left + width] = 255
        Image.fromarray(pixels).save(path)


def line_of(inspection: Inspection, start: str) -> str:
    return next(line.strip() for line in inspection.text().splitlines() if line.strip().startswith(start))


def test_a_defect_is_told_as_large_as_it_is_at_the_canvas(mvtec_root):
    """A crack of 8 x 80 px in a picture of 400 x 640: at 200 px of the shorter side it is half as long and covers a quarter."""
    resized(mvtec_root, (400, 640), (10, 20, 8, 80))
    half = line_of(inspect_root(mvtec_root, size=200), "scratch")
    assert "a defect is 40 px across and covers 160 px at 200 px of the shorter side" in half
    assert "a defect is 80 px across and covers 640 px as stored" in line_of(inspect_root(mvtec_root, size="native"), "scratch")


@pytest.mark.parametrize(
    ("extent", "size", "advice"),
    [(24, 256, ""), (9, 512, "set a larger dataset.size"), (6, "native", "set a larger dataset.size"), (3, "native", "set a larger")],
)
def test_the_canvas_that_is_proposed_shows_the_smallest_defects(mvtec_root, extent: int, size: int | str, advice: str):
    """Of pictures of 700 px: one of 9 px is 3.3 px at 256 px, and the least, 6 px, at 467; one of 6 px needs all of them."""
    resized(mvtec_root, (700, 700), (10, 20, 2, extent))
    inspection = look(mvtec_root)
    values = yaml.safe_load(inspection.text().split("In params.yaml:\n")[1])
    assert values["dataset"]["size"] == size
    assert values.get("detector") == {256: None, 512: {"size": 256}, "native": {"size": 320}}[size], "half, in steps of 64 px"
    assert f"scratch of nut{'' if size != 256 else ', are'}" in line_of(inspection, "# size:")
    assert advice in line_of(inspection, "scratch")
    if extent > 3:
        assert "hardly to be seen" not in line_of(inspect_root(mvtec_root, size=size), "scratch"), "the advice is worth following"


def test_pictures_that_are_enlarged_are_told_and_no_problem(mvtec_root):
    found = look(mvtec_root)
    assert found.problems == []
    assert "14 images are enlarged to 256 px of the shorter side" in found.text()
    assert "enlarged" not in inspect_root(mvtec_root, size=24, base=16).text()
    assert "enlarged" not in inspect_root(mvtec_root, size="native", base=16).text()


def test_a_picture_that_is_smaller_than_what_the_base_draws_is_a_problem(mvtec_root):
    path = mvtec_root / "nut/train/good/002.png"
    Image.new("RGB", (40, 20)).save(path)
    (problem,) = inspect_root(mvtec_root, size="native", base=24).problems
    expected = "which is what the base draws: remove it, or set dataset.size to 24 or more, so that it is enlarged"
    assert problem == f"{path}: 40x20, smaller than base.size (24), {expected}"
    small = inspect_root(mvtec_root, size="native").problems
    assert all("smaller than base.size (64)" in problem for problem in small), "the embedded base draws 64 px"
    assert [problem.split(" (the same of ")[1][:6] for problem in small if "(the same of" in problem] == ["6 more"], "of the scratches"
    assert not inspect_root(mvtec_root, base=24).problems, "it is enlarged to the canvas"


def test_several_shapes_are_told_one_by_one_or_where_there_are_many_by_their_range(mvtec_root):
    assert line_of(look(mvtec_root), "sizes") == "sizes: 24x24 (14)"
    for index in range(4):
        Image.new("RGB", (30 + index, 20 + index)).save(mvtec_root / f"nut/train/good/{index:03}.png")
    assert line_of(look(mvtec_root), "sizes").startswith("sizes: 24x24 (10), 30x20 (1), 31x21 (1)")
    assert line_of(look(mvtec_root), "sizes").endswith("(each keeps its own shape)")
    for index in range(8):
        Image.new("RGB", (40 + index, 20)).save(mvtec_root / f"nut/train/good/1{index:02}.png")
    assert "sizes: 13 shapes, the shorter side 20 to 24 px, 1 to 2.35 to 1" in line_of(look(mvtec_root), "sizes")


def test_few_images_of_a_type_are_told(mvtec_root):
    lines = {line.split(":")[0].strip(): line for line in look(mvtec_root).text().splitlines()}
    assert lines["scratch"].endswith("(few: give 3 to learn from and 6 that tell whether it helped)"), "two and five"
    assert "(few" not in lines["dent"], "nothing at all is held out, which is told instead"


def test_masks_that_mark_all_but_the_defect_are_told(mvtec_root):
    for path in (mvtec_root / "nut/ground_truth/scratch").glob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(path)
    line = next(line for line in look(mvtec_root).text().splitlines() if "scratch" in line)
    assert "more than half: a mask is white where the defect is; are these inverted?" in line


def test_the_lines_for_the_parameters_are_those_that_read_it(mvtec_root, tmp_path):
    (mvtec_root / "nut").rename(mvtec_root / "01")
    values = yaml.safe_load(look(mvtec_root).text().split("In params.yaml:\n")[1])
    dataset = {"layout": "mvtec", "root": str(mvtec_root.resolve()), "table": ".", "size": 256, "calibration": 0.2}
    assert values == {"dataset": dataset, "products": {"01": {}}}
    assert Params(**values).products == {"01": {}}
    (mvtec_root / "01").rename(mvtec_root / "nut")
    (mvtec_root / "nut/train/good/001.png").write_bytes(b"not an image")
    assert "In params.yaml" not in look(mvtec_root).text(), "first the problems"


@pytest.mark.parametrize(("name", "spelt"), [("train", "Train"), ("ground_truth", "groundtruth"), ("test", "TEST")])
def test_a_folder_in_other_letters_is_named(mvtec_root, name: str, spelt: str):
    (mvtec_root / "nut" / name).rename(mvtec_root / "nut" / spelt)
    assert look(mvtec_root).problems[0] == f"{mvtec_root / 'nut' / spelt}: not read; expected the name {name}: rename it"
