"""What each error tells to do is done, and ends in data without a problem."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from data.conftest import picture, square
from PIL import Image

from cadiff.data import inspect_root, read_samples
from cadiff.errors import UsageError
from cadiff.params import DatasetParams
from cadiff.storage import write_image

Step = Callable[[Path], object]


def problems_of(root: Path) -> list[str]:
    return inspect_root(root, base=16).problems


def renamed(old: str, new: str) -> Step:
    return lambda nut: (nut / old).rename(nut / new)


def emptied_into(old: str, new: str) -> Step:
    def move(nut: Path) -> None:
        for path in sorted((nut / old).iterdir()):
            path.rename(nut / new / path.name)
        (nut / old).rmdir()

    return move


def removed(name: str) -> Step:
    return lambda nut: shutil.rmtree(nut / name) if (nut / name).is_dir() else (nut / name).unlink()


def added(name: str, value: int = 255) -> Step:
    return lambda nut: write_image(nut / name, square(value=value) if "ground_truth" in name else picture(77))


def both(*steps: Step) -> Step:
    return lambda nut: [step(nut) for step in steps]


def resaved(name: str, suffix: str) -> Step:
    def save(nut: Path) -> None:
        Image.open(nut / name).save((nut / name).with_suffix(suffix))
        (nut / name).unlink()

    return save


@pytest.mark.parametrize(
    ("damage", "said", "follow"),
    [
        (renamed("train/good", "train/ok"), "{nut}/train/ok: not read; expected only train/good here. If its images are normal, "
         "rename it to {nut}/train/good", renamed("train/ok", "train/good")),
        (both(added("train/ok/900.png"), added("train/ok/901.png")), "move its images to {nut}/train/good",
         emptied_into("train/ok", "train/good")),
        (added("train/hole/900.png"), "anomalies go to test/<type>, their masks to ground_truth/<type>",
         both(renamed("train/hole", "test/hole"), added("ground_truth/hole/900.png"))),
        (added("train/900.png"), "{nut}/train/900.png: not read; move it into {nut}/train/good if they are normal",
         renamed("train/900.png", "train/good/900.png")),
        (lambda nut: (nut / "train/empty").mkdir(), "{nut}/train/empty: expected only train/good here, found an empty folder: remove it",
         removed("train/empty")),
        (renamed("test/good", "test/ok"), "{nut}/test/ok: 2 images without a mask; expected one for each, such as "
         "{nut}/ground_truth/ok/000_mask.png. If they are normal, rename the folder to {nut}/test/good", renamed("test/ok", "test/good")),
        (added("test/ok/900.png"), "If they are normal, move them to {nut}/test/good", emptied_into("test/ok", "test/good")),
        (added("test/hole/900.png"), "1 images without a mask; expected one for each, such as {nut}/ground_truth/hole/900_mask.png",
         added("ground_truth/hole/900_mask.png")),
        (renamed("ground_truth/scratch", "ground_truth/Scratch"), "(found {nut}/ground_truth/Scratch: rename it)",
         renamed("ground_truth/Scratch", "ground_truth/scratch")),
        (renamed("ground_truth", "groundtruth"), "{nut}/groundtruth: not read; expected the name ground_truth: rename it",
         renamed("groundtruth", "ground_truth")),
        (removed("ground_truth/scratch/003_mask.png"), "{nut}/test/scratch/003.png: image without a mask; expected "
         "{nut}/ground_truth/scratch/003_mask.png", added("ground_truth/scratch/003_mask.png")),
        (removed("test/scratch/003.png"), "{nut}/ground_truth/scratch/003_mask.png: mask without an image; expected one in "
         "{nut}/test/scratch", added("test/scratch/003.png")),
        (added("ground_truth/hole/900_mask.png"), "mask without an image; expected one in {nut}/test/hole", added("test/hole/900.png")),
        (added("train/good/001.bmp"), "names are compared without suffix, so rename one",
         renamed("train/good/001.bmp", "train/good/901.bmp")),
        (added("ground_truth/scratch/001_mask.bmp"), "names are compared without suffix, so remove one",
         removed("ground_truth/scratch/001_mask.bmp")),
        (added("ground_truth/scratch/001.png"), "a second mask of 001;", removed("ground_truth/scratch/001.png")),
        (lambda nut: (nut / "ground_truth/scratch/001").mkdir(), "no mask in this folder; remove it",
         removed("ground_truth/scratch/001")),
        (resaved("ground_truth/scratch/001_mask.png", ".jpg"), "expected a lossless mask, such as PNG",
         both(removed("ground_truth/scratch/001_mask.jpg"), added("ground_truth/scratch/001_mask.png"))),
        (added("ground_truth/scratch/001_mask.png", 0), "empty mask; mark the anomaly, or remove the mask and its image",
         both(removed("ground_truth/scratch/001_mask.png"), removed("test/scratch/001.png"))),
        (both(renamed("test/dent", "test/a+b"), renamed("ground_truth/dent", "ground_truth/a+b")),
         "'a+b' names no anomaly type: expected a name other than good, without /",
         both(renamed("test/a+b", "test/ab"), renamed("ground_truth/a+b", "ground_truth/ab"))),
        (both(renamed("test/dent", "test/context"), renamed("ground_truth/dent", "ground_truth/context")), "cannot be named 'context'",
         both(renamed("test/context", "test/dent"), renamed("ground_truth/context", "ground_truth/dent"))),
        (removed("train"), "{nut}: no train normals; expected at least one normal image", added("train/good/000.png")),
        (renamed("train/good/001.png", "train/good/line\nbreak.png"), "without line breaks; rename it",
         renamed("train/good/line\nbreak.png", "train/good/001.png")),
    ],
)  # fmt: skip
def test_each_advice_ends_in_data_that_read(mvtec_root: Path, damage: Step, said: str, follow: Step) -> None:
    nut = mvtec_root / "nut"
    damage(nut)
    problems = problems_of(mvtec_root)
    assert any(said.replace("{nut}", str(nut)) in problem for problem in problems), problems
    assert len(problems) == 1, problems
    with pytest.raises(UsageError):
        read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root), calibration=0.0), "nut")
    follow(nut)
    assert problems_of(mvtec_root) == []
    assert read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root), calibration=0.0), "nut")


def test_a_link_to_a_folder_is_refused_and_both_its_remedies_read(mvtec_root: Path, tmp_path: Path) -> None:
    nut, away = mvtec_root / "nut", tmp_path / "away"
    away.mkdir()
    for name in ("train", "test"):
        (nut / name).rename(away / name)
        (nut / name).symlink_to(away / name)
    first, second = problems_of(mvtec_root)
    expected = "a link to a folder out of {nut}, behind which DVC sees no change, so that nothing would run again; "
    for problem, name in ((first, "test"), (second, "train")):
        assert problem.startswith(f"{nut / name}: {expected.replace('{nut}', str(nut))}put the folder itself here, or make {nut} the link")
    for name in ("train", "test"):
        (nut / name).unlink()
        (away / name).rename(nut / name)
    assert problems_of(mvtec_root) == []
    nut.rename(away / "nut")
    nut.symlink_to(away / "nut")
    assert problems_of(mvtec_root) == []
    assert len(read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root), calibration=0.0), "nut")) == 14


def test_links_that_dvc_follows_are_read(mvtec_root: Path, tmp_path: Path) -> None:
    nut = mvtec_root / "nut"
    (nut / "train/good/000.png").rename(tmp_path / "000.png")
    (nut / "train/good/000.png").symlink_to(tmp_path / "000.png")
    (nut / "pictures").mkdir()
    (nut / "test/good").rename(nut / "pictures/good")
    (nut / "test/good").symlink_to(nut / "pictures/good")
    assert problems_of(mvtec_root) == []


def moves(text: str) -> list[str]:
    return re.findall(r"rename it: (mv \$'.*)$", text, re.MULTILINE)


def test_a_product_whose_name_is_decomposed_is_told_how_to_rename_it(mvtec_root: Path) -> None:
    (mvtec_root / "nut").rename(mvtec_root / unicodedata.normalize("NFD", "Größe-'1"))
    (problem,) = problems_of(mvtec_root)
    assert "has letters and their signs apart (NFD, as macOS writes them)" in problem
    (call,) = moves(problem)
    (mvtec_root / unicodedata.normalize("NFD", "Größe-'1")).rename(mvtec_root / unicodedata.normalize("NFD", "Größe"))
    (call,) = moves(problems_of(mvtec_root)[0])
    subprocess.run(["bash", "-c", call], cwd=mvtec_root, check=True)
    assert [path.name for path in mvtec_root.iterdir()] == [unicodedata.normalize("NFC", "Größe")]
    assert problems_of(mvtec_root) == []


def test_images_masks_and_types_pair_in_either_unicode_form(mvtec_root: Path) -> None:
    nut = mvtec_root / "nut"
    for index in range(7):
        (nut / f"test/scratch/{index:03}.png").rename(nut / "test/scratch" / unicodedata.normalize("NFC", f"Fläche{index}.png"))
        mask = nut / f"ground_truth/scratch/{index:03}_mask.png"
        mask.rename(mask.with_name(unicodedata.normalize("NFD", f"Fläche{index}_mask.png")))
    (nut / "test/scratch").rename(nut / "test" / unicodedata.normalize("NFD", "Rückstand"))
    (nut / "ground_truth/scratch").rename(nut / "ground_truth" / unicodedata.normalize("NFC", "Rückstand"))
    assert problems_of(mvtec_root) == []
    rows = read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root), calibration=0.0), "nut")
    assert {row.anomaly_type for row in rows} == {None, "dent", unicodedata.normalize("NFC", "Rückstand")}


def test_one_cause_is_said_once(mvtec_root: Path) -> None:
    """Of seven masks of another size one line, with the count of the others and names of some."""
    truth = mvtec_root / "nut/ground_truth/scratch"
    for path in truth.iterdir():
        write_image(path, square(30))
    (problem,) = problems_of(mvtec_root)
    told = f"{truth / '000_mask.png'}: expected 24x24 as {mvtec_root}/nut/test/scratch/000.png, found 30x30; save both at one size"
    assert problem.startswith(told)
    assert problem.endswith(f" (the same of 6 more in {truth}: 001_mask.png, 002_mask.png, ...)")


def test_a_name_that_is_no_text_is_named_in_characters_that_print(mvtec_root: Path) -> None:
    odd = b"\xff\xfe.png".decode("utf-8", "surrogateescape")
    write_image(mvtec_root / "nut/train/good" / odd, picture(9))
    (problem,) = problems_of(mvtec_root)
    assert problem == f"{mvtec_root}/nut/train/good/\\udcff\\udcfe.png: expected a name in UTF-8 without line breaks; rename it"
