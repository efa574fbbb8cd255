"""Cameras of more than 8 bits, and two cameras in one product: what `cadiff inspect` says, and whether following it ends in rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from data.conftest import SIDE, picture, square
from PIL import Image

from cadiff.data import inspect_root, read_samples
from cadiff.data.cameras import apart
from cadiff.data.levels import levels_of
from cadiff.errors import UsageError
from cadiff.params import DatasetParams, load_params
from cadiff.pictures import read_picture
from cadiff.storage import write_image

PRESET = Path(__file__).resolve().parents[2] / "presets" / "own-data.yaml"


def deepen(root: Path, low: int = 900, step: int = 8) -> dict[str, np.ndarray]:
    """Every picture of a root as a camera of more bits gives it; their 8-bit pixels by name."""
    pixels = {}
    for path in sorted(root.rglob("*.png")):
        if "ground_truth" not in path.parts:
            image = np.asarray(Image.open(path))
            pixels[path.with_suffix(".tif").as_posix()] = image
            tifffile.imwrite(path.with_suffix(".tif"), (image.astype(np.uint16) * step + low).astype(np.uint16), photometric="rgb")
            path.unlink()
    return pixels


def dataset_of(root: Path, **changes: object) -> DatasetParams:
    return DatasetParams(name="toy", layout="mvtec", root=str(root), **changes)


def test_values_are_those_of_the_range(mvtec_root: Path) -> None:
    pixels = deepen(mvtec_root)
    rows = read_samples(dataset_of(mvtec_root, range=[900, 900 + 255 * 8]), "nut")
    assert len(rows) == 14
    for row in rows:
        assert np.array_equal(read_picture(row, "native").image, pixels[row.image_path])


def test_percentiles_are_of_the_train_normals_alone(mvtec_root: Path) -> None:
    """Neither a bright defect nor those kept to set the threshold move what is black and white."""
    deepen(mvtec_root)
    normals = [mvtec_root / f"nut/train/good/{index:03}.tif" for index in range(4)]
    for path in (normals[-1], mvtec_root / "nut/test/good/000.tif", mvtec_root / "nut/test/scratch/000.tif"):
        tifffile.imwrite(path, np.full((SIDE, SIDE), 60000, np.uint16))
    dataset = dataset_of(mvtec_root, range=["2%", "98%"], calibration=0.25)
    rows = read_samples(dataset, "nut")
    own = [Path(row.image_path) for row in rows if row.role == "normal"]
    assert len(own) == 3
    pooled = np.concatenate([tifffile.imread(path).ravel() for path in own])
    expected = tuple(np.percentile(pooled, [2, 98]))
    assert {row.levels for row in rows} == {expected}


def test_inspect_proposes_a_range_that_is_read(mvtec_root: Path, tmp_path: Path) -> None:
    """What it prints, pasted, gives the same levels."""
    deepen(mvtec_root)
    found = inspect_root(mvtec_root, base=16)
    assert found.problems == []
    text = found.text()
    assert "more than 8 bits a channel: values from " in text
    own = text.partition("In params.yaml:\n")[2]
    pasted = yaml.safe_load("\n".join(line[2:] for line in own.splitlines()))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**yaml.safe_load(PRESET.read_text()), **pasted}))
    params = load_params(tmp_path / "params.yaml")
    assert params.dataset.range == ("0.1%", "99.9%")
    levels = read_samples(params.dataset, "nut")[0].levels
    assert levels is not None
    assert f"values from {levels.low:g} to {levels.high:g} are shown as 0 to 255" in text


def test_one_picture_of_8_bits_among_deeper_ones_is_named_and_so_is_the_reverse(mvtec_root: Path) -> None:
    shallow = mvtec_root / "nut/test/good/000.png"
    kept = shallow.read_bytes()
    deepen(mvtec_root)
    shallow.write_bytes(kept)
    shallow.with_suffix(".tif").unlink()
    with pytest.raises(UsageError, match=rf"^{shallow}: expected more than 8 bits a channel.* found 8"):
        read_samples(dataset_of(mvtec_root, range=[0, 4095]), "nut")
    with pytest.raises(UsageError, match=r"expected 8 bits a channel, found more.*dataset\.range"):
        read_samples(dataset_of(mvtec_root), "nut")


def test_a_range_for_pictures_of_8_bits_is_refused_and_so_is_one_value(mvtec_root: Path) -> None:
    with pytest.raises(UsageError, match=r"expected train normals of more than 8 bits.*set dataset\.range: null"):
        read_samples(dataset_of(mvtec_root, range=["1%", "99%"]), "nut")
    assert read_samples(dataset_of(mvtec_root), "nut"), "as advised"
    tifffile.imwrite(mvtec_root / "flat.tif", np.full((30, 30), 7, np.uint16))
    with pytest.raises(UsageError, match=r"the one value 7; expected two in dataset\.range"):
        levels_of(dataset_of(mvtec_root, range=["1%", "99%"]), [mvtec_root / "flat.tif"])


def test_products_of_two_depths_under_one_root_are_named(mvtec_root: Path) -> None:
    shutil.copytree(mvtec_root / "nut", mvtec_root / "bolt")
    deepen(mvtec_root / "bolt")
    (problem,) = inspect_root(mvtec_root, base=16).problems
    assert problem.startswith(f"{mvtec_root / 'bolt'}: pictures of more than 8 bits a channel beside those of nut with 8")
    (mvtec_root.parent / "other").mkdir()
    (mvtec_root / "bolt").rename(mvtec_root.parent / "other" / "bolt")
    assert inspect_root(mvtec_root, base=16).problems == inspect_root(mvtec_root.parent / "other", base=16).problems == [], "as advised"


@pytest.mark.parametrize(
    "value", [[5, 5], [9, 1], ["5%", 9], ["99%", "1%"], ["1%", "101%"], [1, 2, 3], "1%", [None, 3], [float("nan"), 3], ["1", "2"]]
)
def test_a_range_that_is_none_is_one_clear_line(value: object) -> None:
    with pytest.raises(ValueError, match="expected two values, the smaller first, such as"):
        DatasetParams(range=value, calibration=0.0)  # type: ignore[arg-type]


def two_cameras(root: Path) -> None:
    """Normals 3:2, defects square, as somebody who photographed them with two cameras has them."""
    for path in (root / "nut").rglob("good/*.png"):
        write_image(path, np.random.default_rng(len(path.name)).integers(0, 255, (SIDE, SIDE * 3 // 2, 3), np.uint8))


def test_two_cameras_are_remarked_with_sizes_and_counts(mvtec_root: Path) -> None:
    assert "differ in" not in inspect_root(mvtec_root, base=16).text()
    two_cameras(mvtec_root)
    found = inspect_root(mvtec_root, base=16)
    assert found.problems == [], "a remark alone"
    assert f"normals and defects differ in proportions: {SIDE * 3 // 2}x{SIDE} (6) against {SIDE}x{SIDE} (8)" in found.text()


def test_a_camera_of_another_resolution_is_remarked(mvtec_root: Path) -> None:
    for path in (mvtec_root / "nut").rglob("good/*.png"):
        write_image(path, picture(1, 2 * SIDE))
    assert f"differ in size: {2 * SIDE}x{2 * SIDE} (6) against {SIDE}x{SIDE} (8)" in inspect_root(mvtec_root, base=16).text()


def test_a_camera_without_colours_is_remarked(mvtec_root: Path) -> None:
    for path in (mvtec_root / "nut").rglob("good/*.png"):
        Image.open(path).convert("L").save(path)
    assert "differ in colour: 0 of 6 against 8 of 8 pictures" in inspect_root(mvtec_root, base=16).text()
    for path in (mvtec_root / "nut/test").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert "differ in colour" not in inspect_root(mvtec_root, base=16).text(), "as advised"


def test_pictures_that_are_all_of_their_own_size_are_one_camera(mvtec_root: Path) -> None:
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted((mvtec_root / "nut").rglob("*.png"))):
        if "ground_truth" not in path.parts:
            height, width = rng.integers(40, 90, 2)
            write_image(path, picture(number, 90)[:height, :width])
            if path.parent.name != "good":
                write_image(mvtec_root / f"nut/ground_truth/{path.parent.name}/{path.stem}_mask.png", square(90)[:height, :width])
    found = inspect_root(mvtec_root, base=16)
    assert found.problems == []
    assert "differ in" not in found.text()


def test_apart_is_the_kolmogorov_smirnov_distance() -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    for shift in np.linspace(0, 4, 40):
        one, other = rng.normal(0, 1, 30).round(1).tolist(), rng.normal(shift, 1, 17).round(1).tolist()
        assert apart(one, other) == (ks_2samp(one, other).statistic >= 0.8)
    assert not apart([1.0, 2.0], [3.0, 4.0]), "of two a difference is chance"
    assert apart([1.5], [1.0]), "unless all of a kind are alike"


def test_files_of_all_formats_are_one_product(mvtec_root: Path) -> None:
    """PNG beside BMP, TIFF and JPEG, in any spelling of the suffix."""
    for number, suffix in enumerate((".bmp", ".TIFF", ".tif", ".JPEG")):
        path = mvtec_root / f"nut/train/good/{number:03}.png"
        Image.open(path).save(path.with_suffix(suffix))
        path.unlink()
    rows = read_samples(dataset_of(mvtec_root), "nut")
    suffixes = sorted(Path(row.image_path).suffix for row in rows if row.role in ("normal", "calibration"))
    assert suffixes == [".JPEG", ".TIFF", ".bmp", ".tif"]
    assert np.array_equal(read_picture(next(row for row in rows if row.image_path.endswith(".bmp")), "native").image, picture(0))
