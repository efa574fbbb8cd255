from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cadiff.data import list_products, read_samples
from cadiff.errors import UsageError
from cadiff.params import DatasetParams
from cadiff.pictures import read_picture


def mvtec(root: Path, **values) -> DatasetParams:
    return DatasetParams(**{"name": "toy", "layout": "mvtec", "root": str(root), "calibration": 0.0} | values)


def test_mvtec_rows_name_role_pair_and_digest(mvtec_root):
    rows = read_samples(mvtec(mvtec_root), "nut")
    assert Counter(row.role for row in rows) == {"normal": 4, "test_good": 2, "exemplar": 3, "held_out": 5}
    ids = [row.sample_id for row in rows]
    assert ids == sorted(set(ids))
    row = next(row for row in rows if row.sample_id == "nut/test/scratch/001")
    assert (row.dataset, row.anomaly_type, row.role) == ("toy", "scratch", "exemplar")
    assert (row.width, row.height) == (24, 24)
    assert row.image_path == str(mvtec_root / "nut/test/scratch/001.png")
    assert row.mask_path == str(mvtec_root / "nut/ground_truth/scratch/001_mask.png")
    assert row.image_sha256 == hashlib.sha256(Path(row.image_path).read_bytes()).hexdigest()


def test_masks_may_carry_the_bare_stem_and_demo_is_the_same_layout(mvtec_root):
    for mask in mvtec_root.rglob("*_mask.png"):
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    rows = read_samples(mvtec(mvtec_root), "nut")
    demo = DatasetParams(name="toy", layout="demo", root=str(mvtec_root), calibration=0.0)
    assert rows == read_samples(demo, "nut")
    assert sum(row.mask_path is not None for row in rows) == 8


def test_order_is_that_of_names_not_of_the_file_system(mvtec_root, tmp_path):
    copy = tmp_path / "copy"
    for path in sorted(mvtec_root.rglob("*.png"), reverse=True):
        target = copy / path.relative_to(mvtec_root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    ids = [[row.sample_id for row in read_samples(mvtec(root), "nut")] for root in (mvtec_root, copy)]
    assert ids[0] == ids[1]


def test_max_normals_keeps_the_first_by_name(mvtec_root):
    rows = read_samples(mvtec(mvtec_root, max_normals=2), "nut")
    normals = [row.sample_id for row in rows if row.role == "normal"]
    assert normals == ["nut/train/good/000", "nut/train/good/001"]
    assert len(rows) == 2 + 2 + 8
    apart = read_samples(mvtec(mvtec_root, max_normals=3, calibration=0.3), "nut")
    roles = {row.sample_id: row.role for row in apart if "/train/" in row.sample_id}
    assert roles == {"nut/train/good/000": "normal", "nut/train/good/001": "calibration", "nut/train/good/002": "normal"}


def test_visa_has_one_type_and_reads_numbered_masks(visa_root):
    dataset = DatasetParams(name="visa", layout="visa", root=str(visa_root), calibration=0.0)
    assert list_products(dataset) == ["candle"]
    rows = read_samples(dataset, "candle")
    assert Counter(row.role for row in rows) == {"normal": 2, "test_good": 1, "exemplar": 1, "held_out": 3}
    assert {row.anomaly_type for row in rows} == {None, "anomaly"}
    assert [read_picture(row, "native").mask.sum() for row in rows if row.mask_path] == [36] * 4


def loco(root: Path) -> DatasetParams:
    return DatasetParams(name="loco", layout="loco", root=str(root), calibration=0.0)


def test_loco_masks_are_the_union_of_an_images_defects(loco_root):
    assert list_products(loco(loco_root)) == ["box"]
    rows = read_samples(loco(loco_root), "box")
    assert Counter(row.role for row in rows) == {"normal": 3, "test_good": 1, "exemplar": 2, "held_out": 4}
    assert {row.anomaly_type for row in rows} == {None, "logical_anomalies", "structural_anomalies"}
    assert [row.sample_id for row in rows if row.role == "normal"][-1] == "box/train/good/validation/000"
    anomalies = [row for row in rows if row.mask_path]
    masks = [read_picture(row, "native").mask for row in anomalies]
    assert [int(mask.sum()) for mask in masks] == [72 if row.anomaly_type == "logical_anomalies" else 36 for row in anomalies]
    small = [read_picture(row, 12).mask for row in anomalies]
    assert [int(mask.sum()) for mask in small] == [18 if row.anomaly_type == "logical_anomalies" else 9 for row in anomalies]


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("image without a mask", "logical_anomalies/001.png"), ("mask without an image", "logical_anomalies/001"),
        ("empty mask", "logical_anomalies/001"), ("JPEG", "000.jpg"), ("masks of one size", "logical_anomalies/001"),
        ("mask without an image; expected", "logical_anomalies/lost.png"), ("not read; expected images alone", "note.txt"),
    ],
)  # fmt: skip
def test_each_damage_of_a_loco_product_is_one_clear_line(loco_root, what, named):
    truths = loco_root / "box" / "ground_truth" / "logical_anomalies"
    masks = sorted((truths / "001").iterdir())
    if what == "image without a mask":
        shutil.rmtree(truths / "001")
    elif what == "mask without an image":
        (loco_root / "box" / "test" / "logical_anomalies" / "001.png").unlink()
    elif what == "empty mask":
        for mask in masks:
            Image.fromarray(np.zeros((24, 24), np.uint8)).save(mask)
    elif what == "JPEG":
        Image.open(masks[0]).save(masks[0].with_suffix(".jpg"))
    elif what == "masks of one size":
        Image.fromarray(np.full((20, 24), 255, np.uint8)).save(masks[0])
    elif what == "mask without an image; expected":
        shutil.copy(masks[0], truths / "lost.png")
    else:
        (truths / "001" / "note.txt").write_text("a scratch")
    with pytest.raises(UsageError) as error:
        read_samples(loco(loco_root), "box")
    assert what in str(error.value)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_tells_equal_file_names_apart(folder_root):
    dataset = DatasetParams(name="own", layout="folder", root=str(folder_root), calibration=0.0)
    rows = read_samples(dataset, "gear")
    assert {row.sample_id: row.role for row in rows} == {
        "gear/test/crack/monday/b": "exemplar",
        "gear/test/crack/tuesday/b": "held_out",
        "gear/train/good/monday/a": "normal",
        "gear/train/good/tuesday/a": "normal",
    }


