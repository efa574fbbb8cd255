"""`cadiff cut`: what errors advise is done, and ends in data without a problem, of which nothing that is learned from is scored."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data.conftest import SIDE, picture, square
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cadiff.cli import main
from cadiff.cutting import cut_root
from cadiff.cutting.scans import PIECE, places, that_show
from cadiff.data import inspect_root, read_samples
from cadiff.data.approximate import write_approximate
from cadiff.data.listing import Entry
from cadiff.data.readers import LONGEST
from cadiff.data.split import assign_roles
from cadiff.errors import UsageError
from cadiff.params import DatasetParams, Layout
from cadiff.records import SampleRow
from cadiff.storage import image_files, read_image, read_values, sha256_folder, write_image, write_text

LONG = 20 * SIDE


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, LONG, 3)).astype(np.uint8)


def spots(*starts: int) -> np.ndarray:
    mask = np.zeros((SIDE, LONG), np.uint8)
    for start in starts:
        mask[6:12, start : start + 9] = 255
    return mask


def pages(path: Path, pictures: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *more = map(Image.fromarray, pictures)
    first.save(path, save_all=True, append_images=more)


def clear(colour: np.ndarray) -> np.ndarray:
    """A picture that is transparent outside of a middle part."""
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[3:20, 3:20] = 255
    return np.dstack([colour, alpha])


def samples(root: Path, product: str = "nut", layout: Layout = "mvtec", **other: object) -> list[SampleRow]:
    return read_samples(DatasetParams(layout=layout, root=str(root), max_normals=None, **other), product)  # type: ignore[arg-type]


def wholes(root: Path) -> dict[str, str]:
    with open(root / "nut/pieces.csv", newline="") as file:
        return {row["piece"]: row["of"] for row in csv.DictReader(file)}


def advised(root: Path, out: Path, *options: str) -> int | str | None:
    """Runs the command that the one problem of ``root`` names."""
    problems = inspect_root(root, base=16).problems
    assert problems
    assert all("cadiff cut ROOT --out NEW" in problem for problem in problems), problems
    before = sha256_folder(root)
    with pytest.raises(SystemExit) as ended:
        main(["cut", str(root), "--out", str(out), *options])
    assert sha256_folder(root) == before, "something was written into the user's root"
    return ended.value.code


def test_a_root_of_scans_pages_and_transparent_pictures_is_cut_and_read(mvtec_root: Path, tmp_path: Path, capsys) -> None:
    nut = mvtec_root / "nut"
    for index in range(6):
        write_image(nut / f"train/good/scan{index}.png", scan(index))
        write_image(nut / f"test/line/{index}.png", scan(10 + index))
        write_image(nut / f"ground_truth/line/{index}_mask.png", spots(30 + 60 * index))
    pages(nut / "train/good/stack.tif", [picture(40), picture(41)])
    pages(nut / "test/dent/100.tif", [picture(42), picture(43), picture(44)])
    pages(nut / "ground_truth/dent/100_mask.tif", [square(), np.zeros_like(square()), square()])
    Image.fromarray(clear(picture(45))).save(nut / "train/good/clear.png")
    Image.fromarray(clear(picture(46))).save(nut / "test/scratch/005.png")
    out = tmp_path / "cut"
    assert advised(mvtec_root, out) == 0
    said = capsys.readouterr().out
    assert inspect_root(out, base=16).problems == []
    rows = samples(out)
    assert "left out, as the anomaly is not in them" in said
    assert "pages of one file are taken to show one part" in said
    assert (out / "nut/train/good/000.png").read_bytes() == (nut / "train/good/000.png").read_bytes()
    assert (out / "nut/ground_truth/scratch/000_mask.png").read_bytes() == (nut / "ground_truth/scratch/000_mask.png").read_bytes()
    assert [path.name for path in image_files(out / "nut/test/dent")] == ["000.png", "100_page1.png", "100_page3.png"]
    assert np.array_equal(read_image(out / "nut/train/good/stack_page2.png"), picture(41))
    assert max(max(row.width, row.height) / min(row.width, row.height) for row in rows) == PIECE
    assert len([row for row in rows if "/scan0_piece" in row.sample_id]) == len(places(SIDE, LONG))


def test_pieces_of_one_scan_never_straddle_the_split(mvtec_root: Path, tmp_path: Path) -> None:
    """Five scans with many pieces each, of which a third of the pieces would end within the second."""
    nut = mvtec_root / "nut"
    for index in range(5):
        write_image(nut / f"test/line/{index}.png", scan(10 + index))
        write_image(nut / f"ground_truth/line/{index}_mask.png", spots(20, 140, 260, 380))
    for index in range(7):
        write_image(nut / f"train/good/scan{index}.png", scan(index))
    cut_root(mvtec_root, tmp_path / "cut")
    of, roles = wholes(tmp_path / "cut"), dict[str, set[str]]()
    for row in samples(tmp_path / "cut", calibration=0.3):
        piece = Path(row.image_path).relative_to(tmp_path / "cut/nut").as_posix()
        roles.setdefault(of.get(piece, piece), set()).add(row.role)
    assert all(len(own) == 1 for own in roles.values()), roles
    assert [roles[f"test/line/{index}"] for index in range(5)] == [{"exemplar"}, *[{"held_out"}] * 4]
    assert {"normal", "calibration"} <= {role for own in roles.values() for role in own}
    (tmp_path / "cut/nut/pieces.csv").unlink()  # the oracle: without the table they would
    mixed = {(Path(row.image_path).name.partition("_")[0], row.role) for row in samples(tmp_path / "cut") if row.anomaly_type == "line"}
    assert {("1", "exemplar"), ("1", "held_out")} <= mixed


@given(st.integers(16, 40), st.integers(16, 2000), st.booleans())
def test_pieces_cover_a_scan_and_overlap_by_its_shorter_side(short: int, long: int, upright: bool) -> None:
    short, long = sorted((short, long))
    found = places(*((long, short) if upright else (short, long)))
    along = [place[0] if upright else place[1] for place in found]
    assert (along[0].start, along[-1].stop) == (0, long)
    assert len(found) == 1 or long > LONGEST * short
    assert all(one.stop - two.start >= short for one, two in itertools.pairwise(along))
    assert all(part.stop - part.start == PIECE * short for part in along) or len(found) == 1


def test_a_sliver_of_what_another_piece_has_whole_is_no_picture_of_its_own() -> None:
    cuts = places(SIDE, LONG)
    second = cuts[1][1].start
    assert that_show(spots(second - 7) > 0, cuts) == [cuts[0]], "two columns of it reach into the second piece"
    assert that_show(spots(second + 1) > 0, cuts) == cuts[:2], "whole in both"
    everywhere = np.zeros((SIDE, LONG), bool)
    everywhere[5:9] = True
    assert that_show(everywhere, cuts) == cuts, "whole in none"
    assert that_show(np.ones((SIDE, LONG), bool), cuts) == [], "a piece that is marked all over says nothing of where"


def test_masks_are_cut_where_their_pictures_are(mvtec_root: Path, tmp_path: Path) -> None:
    nut = mvtec_root / "nut"
    for name in ("tall", "wide"):
        image, mask = scan(1), spots(25, 300)
        image[mask > 0] = 0
        write_image(nut / f"test/line/{name}.png", image.transpose(1, 0, 2) if name == "tall" else image)
        write_image(nut / f"ground_truth/line/{name}_mask.png", mask.T if name == "tall" else mask)
    cut_root(mvtec_root, tmp_path / "cut")
    rows = [row for row in samples(tmp_path / "cut") if row.anomaly_type == "line"]
    assert len(rows) >= 4
    for row in rows:
        assert row.mask_path
        marked = read_image(row.mask_path, "L") > 0
        assert np.array_equal(marked, (read_image(row.image_path) == 0).all(axis=-1)), row.image_path


def test_transparent_pictures_are_laid_on_what_borders_the_opaque_normals_or_on_a_colour(mvtec_root: Path, tmp_path: Path) -> None:
    nut = mvtec_root / "nut"
    for index in range(4):
        framed = np.full((SIDE, SIDE, 3), (10, 20, 30), np.uint8)
        framed[2:-2, 2:-2] = picture(index)[2:-2, 2:-2]
        write_image(nut / f"train/good/{index:03}.png", framed)
    Image.fromarray(clear(picture(45))).save(nut / "test/scratch/005.png")
    assert advised(mvtec_root, tmp_path / "cut") == 0
    laid = read_image(tmp_path / "cut/nut/test/scratch/005.png")
    assert (laid[0, 0] == (10, 20, 30)).all()
    assert np.array_equal(laid[3:20, 3:20], picture(45)[3:20, 3:20])
    assert advised(mvtec_root, tmp_path / "named", "--background", "200,0,7") == 0
    assert (read_image(tmp_path / "named/nut/test/scratch/005.png")[0, 0] == (200, 0, 7)).all()
    for index in range(4):
        Image.fromarray(clear(picture(index))).save(nut / f"train/good/{index:03}.png")
    with pytest.raises(UsageError, match=r"nut: .* no opaque train normal .* name a colour: --background 128,128,128"):
        cut_root(mvtec_root, tmp_path / "third")
    assert not list(tmp_path.glob("*third*")), "something is left of it"
    assert advised(mvtec_root, tmp_path / "third", "--background", "128,128,128") == 0  # as it says
    for wrong in ("grey", "1,2", "-1,2,3", "1,2,300"):
        assert advised(mvtec_root, tmp_path / "fourth", "--background", wrong) == 2


def test_a_mask_in_an_alpha_channel_marks_what_is_not_transparent(mvtec_root: Path, tmp_path: Path) -> None:
    path = mvtec_root / "nut/ground_truth/scratch/002_mask.png"
    Image.fromarray(np.dstack([np.full((SIDE, SIDE, 3), 255, np.uint8), square()])).save(path)
    assert advised(mvtec_root, tmp_path / "cut") == 0
    assert np.array_equal(read_image(tmp_path / "cut/nut/ground_truth/scratch/002_mask.png", "L"), square())
    copied, own = (root / "nut/test/scratch/002.png" for root in (tmp_path / "cut", mvtec_root))
    assert copied.read_bytes() == own.read_bytes()


def test_pages_of_a_mask_are_instances_where_the_picture_has_one(mvtec_root: Path, tmp_path: Path) -> None:
    path = mvtec_root / "nut/ground_truth/scratch/002_mask.png"
    path.unlink()
    pages(path.with_suffix(".tif"), [square(), square().T])
    assert advised(mvtec_root, tmp_path / "cut") == 0
    mask = read_image(tmp_path / "cut/nut/ground_truth/scratch/002_mask.png", "L")
    assert np.array_equal(mask, np.maximum(square(), square().T))


def test_pages_of_different_parts_are_split_where_their_lines_are_removed(mvtec_root: Path, tmp_path: Path) -> None:
    """As the command says."""
    nut = mvtec_root / "nut"
    pages(nut / "test/dent/000.tif", [picture(50 + index) for index in range(6)])
    (nut / "test/dent/000.png").unlink()
    cut_root(mvtec_root, tmp_path / "cut")
    assert {row.role for row in samples(tmp_path / "cut") if row.anomaly_type == "dent"} == {"exemplar"}, "one mask holds for all pages"
    (tmp_path / "cut/nut/pieces.csv").unlink()
    roles = [row.role for row in samples(tmp_path / "cut") if row.anomaly_type == "dent"]
    assert roles == ["exemplar"] * 2 + ["held_out"] * 4


@pytest.mark.parametrize("depth", ["grey", "colour", "real"])
def test_what_has_more_than_8_bits_keeps_its_values(mvtec_root: Path, tmp_path: Path, depth: str) -> None:
    nut = mvtec_root / "nut"
    for path in sorted(nut.glob("t*/*/*.png")):
        values = read_image(path).astype(np.uint16) * 257
        values = values if depth == "colour" else values[..., 0]
        values = values.astype(np.float32) / 65535 if depth == "real" else values
        tifffile.imwrite(path.with_suffix(".tif"), values, photometric="rgb" if depth == "colour" else "minisblack")
        path.unlink()
    own = scan(3).astype(np.uint16) * 257 + 5
    own = own if depth == "colour" else own[..., 0]
    own = own.astype(np.float32) / 65535 if depth == "real" else own
    tifffile.imwrite(nut / "train/good/scan.tif", own, photometric="rgb" if depth == "colour" else "minisblack")
    tifffile.imwrite(nut / "train/good/stack.tif", np.stack([own[:, :SIDE], own[:, SIDE : 2 * SIDE]]))
    assert advised(mvtec_root, tmp_path / "cut") == 0
    found = [read_values(tmp_path / f"cut/nut/train/good/scan_piece{index}.tif") for index in range(1, len(places(SIDE, LONG)) + 1)]
    assert all(np.array_equal(piece, own[cut]) for piece, cut in zip(found, places(SIDE, LONG), strict=True))
    assert np.array_equal(read_values(tmp_path / "cut/nut/train/good/stack_page2.tif"), own[:, SIDE : 2 * SIDE])


def test_16_bits_are_laid_on_a_colour_of_16_bits(mvtec_root: Path, tmp_path: Path) -> None:
    for path in sorted((mvtec_root / "nut").glob("t*/*/*.png")):
        deep = np.dstack([read_image(path).astype(np.uint16) * 257, clear(picture(0))[..., 3].astype(np.uint16) * 257])
        tifffile.imwrite(path.with_suffix(".tif"), deep, photometric="rgb", extrasamples=["unassalpha"])
        path.unlink()
    assert advised(mvtec_root, tmp_path / "cut", "--background", "1000,300,65535") == 0
    values = read_values(tmp_path / "cut/nut/train/good/000.tif")
    assert tuple(values[0, 0]) == (1000, 300, 65535)
    assert np.array_equal(values[3:20, 3:20], picture(0)[3:20, 3:20].astype(np.uint16) * 257)


def test_what_stems_from_boxes_stays_approximate(mvtec_root: Path, tmp_path: Path) -> None:
    nut = mvtec_root / "nut"
    write_image(nut / "test/dent/001.png", scan(3))
    write_image(nut / "ground_truth/dent/001_mask.png", spots(30))
    write_approximate(nut, {"dent/001_mask.png": "ellipse", "scratch/001_mask.png": "otsu"})
    cut_root(mvtec_root, tmp_path / "cut")
    rows = [row.sample_id for row in samples(tmp_path / "cut") if row.approximate]
    assert rows == ["nut/test/dent/001_piece1", "nut/test/scratch/001"]


@pytest.mark.parametrize(("layout", "product"), [("folder", "gear"), ("loco", "box"), ("visa", "candle")])
def test_every_layout_becomes_mvtecs_with_the_same_pictures(
    request: pytest.FixtureRequest, tmp_path: Path, layout: Layout, product: str
) -> None:
    root = request.getfixturevalue(f"{layout}_root")
    before = samples(root, product, layout, table="../split_csv/1cls.csv" if layout == "visa" else ".")
    cut_root(root, tmp_path / "cut")
    assert inspect_root(tmp_path / "cut", base=16).problems == []
    after = samples(tmp_path / "cut", product)
    said = [(row.anomaly_type, row.role in ("normal", "calibration"), row.image_sha256) for row in after]
    assert sorted(said, key=str) == sorted([(r.anomaly_type, r.role in ("normal", "calibration"), r.image_sha256) for r in before], key=str)
    masks = {(row.anomaly_type, row.image_sha256): read_image(row.mask_path, "L") for row in before if row.mask_path}
    found = {(row.anomaly_type, row.image_sha256): read_image(row.mask_path, "L") for row in after if row.mask_path}
    assert masks.keys() == found.keys()
    assert all(np.array_equal(mask, found[key]) for key, mask in masks.items())


def test_a_root_that_was_cut_can_be_cut_again(mvtec_root: Path, tmp_path: Path) -> None:
    write_image(mvtec_root / "nut/train/good/scan.png", scan(0))
    for source, out in ((mvtec_root, "one"), (tmp_path / "one", "two")):
        cut_root(source, tmp_path / out)
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "two")


def test_problems_that_cutting_does_not_mend_are_all_named_and_nothing_is_written(mvtec_root: Path, tmp_path: Path) -> None:
    nut = mvtec_root / "nut"
    (nut / "ground_truth/scratch/003_mask.png").unlink()
    (nut / "train/good/001.png").write_bytes(b"none")
    write_image(nut / "ground_truth/scratch/001_mask.png", square(30))
    write_image(nut / "test/scratch/001.png", np.dstack([picture(0), square()]))
    pages(nut / "test/scratch/004.tif", [picture(0), picture(1)])
    (nut / "test/scratch/004.png").unlink()
    (nut / "ground_truth/scratch/004_mask.png").unlink()
    pages(nut / "ground_truth/scratch/004_mask.tif", [square()] * 3)
    with pytest.raises(UsageError) as error:
        cut_root(mvtec_root, tmp_path / "cut")
    said = str(error.value)
    expected = (
        "4 problems that cutting does not mend, so that nothing is written", "003.png: image without a mask",
        "train/good/001.png: expected an image", "001_mask.png: expected 24x24 as", "004_mask.tif: expected one page or 2, as",
    )  # fmt: skip
    assert all(text in said for text in expected), said
    assert not list(tmp_path.glob("*cut*"))


def test_nothing_is_written_into_a_data_set_or_over_anything(mvtec_root: Path, tmp_path: Path) -> None:
    for out in (mvtec_root / "new", mvtec_root / "nut/new", mvtec_root):
        with pytest.raises(UsageError, match=r"lies in .*, which is read|expected a new or empty folder"):
            cut_root(mvtec_root, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_text("")
    with pytest.raises(UsageError, match="expected a new or empty folder"):
        cut_root(mvtec_root, tmp_path / "full")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train/good/900.png,a", "train/good/900.png is no picture of nut; remove its line"),
        ("train/good/000.png,a\ntest/good/000.png,a", "pieces of a are in test/good and in train/good; expected them in one"),
    ],
)
def test_a_table_of_pieces_that_is_not_true_is_named(mvtec_root: Path, line: str, said: str) -> None:
    write_text(mvtec_root / "nut/pieces.csv", f"piece,of\n{line}\n")
    (problem,) = inspect_root(mvtec_root, base=16).problems
    assert problem.startswith(f"{mvtec_root}/nut/pieces.csv: ")
    assert said in problem
    write_text(mvtec_root / "nut/pieces.csv", "piece,of\n")
    found = inspect_root(mvtec_root, base=16)
    assert found.problems == []
    assert "pieces.csv" not in found.text()


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40), st.floats(0, 0.9))
def test_no_whole_is_on_two_sides_whatever_the_pieces(drawn: list[tuple[int, bool]], share: float) -> None:
    entries = [Entry("test" if bad else "train", "a" if bad else None, f"{i:02}", Path(f"{i}-{bad}")) for i, (_, bad) in enumerate(drawn)]
    of = {entry.image: f"{bad} {whole}" for entry, (whole, bad) in zip(entries, drawn, strict=True)}
    roles: dict[str, set[str]] = {}
    for entry, role in assign_roles(entries, share, of):
        roles.setdefault(of[entry.image], set()).add(role)
    assert all(len(own) == 1 for own in roles.values())
    bad = [own for whole, own in roles.items() if whole.startswith("True")]
    assert not bad or bad.count({"exemplar"}) == max(1, len(bad) // 3)
