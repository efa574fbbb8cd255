"""Each format's reader against a small export of its tool, and against the tool's own code where there is one."""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_examples import BRUSH, EXAMPLES, png
from plates import BOTTOM, CORNERS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, marked, picture
from pycocotools import mask as cocomask

from cadiff.errors import UsageError
from cadiff.labels.formats import FORMATS, recognised
from cadiff.labels.model import Box, Labelled, LabelObject, object_mask
from cadiff.labels.pictures import PictureFolder
from cadiff.labels.rle import pack_coco, runs, to_runs, unpack_brush, unpack_coco
from cadiff.storage import write_image, write_text

CVAT = "<annotations><image name='b1.png' width='4' height='4'>"


def read(labels: Path, pictures: Path, name: str | None = None) -> list[Labelled]:
    return list(FORMATS[name or recognised(labels)].read(labels, PictureFolder(pictures)))  # type: ignore[index]


def only(found: list[Labelled]) -> LabelObject:
    assert [len(one.objects) for one in found] == [1]
    return found[0].objects[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_export_is_recognised_and_read(name: str, tmp_path: Path, pictures: Path) -> None:
    labels = EXAMPLES[name](tmp_path / "labels")
    assert recognised(labels) == name
    folder = PictureFolder(pictures)
    exact, boxed = FORMATS[name].read(labels, folder)  # type: ignore[index]
    assert [folder.find(one.image, one.origin) for one in (exact, boxed)] == ["bad/b1.png", "bad/b2.png"]
    assert [one.name for one in (*exact.objects, *boxed.objects)] == ["Dark Spot", "Dark Spot"]
    np.testing.assert_array_equal(object_mask(exact.objects[0], HEIGHT, WIDTH), marked())
    assert np.allclose(boxed.objects[0].box or (), (LEFT, TOP, RIGHT, BOTTOM))
    for one in (exact, boxed):
        assert (one.width, one.height) in ((WIDTH, HEIGHT), (None, None))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_coco_runs_are_those_of_pycocotools(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    theirs = cocomask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    ours = to_runs(mask, by_columns=True)
    assert pack_coco(ours.counts) == theirs
    np.testing.assert_array_equal(runs(unpack_coco(theirs), height, width, by_columns=True).placed(height, width), mask)


@pytest.mark.parametrize("compressed", [True, False])
def test_coco_masks_as_runs(compressed: bool, tmp_path: Path, pictures: Path) -> None:
    counts = to_runs(marked(), by_columns=True).counts
    said = {"size": [HEIGHT, WIDTH], "counts": pack_coco(counts) if compressed else counts.tolist()}
    labels = coco_file(tmp_path, [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": said, "iscrowd": 1}])
    np.testing.assert_array_equal(object_mask(only(read(labels, pictures)), HEIGHT, WIDTH), marked())


def test_a_mask_of_another_size_is_not_set_into_a_corner(tmp_path: Path, pictures: Path) -> None:
    said = {"size": [HEIGHT // 2, WIDTH // 2], "counts": [0, HEIGHT * WIDTH // 4]}
    half = only(read(coco_file(tmp_path, [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": said}]), pictures))
    with pytest.raises(ValueError, match="a mask of 20x15 on a picture of 40x30"):
        object_mask(half, HEIGHT, WIDTH)


def test_coco_ids_from_a_column_of_real_numbers_are_the_same(tmp_path: Path, pictures: Path) -> None:
    """As pandas writes them: 1 is 1.0 where a cell of the column was empty."""
    labels = coco_file(tmp_path, [{"id": 1, "image_id": 1.0, "category_id": 1.0, "bbox": [LEFT, TOP, 3, 4]}])
    assert only(read(labels, pictures)).box == Box(LEFT, TOP, LEFT + 3, TOP + 4)


@given(st.lists(st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT)), min_size=3, max_size=8))
def test_a_polygons_pixels_are_those_of_pycocotools_but_for_its_line(corners: list[tuple[float, float]]) -> None:
    ours = object_mask(LabelObject("spot", polygons=(np.array(corners),)), HEIGHT, WIDTH)
    flat = [number for corner in corners for number in corner]
    theirs = cocomask.decode(cocomask.frPyObjects([flat], HEIGHT, WIDTH))[..., 0] > 0
    differ = np.argwhere(ours != theirs)
    steps = np.linspace(0, 1, 200)[:, None]
    following = np.roll(np.array(corners), -1, axis=0)
    line = np.concatenate([(1 - steps) * a + steps * b for a, b in zip(np.array(corners), following, strict=True)])
    for row, column in differ:
        assert np.abs(line - (column + 0.5, row + 0.5)).max(axis=1).min() <= 1.6


def test_a_polygon_thinner_than_a_pixel_keeps_its_pixels() -> None:
    thin = LabelObject("crack", polygons=(np.array([(2.1, 3.6), (20.4, 3.6), (20.4, 3.9)]),))
    found = object_mask(thin, HEIGHT, WIDTH)
    assert found[3, 2:21].all()
    assert found.sum() == 19


def test_several_instances_and_parts_are_one_union(tmp_path: Path, pictures: Path) -> None:
    part = [1, 1, 4, 1, 4, 4, 1, 4]
    flat = [number for corner in CORNERS for number in corner]
    labels = coco_file(tmp_path, [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [flat, part]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[30, 20, 33, 20, 33, 23, 30, 23]]},
    ])  # fmt: skip
    first, second = read(labels, pictures)[0].objects
    expected = marked()
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(object_mask(first, HEIGHT, WIDTH), expected)
    assert object_mask(second, HEIGHT, WIDTH).sum() == 9


def test_label_studios_brush_is_that_of_its_own_converter(tmp_path: Path, pictures: Path) -> None:
    expected = marked()
    expected[20:23, 30:33] = True
    np.testing.assert_array_equal(unpack_brush(BRUSH, HEIGHT, WIDTH).placed(HEIGHT, WIDTH), expected)
    result = {
        "type": "brushlabels", "original_width": WIDTH, "original_height": HEIGHT,
        "value": {"format": "rle", "rle": list(BRUSH), "brushlabels": ["spot"]},
    }  # fmt: skip
    write_text(tmp_path / "p.json", json.dumps([{"data": {"image": "s3://b/bad/b1.png"}, "annotations": [{"result": [result]}]}]))
    np.testing.assert_array_equal(object_mask(only(read(tmp_path / "p.json", pictures)), HEIGHT, WIDTH), expected)


def test_label_studios_turned_rectangle_and_ellipse(tmp_path: Path, pictures: Path) -> None:
    sized = {"original_width": WIDTH, "original_height": HEIGHT}
    # 20..32 x 3..15; a quarter turn clockwise around its top left corner makes it 8..20 x 3..15
    turned = {"x": 50, "y": 10, "width": 30, "height": 40, "rotation": 90, "rectanglelabels": ["spot"]}
    ellipse = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 20, "rotation": 0, "ellipselabels": ["spot"]}
    results = [{"type": "rectanglelabels", "value": turned, **sized}, {"type": "ellipselabels", "value": ellipse, **sized}]
    write_text(tmp_path / "p.json", json.dumps([{"data": {"image": "b1.png"}, "annotations": [{"result": results}]}]))
    first, second = read(tmp_path / "p.json", pictures)[0].objects
    assert (first.approximate, second.approximate) == (True, False)
    rows, columns = np.nonzero(object_mask(first, HEIGHT, WIDTH))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (8, 19, 3, 14)
    assert object_mask(second, HEIGHT, WIDTH).sum() == pytest.approx(np.pi * 10 * 6, rel=0.05)


def test_cvats_mask_and_tag(tmp_path: Path, pictures: Path) -> None:
    write_text(tmp_path / "a.xml", f"""<annotations><image id="0" name="bad/b1.png" width="{WIDTH}" height="{HEIGHT}">
        <mask label="spot" rle="0, 2, 2, 4, 2, 2" left="10" top="20" width="4" height="3" z_order="0"></mask>
        <tag label="checked" source="manual"></tag></image></annotations>""")  # fmt: skip
    found = read(tmp_path / "a.xml", pictures)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[20:23, 10:14] = [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(object_mask(only(found), HEIGHT, WIDTH), expected)
    assert found[0].classes == ("checked",)


def test_labelmes_mask_and_circle(tmp_path: Path, pictures: Path) -> None:
    small = np.zeros((3, 4), np.uint8)
    small[1:, :2] = 255
    shapes = [
        {"label": "spot", "shape_type": "mask", "points": [[10, 20], [13, 22]], "mask": base64.b64encode(png(small, "L")).decode()},
        {"label": "spot", "shape_type": "circle", "points": [[20, 15], [20, 10]]},
    ]
    write_text(tmp_path / "b1.json", json.dumps({"shapes": shapes, "imagePath": "b1.png"}))
    first, second = read(tmp_path / "b1.json", pictures)[0].objects
    assert np.argwhere(object_mask(first, HEIGHT, WIDTH)).tolist() == [[21, 10], [21, 11], [22, 10], [22, 11]]
    assert object_mask(second, HEIGHT, WIDTH).sum() == pytest.approx(np.pi * 25, rel=0.05)


@pytest.mark.slow  # tracing memory takes twenty times as long as reading
def test_annotations_of_any_order_and_number_take_the_memory_of_one_picture(tmp_path: Path, pictures: Path) -> None:
    """Ten annotations of each of 300 pictures, which come last in the file."""
    flat = [number for corner in CORNERS for number in corner] * 50
    labels, folder = tmp_path / "many.json", PictureFolder(pictures)
    with labels.open("w") as file:
        file.write('{"annotations": [')
        for index in range(3000):
            one = {"id": index, "image_id": index % 300, "category_id": 1, "segmentation": [flat]}
            file.write((", " if index else "") + json.dumps(one))
        images = [{"id": index, "file_name": f"{index}.png"} for index in range(300)]
        file.write(f'], "images": {json.dumps(images)}, "categories": [{{"id": 1, "name": "spot"}}]}}')
    tracemalloc.start()
    counts = [len(one.objects) for one in FORMATS["coco"].read(labels, folder)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == [10] * 300
    assert peak < labels.stat().st_size / 5, f"{peak} bytes for a file of {labels.stat().st_size}"


@pytest.mark.parametrize(("tool", "suffix"), [("labelme", ".json"), ("yolo", ".txt")])
def test_a_gigabyte_of_labels_of_one_picture_is_refused_at_once(tool: str, suffix: str, tmp_path: Path, pictures: Path) -> None:
    """Formats with a file a picture read it whole; those with one for all stream it (above)."""
    labels = EXAMPLES[tool](tmp_path / "labels")
    huge = next(path for path in ([labels] if labels.is_file() else sorted(labels.rglob("*"))) if path.suffix == suffix)
    with huge.open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(UsageError, match=rf"^{huge}: expected at most 268 MB of labels of one picture, found 1074: leave the picture out"):
        read(labels, pictures, tool)


def coco_file(folder: Path, annotations: list[dict], names: tuple[str, ...] | list[str] = ("bad/b1.png",)) -> Path:
    images = [{"id": index, "file_name": name} for index, name in enumerate(names, 1)]
    write_text(folder / "c.json", json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "spot"}]}))
    return folder / "c.json"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"segmentation": [[1, 1, 2]]}, "pairs of numbers"),
        ({"segmentation": [[1, 1, 2, 2]]}, "at least three corners"),
        ({"segmentation": [[1, 1, 2, "x", 3, 3]]}, "pairs of numbers"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 5]}}, "the counts of a mask are of 10 pixels; expected 40x30"),
        ({"segmentation": {"size": [10**6, 10**6], "counts": [10**12]}}, "expected 1 to"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "~~"}}, "compressed mask"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "ooooooooooooooo"}}, "compressed mask"),
        ({"bbox": [5, 5, 0, 3]}, "left and top lie before"),
        ({"bbox": [5, 5, 1e300, 3]}, "at most 1000000 px"),
        ({"category_id": 9, "bbox": [1, 1, 2, 2]}, "none of the categories"),
        ({"image_id": 77, "bbox": [1, 1, 2, 2]}, "none of its images"),
        ({}, "'bbox'"),
    ],
)
def test_what_is_wrong_in_an_annotation_is_named(said: dict, told: str, tmp_path: Path, pictures: Path) -> None:
    labels = coco_file(tmp_path, [{"id": 41, "image_id": 1, "category_id": 1, **said}])
    with pytest.raises(UsageError, match="annotation 41") as error:
        read(labels, pictures)
    assert told in str(error.value)
    assert str(labels) in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.xml", "<annotations><track label='x'/></annotations>", "export as CVAT for images"),
        ("a.xml", f"{CVAT}<polyline label='x' points='1,1;2,2'/></image></annotations>", "no area"),
        ("a.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations><image name='&b;' width='4' height='4'/></annotations>", "plain elements"),
        ("a.xml", "<annotations><image name='b1.png'", "does not parse"),
        ("a.xml", "<annotation><object/></annotation>", "<filename>"),
        ("p.json", '[{"image": "b1.png", "label": []}]', "not JSON-MIN"),
        ("p.json", '[{"data": {"image": "b1.png"}, "annotations": [{"result": []}, {"result": []}]}]', "2 annotations"),
        ("p.json", '[{"data": {"image": "b1.png"}, "annot', "does not parse"),
        ("p.json", '{"shapes": [{"label": "x", "points": [[1, 1], [2, 2]], "shape_type": "line"}], "imagePath": "b1.png"}', "no area"),
        ("p.json", '{"shapes": [], "imagePath": ', "does not parse"),
        ("p.json", '{"shapes": [' + "[" * 10**5, "does not parse"),
        ("o.manifest", '{"source-ref": "b1.png", "m-ref": "s3://b/m.png", "m-ref-metadata": {"internal-color-map": {}}}', "copy it there"),
        ("o.manifest", '{"source-ref": "b1.png", "t": 1, "t-metadata": {"type": "groundtruth/other"}}', "expected one of these kinds"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named(name: str, text: str, told: str, tmp_path: Path, pictures: Path) -> None:
    write_text(tmp_path / name, text)
    with pytest.raises(UsageError) as error:
        read(tmp_path / name, pictures)
    assert str(error.value).startswith(str(tmp_path / name))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 8 5 20 12", "from 0 to 1"),
        ("3 0.5 0.5 0.1 0.1", "class 3 has no name"),
        ("0 0.1 0.1 0.2", "found 3"),
        ("spot 0.1 0.1 0.2 0.2", "line 1"),
    ],
)
def test_what_is_wrong_in_a_line_is_named(line: str, told: str, tmp_path: Path, pictures: Path) -> None:
    write_text(tmp_path / "l" / "classes.txt", "spot\n")
    write_text(tmp_path / "l" / "b1.txt", line + "\n")
    with pytest.raises(UsageError, match=r"b1\.txt: line 1") as error:
        read(tmp_path / "l", pictures)
    assert told in str(error.value)


