"""Tables as people have them: a row an instance, backslashes, paths that lead elsewhere, names in two Unicode forms."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from data.conftest import picture, square

from cadiff.data import inspect_root, read_samples
from cadiff.errors import UsageError
from cadiff.params import DatasetParams
from cadiff.pictures import read_picture
from cadiff.records import SampleRow
from cadiff.storage import write_image

HEADER = "image,mask,anomaly_type,split"
ROWS = [
    "photos/good/a.png,,,train", "photos/good/b.png,,,train", "photos/good/c.png,,,test",
    "photos/bad/a.png,masks/a.png,crack,test", "photos/bad/b.png,masks/b.png,crack,test",
]  # fmt: skip


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Product part: 2 train normals, 1 test normal, 2 cracks; the mask of the second lies elsewhere than that of the first."""
    base = tmp_path / "own/part"
    for index, name in enumerate(("good/a", "good/b", "good/c", "bad/a", "bad/b")):
        write_image(base / f"photos/{name}.png", picture(index))
    for index, name in enumerate("ab"):
        write_image(base / f"masks/{name}.png", np.roll(square(), 10 * index, axis=0))
    write_rows(base, ROWS)
    return base


def write_rows(base: Path, rows: list[str]) -> None:
    (base / "table.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def read(base: Path) -> list[SampleRow]:
    return read_samples(DatasetParams(layout="folder", root=str(base.parent), calibration=0.0), base.name)


def problems_of(base: Path) -> list[str]:
    return inspect_root(base.parent, base=16).problems


def test_rows_of_one_image_are_its_instances(part: Path) -> None:
    write_rows(part, [*ROWS, "photos/bad/a.png,masks/b.png,crack,test"])
    found = inspect_root(part.parent, base=16)
    assert found.problems == []
    assert "1 images have several masks, whose union counts" in found.text()
    row = next(row for row in read(part) if row.sample_id == "part/test/crack/photos/bad/a")
    both = (square() > 0) | (np.roll(square(), 10, axis=0) > 0)
    assert np.array_equal(read_picture(row, "native").mask, both)
    assert len(read(part)) == 5


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("photos/bad/a.png,masks/a.png,crack,test", "listed twice; remove one row"),
        ("photos/good/a.png,,,train", "listed twice; remove one row"),
        ("photos/good/a.png,,,test", "listed in train and in test; what is learned from must not be scored on: keep one row"),
        ("photos/bad/a.png,masks/b.png,dent,test", "listed as crack and as dent; an image has one type: name it in all its rows"),
        ("./photos/../photos/bad/a.png,masks/a.png,crack,test", "listed twice; remove one row"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_other_instance_is_named(part: Path, row: str, said: str) -> None:
    write_rows(part, [*ROWS, row])
    (problem,) = problems_of(part)
    assert problem == f"{part / 'table.csv'}: line 7 ({row.split(',')[0]}): {said}"
    write_rows(part, ROWS)
    assert problems_of(part) == []


def test_a_table_from_windows_is_understood(part: Path) -> None:
    before = read(part)
    write_rows(part, [row.replace("/", "\\") for row in ROWS])
    assert read(part) == before


def test_a_backslash_that_is_in_a_files_name_is_that_files(part: Path) -> None:
    (part / "photos/bad/b.png").rename(part / "photos\\b.png")
    write_rows(part, [row.replace("photos/bad/b.png", "photos\\b.png") for row in ROWS])
    assert part / "photos\\b.png" in {Path(row.image_path) for row in read(part)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cell, base: f"{base}/{cell}", "found an absolute one"),
        (lambda cell, base: "C:\\data\\" + cell.replace("/", "\\"), "found an absolute one"),
        (lambda cell, base: f"../part/{cell}", "found one that leads elsewhere"),
        (lambda cell, base: f"photos/../../part/{cell}", "found one that leads elsewhere"),
        (lambda cell, base: cell.replace("masks/", "@eaDir/").replace("photos/", ".photos/"), "passed over"),
    ],
)  # fmt: skip
def test_paths_that_lead_where_dvc_does_not_look_are_one_problem(part: Path, change, said: str) -> None:
    rows = [",".join(change(cell, part) if "/" in cell else cell for cell in row.split(",")) for row in ROWS]
    write_rows(part, rows)
    first, *others = problems_of(part)
    assert first.startswith(f"{part / 'table.csv'}: line 2 ({rows[0].split(',')[0]}): ")
    assert said in first
    assert "(the same of 4 more in" in first or (said == "passed over" and len(others) < 3)
    with pytest.raises(UsageError, match=said):
        read(part)
    write_rows(part, ROWS)  # as it says: below the product's folder, from there
    assert problems_of(part) == []


