"""Another generator's folder of pictures of any size, brought to the canvas."""

from __future__ import annotations

import dataclasses
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
        import_folder(root, "cube", [held, dataclasses.replace(held, anomaly_type="scratch", role="exemplar")], 32, tmp_path / "shards")


def test_a_held_out_picture_in_another_format_is_refused_and_one_that_is_nearly_one_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, rng = tmp_path / "made" / "cube" / "hole", np.random.default_rng(0)
    base.mkdir(parents=True)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:30] = 255
    for name in ("a", "b", "c", "d", "e"):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse) + rng.normal(0, 3, (64, 64, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(base / f"{name}.png")
        Image.fromarray(mask).save(base / f"{name}_mask.png")
    kept = {name: tmp_path / name for name in ("same.bmp", "nearly.jpg")}
    Image.open(base / "b.png").save(kept["same.bmp"])
    Image.open(base / "d.png").save(kept["nearly.jpg"], quality=85)
    same, nearly = (SampleRow(path.name, "toy", "cube", "hole", "held_out", str(path), None, 64, 64, "h") for path in kept.values())
    import_folder(tmp_path / "made", "cube", [nearly], 64, tmp_path / "shards")
    assert f"{base / 'd.png'}: this is nearly {kept['nearly.jpg']}, which the detector is scored on" in capsys.readouterr().err
    (base / "d.png").unlink()
    (base / "d_mask.png").unlink()
    import_folder(tmp_path / "made", "cube", [nearly], 64, tmp_path / "shards")
    assert "nearly" not in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"b.png: this is .*same.bmp, which the detector is scored on"):
        import_folder(tmp_path / "made", "cube", [same], 64, tmp_path / "shards")