def test_a_mask_within_a_file_that_does_not_decode_names_the_file(tmp_path: Path, pictures: Path) -> None:
    shape = {"label": "spot", "shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": base64.b64encode(b"none").decode()}
    write_text(tmp_path / "b1.json", json.dumps({"shapes": [shape], "imagePath": "b1.png"}))
    with pytest.raises(UsageError, match=rf"^{tmp_path / 'b1.json'}: shape 1: the mask of spot: expected an image"):
        read(tmp_path / "b1.json", pictures)


def test_copies_that_an_editor_hides_are_no_labels(tmp_path: Path, pictures: Path) -> None:
    labels = EXAMPLES["labelme"](tmp_path / "labels")
    write_text(labels / ".ipynb_checkpoints" / "b1-checkpoint.json", (labels / "b1.json").read_text())
    assert len(read(labels, pictures)) == 2


def test_a_root_as_roboflow_exports_it(tmp_path: Path) -> None:
    """``train/images`` beside ``train/labels``, one name in two parts, and texts about the data set."""
    for part, line in (("train", "0 0.5 0.5 0.2 0.2\n"), ("valid", "")):
        write_image(tmp_path / part / "images" / "1.png", picture(1))
        write_text(tmp_path / part / "labels" / "1.txt", line)
    write_text(tmp_path / "data.yaml", "names: [spot]\n")
    write_text(tmp_path / "README.roboflow.txt", "Exported on a day\n")
    assert [(one.image, len(one.objects)) for one in read(tmp_path, tmp_path)] == [("train/images/1.png", 1), ("valid/images/1.png", 0)]
    with pytest.raises(UsageError, match=r"1\.txt: expected a folder of YOLO's text files"):
        read(tmp_path / "train" / "labels" / "1.txt", tmp_path, "yolo")


