"""Another generator's folder of pictures of any size, brought to the canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cadiff.errors import UsageError
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, SampleRow, from_table
from cadiff.storage import decode_image, read_table, write_image
from cadiff.synthesis import import_folder

SHAPES = {"a": (64, 96), "b": (150, 50), "c": (40, 40)}  # at a canvas of 32: 32 x 48, 96 x 32, 32 x 32


def _folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, (height, width) in SHAPES.items():
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[: height // 2, width // 2 :] = 255  # a quarter, at the top right
        write_image(root / f"cube/hole+scratch/{name}.png", image)
        write_image(root / f"cube/hole+scratch/{name}_mask.png", mask)
        write_image(root / f"cube/good/{name}.png", image[::-1])
    return root


def _rows(shard: Path) -> dict[str, GeneratedRow]:
    return {row.sample_id.rsplit("/", 1)[-1]: row for row in from_table(read_table(shard, GENERATED_SCHEMA), GeneratedRow)}


def test_pictures_of_three_shapes_keep_their_aspect(tmp_path: Path) -> None:
    import_folder(_folder(tmp_path / "made"), "cube", [], 32, tmp_path / "shards")
    rows = _rows(tmp_path / "shards" / "hole+scratch.parquet")
    shapes = {}
    for name, row in rows.items():
        image, mask = decode_image(row.image["bytes"], "RGB"), decode_image(row.mask["bytes"], "L")
        assert image.shape[:2] == mask.shape
        height, width = shapes[name] = mask.shape
        assert set(np.unique(mask)) == {0, 255}
        assert (mask[: height // 2, width // 2 :] == 255).all()
        assert (mask > 0).mean() == pytest.approx(0.25, abs=0.01)
        assert (row.anomaly_types, row.normal_id, row.exemplar_ids) == (["hole", "scratch"], None, [None, None])
        with Image.open(tmp_path / f"made/cube/hole+scratch/{name}.png") as file:
            expected = file.resize((width, height), Image.Resampling.LANCZOS)
        assert np.array_equal(image, np.asarray(expected))
    assert shapes == {"a": (32, 48), "b": (96, 32), "c": (32, 32)}
    good = _rows(tmp_path / "shards" / "good.parquet")
    assert all(row.exemplar_ids == [] and not decode_image(row.mask["bytes"], "L").any() for row in good.values())


def test_native_pictures_are_not_resampled(tmp_path: Path) -> None:
    import_folder(_folder(tmp_path / "made"), "cube", [], "native", tmp_path / "shards")
    rows = _rows(tmp_path / "shards" / "hole+scratch.parquet")
    for name, shape in SHAPES.items():
        image = decode_image(rows[name].image["bytes"], "RGB")
        assert image.shape[:2] == shape
        assert np.array_equal(image, np.asarray(Image.open(tmp_path / f"made/cube/hole+scratch/{name}.png")))


def test_a_held_out_picture_is_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "made")
    path = root / "cube/hole+scratch/b.png"
    held = SampleRow("h", "toy", "cube", "hole", "held_out", str(path), None, 50, 150, "h")
    with pytest.raises(UsageError, match=r"b.png: this is .*which the detector is scored on"):
        import_folder(root, "cube", [held], 32, tmp_path / "shards")
