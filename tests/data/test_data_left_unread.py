"""Folders as they lie: other benchmarks' names, layouts mixed in one root, what boxes and programs leave. All is read or named."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from data.conftest import picture, square

from cadiff.data import Inspection, inspect_root, read_samples
from cadiff.names import GOOD
from cadiff.params import DatasetParams
from cadiff.storage import write_image
from cadiff.visible import LITTER


def look(root: Path) -> Inspection:
    return inspect_root(root, base=16)


def line_of(text: str, start: str) -> str:
    return next(line.strip() for line in text.splitlines() if line.strip().startswith(start))


def test_mvtec_ad_2_is_read_and_its_tests_without_labels_are_named(tmp_path: Path) -> None:
    can = tmp_path / "ad2/can"
    for index, folder in enumerate(("train/good/000", "train/good/001", "validation/good/000", "test_public/good/000")):
        write_image(can / f"{folder}_regular.png", picture(index))
    for index in range(3):
        write_image(can / f"test_public/bad/{index:03}_regular.png", picture(10 + index))
        write_image(can / f"test_public/ground_truth/bad/{index:03}_regular_mask.png", square())
        write_image(can / f"test_private/{index:03}_regular.png", picture(20 + index))
    found = look(can.parent)
    assert (found.layout, found.problems) == ("mvtec", [])
    (summary,) = found.products
    assert summary.roles == {"normal": 2, "calibration": 1, "test_good": 1, "exemplar": 1, "held_out": 2}
    assert "not read: test_private/ (3 files)" in found.text()


def test_a_table_in_one_product_hides_no_other(mvtec_root: Path, folder_root: Path) -> None:
    """The layout of most products is taken; the others' folders are named, and the layout that reads them."""
    for name in ("bolt", "gear"):
        (folder_root / "gear" if name == "gear" else mvtec_root / "nut").rename(mvtec_root / name)
    (mvtec_root / "nut").mkdir()
    for folder in ("train/good", "test/good"):
        write_image(mvtec_root / "nut" / folder / "0.png", picture(50))
        write_image(mvtec_root / "nut" / folder / "1.png", picture(51))
    write_image(mvtec_root / "nut/test/dent/0.png", picture(52))
    write_image(mvtec_root / "nut/ground_truth/dent/0.png", square())
    found = look(mvtec_root)
    assert found.layout == "mvtec"
    assert [summary.product for summary in found.products] == ["bolt", "nut"]
    assert line_of(found.text(), "Not read, as layout mvtec takes folders with train and test:").endswith("gear/ (7 files)")
    assert line_of(found.text(), "layout folder reads gear: cadiff inspect")
    other = inspect_root(mvtec_root, "folder", base=16)  # as it says
    assert [summary.product for summary in other.products] == ["gear"]
    assert line_of(other.text(), "Not read, as layout folder takes folders with table.csv:").endswith("bolt/ (22 files), nut/ (6 files)")
    assert line_of(other.text(), "layout mvtec reads bolt, nut")


def test_labels_beside_their_pictures_are_named_once_and_are_no_problem(mvtec_root: Path) -> None:
    nut = mvtec_root / "nut"
    for folder, suffix in (("train/good", ".json"), ("test/scratch", ".xml"), ("test/good", ".txt")):
        for path in sorted((nut / folder).glob("*.png")):
            path.with_suffix(suffix).write_text("{}")
    found = look(mvtec_root)
    assert found.problems == []
    left = line_of(found.text(), "not read:")
    assert left.startswith("not read: test/good/000.txt, test/good/001.txt, test/scratch/000.xml, ")
    assert left.endswith(" and 5 more")
    assert len(read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root)), "nut")) == 14
    (nut / "train/good/other.json").write_text("{}")
    (problem,) = look(mvtec_root).problems
    assert problem.startswith(f"{nut}/train/good/other.json: not read;"), "of no picture here"


def test_what_lies_anywhere_beside_what_is_read_is_named(mvtec_root: Path) -> None:
    nut = mvtec_root / "nut"
    for name in ("photos/raw/a.png", "photos/raw/b.png", "readme.txt", "table.csv", "test/notes.txt", "ground_truth/good/000_mask.png"):
        (nut / name).parent.mkdir(parents=True, exist_ok=True)
        (nut / name).write_bytes(b"anything")
    (mvtec_root / "license.txt").write_text("as MVTec ships it")
    (mvtec_root / "archive/old").mkdir(parents=True)
    (mvtec_root / "archive/old/a.png").write_bytes(b"anything")
    found = look(mvtec_root)
    assert found.problems == []
    left = "not read: ground_truth/good/ (1 file), photos/ (2 files), readme.txt, table.csv, test/notes.txt"
    assert line_of(found.text(), "not read:") == left
    assert line_of(found.text(), "Not read, as layout mvtec").endswith("archive/ (1 file)")
    assert line_of(found.text(), "Not read: ") == "Not read: license.txt"