def _damage(root: Path, what: str) -> str:
    """Damages a product in one way; gives what the error must name."""
    nut = root / "nut"
    image, mask = nut / "test/scratch/002.png", nut / "ground_truth/scratch/002_mask.png"
    if what == "image without a mask":
        mask.unlink()
    elif what == "mask without an image":
        image.unlink()
        return mask.name
    elif what == "no train normals":
        shutil.rmtree(nut / "train")
        return "nut"
    elif what == "24x24":
        Image.fromarray(np.full((20, 24), 255, np.uint8)).save(mask)
        return mask.name
    elif what == "empty mask":
        Image.fromarray(np.zeros((24, 24), np.uint8)).save(mask)
        return mask.name
    elif what == "does not decode":
        image.write_bytes(image.read_bytes()[:200])
    elif what == "JPEG":
        Image.open(mask).save(mask.with_suffix(".jpg"))
        mask.unlink()
        return "002_mask.jpg"
    elif what == "second image":
        normal = nut / "train/good/002.png"
        Image.open(normal).save(normal.with_suffix(".bmp"))
        return normal.name
    elif what == "expected only train/good":
        (nut / "train" / "odd").mkdir()
        return "odd"
    return image.name


@pytest.mark.parametrize(
    "what",
    [
        "image without a mask", "mask without an image", "no train normals", "24x24", "empty mask",
        "does not decode", "JPEG", "second image", "expected only train/good",
    ],
)  # fmt: skip
def test_each_damage_is_one_clear_line(mvtec_root, what):
    named = _damage(mvtec_root, what)
    with pytest.raises(UsageError) as error:
        read_samples(mvtec(mvtec_root), "nut")
    message = str(error.value)
    assert what in message
    assert named in message
    assert "\n" not in message


def test_places_that_are_not_there(mvtec_root, tmp_path):
    with pytest.raises(UsageError, match=r"no product 'bolt' here; products are nut"):
        read_samples(mvtec(mvtec_root), "bolt")
    with pytest.raises(UsageError, match="nowhere"):
        list_products(mvtec(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="one product's folder"):
        list_products(mvtec(mvtec_root / "nut"))
    with pytest.raises(UsageError, match=r"1cls\.csv"):
        list_products(DatasetParams(name="x", layout="visa", root=str(mvtec_root), calibration=0.0))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("monday/a.png,,,val", "split"),
        (",masks/monday.png,crack,test", "mask without an image"),
        ("monday/b.png,,crack,test", "image without a mask"),
        ("monday/a.png,masks/monday.png,,train", "normal image with a mask"),
        ("monday/b.png,masks/monday.png,crack,train", "anomaly in train"),
        ("monday/b.png,masks/monday.png,a/b,test", "anomaly_type"),
        ("gone.png,,,test", "no such file"),
    ],
)
def test_a_table_row_that_contradicts_itself(folder_root, line, what):
    table = folder_root / "gear" / "table.csv"
    table.write_text(f"image,mask,anomaly_type,split\ntuesday/a.png,,,train\n{line}\n")
    with pytest.raises(UsageError, match=what):
        read_samples(DatasetParams(name="own", layout="folder", root=str(folder_root), calibration=0.0), "gear")


def test_a_table_without_its_columns(folder_root):
    (folder_root / "gear" / "table.csv").write_text("image,mask\na.png,\n")
    with pytest.raises(UsageError, match=r"anomaly_type, split is not there, found image, mask$"):
        read_samples(DatasetParams(name="own", layout="folder", root=str(folder_root), calibration=0.0), "gear")
    (folder_root / "gear" / "table.csv").write_text("image;mask;anomaly_type;split\na.png;;;train\n")
    with pytest.raises(UsageError, match=r"found image;mask;anomaly_type;split; separate columns with commas$"):
        read_samples(DatasetParams(name="own", layout="folder", root=str(folder_root), calibration=0.0), "gear")
