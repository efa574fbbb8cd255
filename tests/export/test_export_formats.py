"""What an export wrote, read back by that format's own reader (YOLO: by its published rule), is what was in the shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from export.conftest import HEIGHT, WIDTH, Made, shard_row
from matplotlib.path import Path as Ring
from PIL import Image
from pycocotools.coco import COCO

from cadiff.errors import CADiffError, UsageError
from cadiff.export import export_product
from cadiff.params import ExportFormat
from cadiff.records import GENERATED_SCHEMA, to_table
from cadiff.storage import write_table

Found = list[tuple[set[str], np.ndarray, np.ndarray]]  # classes, pixels and mask of each image


def from_coco(out: Path) -> Found:
    data = COCO(str(out / "annotations.json"))
    found = []
    for number in sorted(data.imgs):
        image = data.imgs[number]
        own = data.loadAnns(data.getAnnIds(imgIds=[number]))
        mask = np.zeros((image["height"], image["width"]), bool)
        for one in own:
            region = data.annToMask(one) > 0
            rows, columns = np.nonzero(region)
            assert not (region & mask).any()  # no pixel is in two annotations
            assert one["area"] == region.sum()
            assert one["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            mask |= region
        pixels = np.asarray(Image.open(out / "images" / image["file_name"]))
        found.append(({data.cats[one["category_id"]]["name"] for one in own}, pixels, mask))
    return found


def from_yolo(out: Path) -> Found:
    """A line is a class and one polygon in shares of the picture; a pixel is inside where its centre is."""
    said = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert said["train"] == "images"
    found = []
    for image in sorted((out / said["train"]).iterdir()):
        pixels = np.asarray(Image.open(image))
        height, width = pixels.shape[:2]
        mask, kinds = np.zeros((height, width), bool), set()
        for line in (out / "labels" / f"{image.stem}.txt").read_text().splitlines():
            number, *shares = line.split()
            ring = np.array(shares, float).reshape(-1, 2)
            assert len(ring) >= 3
            assert ring.min() >= 0
            assert ring.max() <= 1
            centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1).reshape(-1, 2)
            closed = Ring(np.vstack([ring, ring[:1]]) * (width, height))
            region = closed.contains_points(centres).reshape(height, width)
            assert not (region & mask).any()
            mask |= region
            kinds.add(said["names"][int(number)])
        found.append((kinds, pixels, mask))
    return found


def from_voc(out: Path) -> Found:
    names = (out / "labels.txt").read_text(encoding="utf-8").splitlines()
    found = []
    for stem in (out / "ImageSets/Segmentation/train.txt").read_text().split():
        root = ElementTree.parse(out / "Annotations" / f"{stem}.xml").getroot()
        pixels = np.asarray(Image.open(out / str(root.findtext("folder")) / str(root.findtext("filename"))))
        classes, objects = (np.asarray(Image.open(out / f"Segmentation{what}" / f"{stem}.png")) for what in ("Class", "Object"))
        assert [root.findtext(f"size/{side}") for side in ("height", "width", "depth")] == [str(side) for side in pixels.shape]
        told = root.findall("object")
        assert set(np.unique(objects)) - {0} == set(range(1, len(told) + 1))
        for number, one in enumerate(told, start=1):
            rows, columns = np.nonzero(objects == number)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert [int(str(one.findtext(f"bndbox/{edge}"))) for edge in ("xmin", "ymin", "xmax", "ymax")] == edges
            assert {names[value] for value in classes[rows, columns]} == {one.findtext("name")}
        assert ((classes > 0) == (objects > 0)).all()
        found.append(({str(one.findtext("name")) for one in told}, pixels, objects > 0))
    return found


@pytest.mark.parametrize(("layout", "read"), [("coco", from_coco), ("yolo", from_yolo), ("voc", from_voc)])
def test_every_mask_and_name_comes_back(
    shards: tuple[Path, list[Made]], tmp_path: Path, layout: ExportFormat, read: Callable[[Path], Found]
) -> None:
    folder, made = shards
    assert export_product(folder, tmp_path / "nut", layout) == len(made)
    found = read(tmp_path / "nut")
    assert len(found) == len(made)
    for (kinds, pixels, mask), one in zip(found, made, strict=True):
        assert kinds == ({one.kind} if one.kind else set())
        assert (pixels == one.pixels).all()
        assert (mask == one.mask).all()


def test_yolo_names_each_region_once_with_its_area(shards: tuple[Path, list[Made]], tmp_path: Path) -> None:
    """A ring that enters its holes encloses what is in them with the other sign: the area is the mask's."""
    folder, made = shards
    export_product(folder, tmp_path / "nut", "yolo")
    for number, one in enumerate(made):
        area = 0.0
        for line in (tmp_path / f"nut/labels/{number:06}.txt").read_text().splitlines():
            x, y = (np.array(line.split()[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)).T
            area += abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2
        assert area == pytest.approx(one.mask.sum())


@pytest.mark.parametrize("layout", ["coco", "yolo", "voc"])
def test_what_is_exported_is_read_by_cadiffs_own_importers(
    shards: tuple[Path, list[Made]], tmp_path: Path, layout: ExportFormat
) -> None:
    from cadiff.labels.formats import FORMATS, recognised
    from cadiff.labels.model import union_mask
    from cadiff.labels.pictures import PictureFolder

    folder, made = shards
    export_product(folder, tmp_path / "nut", layout)
    pictures, labels = {"coco": ("images", "annotations.json"), "yolo": ("images", "labels"), "voc": ("JPEGImages", "Annotations")}[layout]
    known = recognised(tmp_path / "nut" / labels)
    assert known == layout
    found = list(FORMATS[known].read(tmp_path / "nut" / labels, PictureFolder(tmp_path / "nut" / pictures)))
    assert len(found) == len(made)
    for labelled, one in zip(sorted(found, key=lambda each: each.image), made, strict=True):
        assert {each.name for each in labelled.objects} == ({one.kind} if one.kind else set())
        assert (union_mask(labelled.objects, HEIGHT, WIDTH) == one.mask).all()


def one_shard(folder: Path, kind: str, mask: np.ndarray) -> Path:
    row = shard_row("nut/000", [kind], np.zeros((*mask.shape, 3), np.uint8), mask)
    write_table(folder / "nut" / "crack.parquet", to_table([row], GENERATED_SCHEMA))
    return folder / "nut"


@pytest.mark.parametrize("layout", ["coco", "yolo", "voc"])
def test_an_anomaly_without_a_mask_is_refused(tmp_path: Path, layout: ExportFormat) -> None:
    shards = one_shard(tmp_path, "crack", np.zeros((16, 16), bool))
    with pytest.raises(CADiffError, match=r"crack\.parquet: nut/000: expected a mask of crack, but it marks nothing"):
        export_product(shards, tmp_path / "out", layout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nut"]  # nothing half-written is left


def test_voc_refuses_what_it_cannot_number_or_spell_and_coco_takes_it(tmp_path: Path) -> None:
    """The errors' advice is followed, and it works."""
    y, x = np.mgrid[:64, :64]
    scattered = (x % 4 == 0) & (y % 4 == 0)  # 256 regions of one pixel
    for place, (kind, mask, said) in enumerate([("crack", scattered, "a mask of 256 regions"), ("bell\a", x < 9, "XML cannot hold")]):
        shards = one_shard(tmp_path / str(place), kind, mask)
        with pytest.raises(UsageError, match=f"{said}.*export as coco"):
            export_product(shards, tmp_path / "voc", "voc")
        export_product(shards, tmp_path / f"coco{place}", "coco")
        ((kinds, _, found),) = from_coco(tmp_path / f"coco{place}")
        assert kinds == {kind}
        assert (found == mask).all()


def test_coco_says_which_generated_image_each_is(shards: tuple[Path, list[Made]], tmp_path: Path) -> None:
    folder, made = shards
    export_product(folder, tmp_path / "nut", "coco")
    images = json.loads((tmp_path / "nut/annotations.json").read_text())["images"]
    assert [image["sample_id"] for image in images] == [one.sample_id for one in made]