def test_what_is_named_as_a_problem_is_not_named_twice(mvtec_root: Path) -> None:
    (mvtec_root / "nut/ground_truth/scratch/003_mask.png").unlink()
    (mvtec_root / "nut/train/good/note.txt").write_text("blurred")
    found = look(mvtec_root)
    assert len(found.problems) == 2
    assert "not read:" not in found.text().split("2 problems")[0]


def places(root: Path) -> list[Path]:
    return [root, *(path for path in root.rglob("*") if path.is_dir())]


def test_litter_is_passed_over_in_every_folder_of_every_layout(
    mvtec_root: Path, loco_root: Path, visa_root: Path, folder_root: Path
) -> None:
    for root in (mvtec_root, loco_root, visa_root, folder_root):
        before = look(root)
        for place in places(root):
            write_image(place / "@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg.png", picture(0))
            for name in ("Picasa.ini", "Thumbs.db", "desktop.ini", ".DS_Store", "._000.png", ".picasa.ini"):
                (place / name).write_bytes(b"litter")
        assert look(root) == before


def test_dvc_passes_over_what_is_passed_over() -> None:
    """Else a stage would run again for what none reads."""
    from dvc.ignore import DvcIgnorePatterns

    text = (Path(__file__).resolve().parents[2] / ".dvcignore").read_text()
    patterns = DvcIgnorePatterns([line for line in text.splitlines() if line and not line.startswith("#")], "/repo", os.sep)
    usual = {"thumbs.db": "Thumbs.db", "@eadir": "@eaDir", "$recycle.bin": "$RECYCLE.BIN", "__macosx": "__MACOSX",
             "system volume information": "System Volume Information", "zbthumbnail.info": "ZbThumbnail.info"}  # fmt: skip
    hidden = {".DS_Store", "._000.png", ".picasa.ini", ".@__thumb", ".Spotlight-V100", ".directory"}
    for name in {usual.get(name, name) for name in LITTER} | hidden:
        assert patterns.matches("/repo/data/raw/nut/train/good", name), name
    assert not patterns.matches("/repo/data/raw/nut/train/good", "000.png")


def as_anybody() -> None:
    """Root reads what it likes: without these two rights it is refused as anybody else."""
    if os.geteuid() == 0:
        for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP


def test_a_folder_that_may_not_be_read_is_passed_over_or_named(mvtec_root: Path) -> None:
    closed = [mvtec_root / name for name in ("lost+found", "private", "nut/photos", "nut/test/odd")]
    for path in closed:
        path.mkdir(mode=0)
    call = [sys.executable, "-m", "cadiff.cli", "inspect", str(mvtec_root), "--base", "16"]
    done = subprocess.run(call, check=False, capture_output=True, text=True, preexec_fn=as_anybody, env={**os.environ, "CADIFF_QUIET": "1"})
    for path in closed:
        path.chmod(0o755)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    (problem,) = (line.strip() for line in done.stdout.splitlines() if "does not open (Permission denied)" in line)
    assert problem.startswith(f"{mvtec_root / 'nut/test/odd'}: ")
    assert "private/ (does not open)" in done.stdout
    assert "lost+found" not in done.stdout


@pytest.mark.parametrize("suffix", [".PNG", ".TIFF", ".Tif", ".JPG", ".BMP"])
def test_suffixes_count_in_any_case(mvtec_root: Path, suffix: str) -> None:
    from PIL import Image

    before = read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root), calibration=0.0), "nut")
    for path in sorted(mvtec_root.rglob("*.png")):
        if suffix != ".JPG" or "ground_truth" not in path.parts:
            Image.open(path).save(path.with_suffix(suffix))
            path.unlink()
    after = read_samples(DatasetParams(layout="mvtec", root=str(mvtec_root), calibration=0.0), "nut")
    assert [(row.sample_id, row.role) for row in after] == [(row.sample_id, row.role) for row in before]
    assert GOOD in {row.sample_id.split("/")[2] for row in after}
