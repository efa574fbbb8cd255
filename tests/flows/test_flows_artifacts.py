"""What a run shows: which pictures are on the contact sheet."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
from PIL import Image

from cadiff.records import GENERATED_SCHEMA, GeneratedRow, to_table
from cadiff.storage import encode_png, write_json, write_table
from flows.artifacts import GAP, MOST_SIDE, PER_TYPE, PICTURES, contact_sheet, headline, spread, with_addresses

SIDE = 8


def write_shard(path: Path, count: int, first: int = 0, shape: tuple[int, int] = (SIDE, SIDE)) -> None:
    """Images of one grey each: the k-th is ``first + k``."""
    rows = []
    for k in range(count):
        image = {"bytes": encode_png(np.full((*shape, 3), first + k, np.uint8)), "path": f"{k}.png"}
        given = dict.fromkeys(GENERATED_SCHEMA.names)
        rows.append(GeneratedRow(**{**given, "sample_id": str(k), "anomaly_types": ["hole"], "image": image, "mask": image}))
    write_table(path, to_table(rows, GENERATED_SCHEMA))


def test_the_contact_sheet_is_of_the_whole_shard(project: Path) -> None:
    generated = project / "data/made/generated/cadiff"
    write_shard(generated / "a" / "hole.parquet", 4 * PER_TYPE)
    write_shard(generated / "a" / "good.parquet", PER_TYPE, first=200)
    write_shard(generated / "b" / "tear.parquet", 2, first=100)
    sheet = contact_sheet(project)
    assert sheet is not None
    pixels = np.asarray(Image.open(io.BytesIO(sheet)))[:, :, 0]
    middles = pixels[GAP + SIDE // 2 :: SIDE + GAP, GAP + SIDE // 2 :: SIDE + GAP]
    assert middles.tolist() == [[0, 4, 8, 12, 16, 20], [100, 101, 255, 255, 255, 255]]


def test_wide_pictures_lie_beside_each_other_and_large_ones_are_shrunk(project: Path) -> None:
    write_shard(project / "data/made/generated/cadiff/a/hole.parquet", PER_TYPE, first=10, shape=(100, 4 * MOST_SIDE))
    sheet = contact_sheet(project)
    assert sheet is not None
    pixels = np.asarray(Image.open(io.BytesIO(sheet)))[:, :, 0]
    assert pixels.shape == (MOST_SIDE + 2 * GAP, PER_TYPE * (MOST_SIDE + GAP) + GAP)
    assert [int(value) for value in pixels[GAP + 5, GAP + 5 :: MOST_SIDE + GAP]] == [10, 11, 12, 13, 14, 15]


def test_a_link_of_the_summary_leads_to_the_shipped_folder_from_anywhere(project: Path) -> None:
    folder = project / "data/made/shipped/both/a b"
    folder.mkdir(parents=True)
    text = with_addresses("- [a b, both](../data/made/shipped/both/a b) (3.1 MB): above 0.5 (../as it is).\n", project / "reports")
    assert text == f"- [a b, both]({folder.as_uri()}) (3.1 MB): above 0.5 (../as it is).\n"
    address = text.partition("](")[2].partition(")")[0]
    assert Path(unquote(urlparse(address).path)) == folder


def test_the_headline_has_what_comes_of_the_threshold(project: Path) -> None:
    write_json(project / "metrics.json", {"both": {"pixel_ap": 0.5, "miss_rate": 0.125, "false_alarm_rate": 0.0, "is": 2.0}})
    assert headline(project / "metrics.json") == [{"method": "both", "pixel_ap": "50.0", "false_alarm_rate": "0.0", "miss_rate": "12.5"}]


def test_the_line_of_a_trainings_pictures_says_where_they_are() -> None:
    found = PICTURES.match("train nut: pictures at step 36: .cadiff/work/train/nut-cadiff-0123/validation/sheet.png")
    assert found is not None
    assert found["sheet"] == ".cadiff/work/train/nut-cadiff-0123/validation/sheet.png"
    assert not PICTURES.match("train nut 36/180 (2.00/s, 1 min 12 s left) denoising 0.1")


def test_nothing_generated_is_no_sheet(project: Path) -> None:
    assert contact_sheet(project) is None


def test_spread_takes_all_or_evenly_spaced() -> None:
    assert spread(range(3), 6) == [0, 1, 2]
    assert spread(range(73), 24)[:3] + spread(range(73), 24)[-1:] == [0, 3, 6, 69]