def test_a_name_is_found_in_either_unicode_form(part: Path) -> None:
    for form, other in (("NFD", "NFC"), ("NFC", "NFD")):
        name = unicodedata.normalize(form, "Fläche.png")
        (part / "photos/bad/b.png").rename(part / "photos/bad" / name)
        write_rows(part, [row.replace("photos/bad/b.png", f"photos/bad/{unicodedata.normalize(other, name)}") for row in ROWS])
        assert part / "photos/bad" / name in {Path(row.image_path) for row in read(part)}
        (part / "photos/bad" / name).rename(part / "photos/bad/b.png")


def test_visas_rows_lead_into_their_product_alone(visa_root: Path) -> None:
    table = visa_root / "split_csv/1cls.csv"
    text = table.read_text()
    table.write_text(text.replace("candle,train,normal,candle/", "candle,train,normal,other/"))
    dataset = DatasetParams(layout="visa", root=str(visa_root), calibration=0.0)
    with pytest.raises(UsageError, match=rf"line 3 \(other/.*\): expected a path below {visa_root}/candle, found one that leads else"):
        read_samples(dataset, "candle")
    table.write_text(text.replace("/", "\\"))
    assert len(read_samples(dataset, "candle")) == 7


def test_one_product_of_visas_table_can_be_there_alone(visa_root: Path) -> None:
    """As it was unpacked: the table names a product ``other``, too."""
    found = inspect_root(visa_root, base=16)
    assert ([summary.product for summary in found.products], found.problems) == (["candle"], [])
    assert f"Not here, though {visa_root / 'split_csv/1cls.csv'} names them: other" in found.text()


def test_rows_without_a_cell_are_none_and_lines_keep_their_numbers(part: Path) -> None:
    write_rows(part, [ROWS[0], "", ",,,", *ROWS[1:]])
    assert problems_of(part) == []
    write_rows(part, [ROWS[0], "", ",,,", *ROWS[1:], "photos/ok/none.png,,,dev"])
    (problem,) = problems_of(part)
    assert f"line {len(ROWS) + 4} (photos/ok/none.png): split: expected train or test" in problem


def test_several_masks_of_one_image_in_a_folder_are_one(mvtec_root: Path) -> None:
    truth = mvtec_root / "nut/ground_truth/scratch"
    write_image(truth / "001_mask_1.png", np.roll(square(), 10, axis=0))
    for index in range(2):
        write_image(truth / f"002/{index}.png", np.roll(square(), 10 * index, axis=0))
    (truth / "002_mask.png").unlink()
    assert inspect_root(mvtec_root, base=16).problems == []
    rows = {row.sample_id: row for row in read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root), calibration=0.0), "nut")}
    both = (square() > 0) | (np.roll(square(), 10, axis=0) > 0)
    for name in ("001", "002"):
        assert np.array_equal(read_picture(rows[f"nut/test/scratch/{name}"], "native").mask, both)
    write_image(truth / "001.png", square())
    (problem,) = inspect_root(mvtec_root, base=16).problems
    several = "several of one image are 001_mask_1, 001_mask_2, ... or a folder 001"
    assert problem == f"{truth / '001.png'}: a second mask of 001; {several}: remove one"
