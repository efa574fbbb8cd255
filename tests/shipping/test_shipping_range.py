"""A detector of 16-bit pictures: its 16-bit twin of an 8-bit product learns and says the same, here and in the shipped folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from shipping.test_shipping_parity import module_of, run
from shipping_plates import Product, of_role, train

from cadiff.detection import load_detector
from cadiff.detection.inspector import pixels_of
from cadiff.errors import CADiffError, UsageError
from cadiff.gathering import read_ahead
from cadiff.records import Levels, SampleRow
from cadiff.shipping import ship_detector
from cadiff.storage import read_image, read_json

LEVELS = Levels(1000.0, 1000.0 + 255 * 16)  # 16 values of a camera of 12 bits, above its black, are one of 8 bits


def deepened(path: str, folder: Path, seed: int) -> str:
    """The same picture as a camera of 12 bits in 16 gives it: with a grain that 8 bits do not show, in colour, as TIFF."""
    image = read_image(path).astype(np.uint16)
    grain = np.random.default_rng(seed).integers(-7, 8, image.shape)
    twin = folder / f"{Path(path).stem}.tif"
    tifffile.imwrite(twin, (image * 16 + 1000 + grain).astype(np.uint16), photometric="rgb", compression="zlib" if seed % 2 else None)
    return str(twin)


@pytest.fixture(scope="module")
def pair(plates: list[SampleRow], tmp_path_factory: pytest.TempPathFactory) -> tuple[Product, Product]:
    """A product of 8 bits, and its twin of 16."""
    folder = tmp_path_factory.mktemp("twins")
    twins = [
        replace(row, image_path=deepened(row.image_path, folder, number), low=LEVELS.low, high=LEVELS.high)
        for number, row in enumerate(plates)
    ]
    flat, deep = (
        train(rows, tmp_path_factory.mktemp(name), per_type=2, samples_per_epoch=16, seeds=[0])
        for name, rows in (("flat", plates), ("deep", twins))
    )
    return flat, deep


@pytest.fixture(scope="module")
def taken(pair: tuple[Product, Product], tmp_path_factory: pytest.TempPathFactory) -> Path:
    deep, folder = pair[1], tmp_path_factory.mktemp("taken") / "plate"
    ship_detector("plate", deep.samples, 0, deep.detector, deep.evaluated, folder)
    return folder


def test_the_twin_learns_the_same(pair: tuple[Product, Product]) -> None:
    """Every reader of pictures on the way (augmentation, training, calibration, scoring) read by the range."""
    flat, deep = pair
    for name in ("seed-0.safetensors", "classifier-0.safetensors"):
        assert (flat.detector / name).read_bytes() == (deep.detector / name).read_bytes(), name
    said, other = (read_json(product.detector / "seed-0.json") for product in pair)
    assert said.pop("range") is None
    assert other.pop("range") == list(LEVELS)
    assert said == other


def test_predict_and_the_shipped_folder_read_by_the_range_too(pair: tuple[Product, Product], taken: Path) -> None:
    flat, deep = (load_detector(product.detector, 0, "cpu") for product in pair)
    rows = [*of_role(pair[1].samples, "held_out"), *of_role(pair[1].samples, "test_good")]
    code, found, _ = run(taken, *(row.image_path for row in rows))
    assert code == 0
    script, said = module_of(taken), read_json(taken / "detector.json")
    read = list(read_ahead((row.image_path for row in rows), deep.trained.levels))
    twin_of = {row.sample_id: row for row in pair[0].samples}
    for row, one, ahead in zip(rows, found, read, strict=True):
        original = twin_of[row.sample_id].image_path
        assert np.array_equal(script.read(Path(row.image_path), said), read_image(original)), row.sample_id
        assert np.array_equal(ahead.pixels, read_image(original))
        here, there = deep.predict(row.image_path), flat.predict(original)
        assert here.score == there.score
        assert one["score"] == pytest.approx(here.score, abs=1e-5)
        assert one["verdict"] == ("defect" if here.defective else "good")
        assert one["anomaly_type"] == here.anomaly_type
        stored = tifffile.imread(row.image_path)
        assert deep.predict(stored).score == here.score, "as an array of the camera's values"


@pytest.mark.parametrize(
    "save",
    [
        lambda path, values: Image.fromarray(values[..., 0].astype(np.uint16)).save(path.with_suffix(".png")),
        lambda path, values: Image.fromarray(values[..., 0].astype(np.float32)).save(path.with_suffix(".tif")),
        lambda path, values: tifffile.imwrite(path.with_suffix(".tif"), values.astype(">u2"), photometric="rgb", byteorder=">"),
        lambda path, values: tifffile.imwrite(path.with_suffix(".tif"), values[..., 0].astype(np.int32) - 3000),
        lambda path, values: tifffile.imwrite(path.with_suffix(".tif"), values.astype(np.uint16), photometric="rgb", tile=(32, 32)),
    ],
    ids=["grey-png", "real", "big-end", "signed", "tiles"],
)
def test_the_shipped_script_reads_every_kind_of_depth_as_the_package(save, taken: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 6000, (50, 60, 3))
    save(tmp_path / "picture", values)
    (path,) = tmp_path.iterdir()
    script, said = module_of(taken), read_json(taken / "detector.json")
    expected = pixels_of(path, LEVELS)
    assert np.ptp(expected) > 100
    assert np.array_equal(script.read(path, said), expected)


def test_another_depth_is_refused_here_and_there(pair: tuple[Product, Product], shipped: Path, taken: Path, tmp_path: Path) -> None:
    flat_row, deep_row = (of_role(product.samples, "test_good")[0].image_path for product in pair)
    clear = np.dstack([np.full((40, 40, 3), 2000), np.full((40, 40), 9)]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "clear.tif", clear, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "none.tif", np.full((40, 40), np.nan, np.float32))
    tifffile.imwrite(tmp_path / "white.tif", np.full((40, 40), 9, np.uint16), photometric="miniswhite")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).convert("CMYK").save(tmp_path / "inks.jpg")
    for folder, paths, levels in (
        (taken, [flat_row, *map(str, sorted(tmp_path.iterdir()))], LEVELS), (shipped, [deep_row, str(tmp_path / "inks.jpg")], None)
    ):  # fmt: skip
        code, rows, _ = run(folder, *paths)
        assert code == 3
        assert {row["verdict"] for row in rows} == {"unreadable"}
        assert ("more than 8 bits" in rows[0]["error"]) == (levels is not None)
        for path in paths:
            with pytest.raises(CADiffError, match=r"dataset\.range|transparent|NaN|0 is white|CMYK"):
                pixels_of(path, levels)


def test_an_array_must_be_what_the_camera_gives(pair: tuple[Product, Product]) -> None:
    inspector = load_detector(pair[1].detector, 0, "cpu")
    with pytest.raises(CADiffError, match=r"^the array: expected more than 8 bits a channel"):
        inspector.predict(np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(UsageError, match=r"^the array: expected pixels of shape .* numbers as the camera gives them, found float32"):
        inspector.predict(np.full((40, 40), np.inf, np.float32))
    assert inspector.predict(Image.fromarray(np.full((40, 40), 2000, np.uint16))).score >= 0