def test_the_numbers_of_classes_are_those_of_their_lines(tmp_path: Path, pictures: Path) -> None:
    write_text(tmp_path / "l" / "classes.txt", "dent\n\nspot\n")
    write_text(tmp_path / "l" / "b1.txt", "2 0.5 0.5 0.1 0.1\n")
    assert only(read(tmp_path / "l", pictures)).name == "spot"


def test_a_picture_in_a_bucket_with_a_signature_is_known(tmp_path: Path, pictures: Path) -> None:
    write_text(tmp_path / "p.json", json.dumps([{"data": {"image": "https://b.example/bad/b1.png?Signature=a%2Fb.c"}, "annotations": []}]))
    (found,) = read(tmp_path / "p.json", pictures)
    assert PictureFolder(pictures).find(found.image, found.origin) == "bad/b1.png"


def test_an_unknown_file_is_named_with_what_is_read(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "image,x,y\n")
    with pytest.raises(UsageError, match="no labels that are known; expected SageMaker Ground Truth, LabelMe, COCO"):
        recognised(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["../../secret.png", "/a/../../../secret.png", "bad/../../../secret.png", "..\\..\\secret.png"])
def test_no_path_leads_out_of_the_folder(name: str, tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "secret.png").write_bytes((pictures / "bad" / "b1.png").read_bytes())
    with pytest.raises(UsageError, match="leads out of"):
        PictureFolder(pictures).find(name, pictures / "labels.json")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("bad/b1.png", "bad/b1.png"), ("b1.png", "bad/b1.png"), ("C:\\data\\plates\\bad\\b1.png", "bad/b1.png"),
        ("s3://bucket/x/bad/b1.png", "bad/b1.png"), ("/data/local-files/?d=plates/bad/b1.png", "bad/b1.png"),
        ("/data/upload/7/0a1b2c3d-b1.png", "bad/b1.png"), ("../plate/bad/b1.png", "bad/b1.png"), ("/etc/passwd", None),
        ("good/b1.png", None), ("", None), ("none.png", None),
    ],
)  # fmt: skip
def test_which_picture_a_name_means(name: str, key: str | None, tmp_path: Path, pictures: Path) -> None:
    assert PictureFolder(pictures).find(name, tmp_path / "labels" / "a.json" if ".." in name else tmp_path) == key


def test_a_box_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        LabelObject("spot")
    with pytest.raises(ValueError, match="left and top"):
        LabelObject("spot", box=Box(3, 3, 3, 9))
