"""``cadiff import``: what is written, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_examples import EXAMPLES, coco
from plates import HEIGHT, WIDTH, marked, picture

from cadiff.cli import main
from cadiff.data import read_samples
from cadiff.errors import CADiffError, UsageError
from cadiff.importing import import_labels
from cadiff.importing.order import Order
from cadiff.params import DatasetParams
from cadiff.storage import read_image, write_image, write_text


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_tools_export_becomes_a_data_set(name: str, tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "out"
    import_labels(Order(EXAMPLES[name](tmp_path / "labels"), pictures, out, normals=("ok/*",)))
    assert files(out) == [
        "plate/ground_truth/approximate.csv", "plate/ground_truth/dark_spot/b1_mask.png", "plate/ground_truth/dark_spot/b2_mask.png",
        "plate/test/dark_spot/b1.png", "plate/test/dark_spot/b2.png", "plate/test/good/g5.png",
        *(f"plate/train/good/g{index}.png" for index in (1, 2, 3, 4, 6)),
    ]  # fmt: skip
    assert (out / "plate/test/dark_spot/b1.png").read_bytes() == (pictures / "bad/b1.png").read_bytes()
    np.testing.assert_array_equal(read_image(out / "plate/ground_truth/dark_spot/b1_mask.png", "L") > 0, marked())
    rows = read_samples(DatasetParams(name="d", layout="mvtec", root=str(out), calibration=0.0), "plate")
    assert {row.sample_id: row.approximate for row in rows if row.anomaly_type} == {
        "plate/test/dark_spot/b1": False, "plate/test/dark_spot/b2": True,
    }  # fmt: skip


def test_the_command_proposes_classes_then_imports_by_them(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "classes.csv", tmp_path / "out"
    call = ["import", str(coco(tmp_path / "l")), "--images", str(pictures), "--out", str(out), "--classes", str(table), "--normals", "ok/*"]
    with pytest.raises(SystemExit) as done:
        main(call)
    assert done.value.code == 0
    assert "nothing is imported yet" in capsys.readouterr().out
    assert not out.exists()
    assert list(csv.reader(table.read_text().splitlines())) == [
        ["class", "product", "anomaly_type", "count"], ["Dark Spot", "plate", "dark_spot", "2"],
    ]  # fmt: skip
    table.write_text("class,product,anomaly_type\nDark Spot,washer,stain\n")
    with pytest.raises(SystemExit) as done:
        main(call)
    said = capsys.readouterr().out
    assert done.value.code == 0, said
    assert "washer, stain: 2 pictures" in said
    assert "1 masks are approximate" in said
    assert "left out: 1 pictures in which nothing is marked, such as bad/b3.png" in said
    assert "No problems found." in said
    assert (out / "washer/ground_truth/stain/b1_mask.png").is_file()


def test_unlabelled_pictures_are_left_out_unless_called_normal(tmp_path: Path, pictures: Path) -> None:
    order = Order(coco(tmp_path / "l"), pictures, tmp_path / "out")
    done = import_labels(order)
    assert len(done.unlabelled) == 7
    assert not (tmp_path / "out/plate/train").exists()
    assert "no normals: put at least one into" in "\n".join(done.lines(order))


def test_hard_links_are_the_pictures_themselves(tmp_path: Path, pictures: Path) -> None:
    import_labels(Order(coco(tmp_path / "l"), pictures, tmp_path / "out", link=True))
    assert (tmp_path / "out/plate/test/dark_spot/b1.png").samefile(pictures / "bad/b1.png")


def test_pictures_of_one_name_keep_apart_by_their_folders(tmp_path: Path, pictures: Path) -> None:
    write_image(pictures / "ok" / "b1.png", picture(50))
    write_image(pictures / "ok" / "b1.bmp.png", picture(51))
    import_labels(Order(coco(tmp_path / "l"), pictures, tmp_path / "out", normals=("ok/b*",)))
    assert files(tmp_path / "out/plate/test") == ["dark_spot/b2.png", "dark_spot/bad-b1.png"]
    assert files(tmp_path / "out/plate/train") == ["good/b1.bmp.png", "good/ok-b1.png"]


def test_several_types_in_one_picture_are_combined_or_one_by_the_table(tmp_path: Path, pictures: Path) -> None:
    labels = labels_of(tmp_path, {"bad/b1.png": [("scratch", 2), ("dent", 15)], "bad/b2.png": [("scratch", 2)]})
    import_labels(Order(labels, pictures, tmp_path / "apart"))
    assert files(tmp_path / "apart/plate/test") == ["combined/b1.png", "scratch/b2.png"]
    assert read_image(tmp_path / "apart/plate/ground_truth/combined/b1_mask.png", "L").sum() == 2 * 9 * 255
    write_text(tmp_path / "c.csv", "class,product,anomaly_type\nscratch,plate,damage\ndent,plate,damage\n")
    import_labels(Order(labels, pictures, tmp_path / "one", classes=tmp_path / "c.csv"))
    assert files(tmp_path / "one/plate/test") == ["damage/b1.png", "damage/b2.png"]
    write_text(tmp_path / "c.csv", "class,product,anomaly_type\nscratch,{folder},scratch\ndent,,\n")
    done = import_labels(Order(labels, pictures, tmp_path / "folders", classes=tmp_path / "c.csv", normals=("ok/*",)))
    assert dict(done.placed) == {("bad", "scratch"): 2, ("ok", "good"): 6}
    assert read_image(tmp_path / "folders/bad/ground_truth/scratch/b1_mask.png", "L").sum() == 9 * 255
    assert done.ignored == {"dent": 1}


def test_a_picture_with_a_class_that_is_left_out_is_no_normal(tmp_path: Path, pictures: Path) -> None:
    labels = labels_of(tmp_path, {"bad/b1.png": [("scratch", 2)], "bad/b2.png": [("dent", 2)], "bad/b3.png": [("label", 2)]})
    write_text(tmp_path / "c.csv", "class,product,anomaly_type\nscratch,plate,scratch\ndent,,\nlabel,plate,good\n")
    order = Order(labels, pictures, tmp_path / "out", classes=tmp_path / "c.csv", normals=("*",))
    said = "\n".join(import_labels(order).lines(order))
    assert not list((tmp_path / "out").rglob("b2.png"))
    assert (tmp_path / "out/plate/train/good/b3.png").is_file()
    assert "dent (1), and pictures with nothing else marked in them" in said


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no second file system")
def test_links_to_another_disk_are_refused_with_advice_that_works(tmp_path: Path, pictures: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        order = Order(coco(tmp_path / "l"), pictures, Path(elsewhere) / "out", link=True)
        with pytest.raises(UsageError, match="leave --link out"):
            import_labels(order)
        import_labels(replace(order, link=False))


def test_labels_that_are_not_there_are_named_whatever_their_format(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(UsageError, match=r"none: expected a label file or a folder of such, but it is not there"):
        import_labels(Order(tmp_path / "none", pictures, tmp_path / "out", format="voc"))


def test_a_class_of_a_whole_picture_needs_something_marked(tmp_path: Path, pictures: Path) -> None:
    tasks = [
        {"data": {"image": f"{name}.png"}, "annotations": [{"result": [{"type": "choices", "value": {"choices": [called]}}]}]}
        for name, called in (("g1", "OK"), ("g2", "Good"), ("b1", "broken"))
    ]
    write_text(tmp_path / "l.json", json.dumps(tasks))
    with pytest.raises(UsageError, match=r"bad/b1\.png: is called broken, but nothing is marked in it"):
        import_labels(Order(tmp_path / "l.json", pictures, tmp_path / "out"))
    write_text(tmp_path / "l.json", json.dumps(tasks[:2]))
    import_labels(Order(tmp_path / "l.json", pictures, tmp_path / "out"))
    assert files(tmp_path / "out") == ["plate/train/good/g1.png", "plate/train/good/g2.png"]


def labels_of(folder: Path, said: dict[str, list[tuple[str, int]]], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """COCO labels: squares of three px, at that column of each picture."""
    names = sorted({name for shapes in said.values() for name, _ in shapes})
    annotations = [
        {"image_id": image, "category_id": names.index(name), "segmentation": [[x, 4, x + 3, 4, x + 3, 7, x, 7]]}
        for image, shapes in said.items() for name, x in shapes
    ]  # fmt: skip
    images = [{"id": image, "file_name": image, "width": size[0], "height": size[1]} for image in said]
    categories = [{"id": index, "name": name} for index, name in enumerate(names)]
    write_text(folder / "labels.json", json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return folder / "labels.json"


@pytest.mark.parametrize(
    ("said", "size", "told"),
    [
        ({"bad/none.png": [("spot", 3)]}, (WIDTH, HEIGHT), "bad/none.png: expected it below"),
        ({"bad/b1.webp": [("spot", 3)]}, (WIDTH, HEIGHT), r"bad/b1.webp: .* as a file of .*\.png.*; copy it there, convert it"),
        ({"../../etc/passwd.png": [("spot", 3)]}, (WIDTH, HEIGHT), "leads out of"),
        ({"bad/b1.png": [("spot", 3)], "b1.png": [("spot", 3)]}, (WIDTH, HEIGHT), "labelled twice"),
        ({"bad/b1.png": [("spot", 3)]}, (HEIGHT, WIDTH), "its labels are of 30x40, the picture is of 40x30"),
        ({"bad/b1.png": [("spot", 900)]}, (WIDTH, HEIGHT), "lies outside of the picture"),
        ({"bad/b3.png": []}, (WIDTH, HEIGHT), "nothing to import"),
    ],
)
def test_a_refusal_names_the_picture_and_leaves_nothing(
    said: dict, size: tuple[int, int], told: str, tmp_path: Path, pictures: Path
) -> None:
    before = files(tmp_path)
    labels = labels_of(tmp_path, {"bad/b2.png": [("spot", 3)], **said} if told != "nothing to import" else said, size)
    with pytest.raises(UsageError, match=told):
        import_labels(Order(labels, pictures, tmp_path / "out"))
    assert files(tmp_path) == sorted([*before, "labels.json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.json", "plate"]


def test_nothing_is_written_over_or_among_other_data(tmp_path: Path, pictures: Path, drawn_root: Path) -> None:
    labels = coco(tmp_path / "l")
    write_text(tmp_path / "full" / "a.txt", "mine")
    for out, told in (
        (tmp_path / "full", "expected a new or empty folder"),
        (labels, "expected a new or empty folder"),
        (pictures / "out", "which is read"),
        (drawn_root / "nut2", "which is a data set already"),
        (drawn_root / "nut" / "more", "which is a data set already"),
    ):
        with pytest.raises(UsageError, match=told):
            import_labels(Order(labels, pictures, out))
    write_text(tmp_path / "program" / "test" / "test_it.py", "a program's own folder is no data set")
    write_text(tmp_path / "notes" / "table.csv", "class,product,anomaly_type\n")
    (tmp_path / "empty").mkdir()
    import_labels(Order(labels, pictures, tmp_path / "empty"))
    assert (tmp_path / "empty" / "plate").is_dir()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("class,product\n", "anomaly_type is not there"),
        ("class;product;anomaly_type\nDark Spot;a;x\n", "with commas between them"),
        ("class,product,anomaly_type\nDark Spot,a b,x\n", "line 2: 'a b' cannot name a product"),
        ("class,product,anomaly_type\nDark Spot,a,x/y\n", "line 2: 'x/y' names no anomaly type"),
        ("class,product,anomaly_type\nDark Spot,a,x\nDark Spot,a,y\n", "line 3: the class 'Dark Spot' is there twice"),
        ("class,product,anomaly_type\nother,a,x\n", "the class 'Dark Spot' is not in"),
    ],
)
def test_what_is_wrong_in_the_table_of_classes_is_named(text: str, told: str, tmp_path: Path, pictures: Path) -> None:
    write_text(tmp_path / "c.csv", text)
    with pytest.raises(UsageError, match=told):
        import_labels(Order(coco(tmp_path / "l"), pictures, tmp_path / "out", classes=tmp_path / "c.csv"))
    assert not (tmp_path / "out").exists()


def test_a_picture_that_does_not_open_is_named(tmp_path: Path, pictures: Path) -> None:
    (pictures / "bad" / "b2.png").write_bytes(b"no picture")
    with pytest.raises(CADiffError, match=r"b2\.png: expected an image"):
        import_labels(Order(coco(tmp_path / "l"), pictures, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_line_of_a_mask_that_is_gone_is_a_problem(tmp_path: Path, pictures: Path) -> None:
    import_labels(Order(coco(tmp_path / "l"), pictures, tmp_path / "out", normals=("ok/*",)))
    (tmp_path / "out/plate/ground_truth/approximate.csv").write_text("mask,how\ndark_spot/b9_mask.png,cut\n")
    with pytest.raises(UsageError, match=r"approximate\.csv: .*b9_mask\.png is not there; remove its line"):
        read_samples(DatasetParams(name="d", layout="mvtec", root=str(tmp_path / "out"), calibration=0.0), "plate")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(tool=st.sampled_from(sorted(EXAMPLES)), place=st.integers(0, 10**6), put=st.binary(max_size=6), cut=st.booleans())
def test_broken_labels_are_refused_in_words_or_read_whole(
    tool: str, place: int, put: bytes, cut: bool, tmp_path_factory: pytest.TempPathFactory, pictures: Path
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    labels = EXAMPLES[tool](folder / "labels")
    there = sorted(path for path in (folder / "labels").rglob("*") if path.is_file())
    path, before = there[place % len(there)], files(pictures)
    data = path.read_bytes()
    at = place % len(data)
    path.write_bytes(data[:at] + put + (b"" if cut else data[at + len(put) :]))
    try:
        import_labels(Order(labels, pictures, folder / "out", format=tool))  # type: ignore[arg-type]
    except CADiffError:
        assert not (folder / "out").exists()
    assert files(pictures) == before
    assert not list(folder.glob(".*"))
