"""Small data sets on disk, one per layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cadiff.storage import write_image, write_text

SIDE = 24


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def square(side: int = SIDE, value: int = 255) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[4:10, 6:12] = value
    return mask


@pytest.fixture
def mvtec_root(tmp_path: Path) -> Path:
    """Product nut: 4 train normals, 2 test normals, 7 scratches, 1 dent."""
    base = tmp_path / "mvtec" / "nut"
    for index in range(4):
        write_image(base / "train" / "good" / f"{index:03}.png", picture(index))
    for index in range(2):
        write_image(base / "test" / "good" / f"{index:03}.png", picture(10 + index))
    for name, count in (("scratch", 7), ("dent", 1)):
        for index in range(count):
            write_image(base / "test" / name / f"{index:03}.png", picture(20 + index))
            write_image(base / "ground_truth" / name / f"{index:03}_mask.png", square())
    return base.parent


@pytest.fixture
def visa_root(tmp_path: Path) -> Path:
    """Product candle: 2 train normals, 1 test normal, 4 anomalies whose masks number their regions."""
    root = tmp_path / "visa"
    lines = ["object,split,label,image,mask", "other,train,normal,other/Data/Images/Normal/0000.JPG,"]
    for index in range(3):
        image = f"candle/Data/Images/Normal/{index:04}.png"
        write_image(root / image, picture(index))
        lines.append(f"candle,{'train' if index < 2 else 'test'},normal,{image},")
    for index in range(4):
        image, mask = (f"candle/Data/{kind}/Anomaly/{index:03}.png" for kind in ("Images", "Masks"))
        write_image(root / image, picture(10 + index))
        write_image(root / mask, square(value=index + 1))
        lines.append(f"candle,test,anomaly,{image},{mask}")
    write_text(root / "split_csv" / "1cls.csv", "\n".join(lines) + "\n")
    return root


@pytest.fixture
def loco_root(tmp_path: Path) -> Path:
    """Product box: 2 train and 1 validation normals, 1 test normal; 3 logical anomalies of two masks each (two
    squares that do not touch), 3 structural ones of one mask."""
    base = tmp_path / "loco" / "box"
    for index, folder in enumerate(("train/good/000", "train/good/001", "validation/good/000", "test/good/000")):
        write_image(base / f"{folder}.png", picture(index))
    for kind, count in (("logical_anomalies", 2), ("structural_anomalies", 1)):
        for index in range(3):
            write_image(base / "test" / kind / f"{index:03}.png", picture(10 + index))
            for part in range(count):
                mask = np.roll(square(value=255 - part), 10 * part, axis=0)
                write_image(base / "ground_truth" / kind / f"{index:03}" / f"{part:03}.png", mask)
    return base.parent


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    """Product gear: files of the same name in two folders, told apart by their paths."""
    base = tmp_path / "folder" / "gear"
    for index, day in enumerate(("monday", "tuesday")):
        write_image(base / day / "a.png", picture(index))
        write_image(base / day / "b.png", picture(10 + index))
        write_image(base / "masks" / f"{day}.png", square())
    rows = ["monday/a.png,,,train", "tuesday/a.png,,,train"]
    rows += [f"{day}/b.png,masks/{day}.png,crack,test" for day in ("tuesday", "monday")]
    write_text(base / "table.csv", "image,mask,anomaly_type,split\n" + "\n".join(rows) + "\n")
    return base.parent
