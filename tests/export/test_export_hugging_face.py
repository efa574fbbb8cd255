"""Shards and exported folders as Hugging Face ``datasets`` opens them."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from export.conftest import Made

from cadiff.export import export_product
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, from_table
from cadiff.storage import read_table, write_table


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_a_shard_opens_with_images_as_images(shards: tuple[Path, list[Made]], tmp_path: Path) -> None:
    folder, made = shards
    loaded = datasets.load_dataset("parquet", data_files=str(folder / "crack.parquet"), split="train", cache_dir=str(tmp_path))
    assert loaded.features["image"] == datasets.Image()
    assert loaded.features["mask"] == datasets.Image()
    assert loaded.features["anomaly_types"] == datasets.List(datasets.Value("string"))
    for row, one in zip(loaded, [one for one in made if one.kind == "crack"], strict=True):
        assert (np.asarray(row["image"]) == one.pixels).all()
        assert ((np.asarray(row["mask"]) > 0) == one.mask).all()


def test_the_features_of_a_shard_are_those_that_datasets_gives_its_columns(shards: tuple[Path, list[Made]]) -> None:
    """Each column by `datasets`' own reading of Arrow's types, but for the two that it could not know."""
    plain = datasets.Features.from_arrow_schema(GENERATED_SCHEMA.remove_metadata())
    told = datasets.Features.from_arrow_schema(GENERATED_SCHEMA)
    assert told == datasets.Features({**plain, "image": datasets.Image(), "mask": datasets.Image()})


def test_the_metadata_changes_no_row(shards: tuple[Path, list[Made]], tmp_path: Path) -> None:
    """A shard of an older version reads, and differs in the metadata alone."""
    table = read_table(shards[0] / "crack.parquet", GENERATED_SCHEMA)
    write_table(tmp_path / "old.parquet", table.replace_schema_metadata(None))
    old = read_table(tmp_path / "old.parquet", GENERATED_SCHEMA)
    assert old.equals(table)
    assert from_table(old, GeneratedRow) == from_table(table, GeneratedRow)
    new, before = (pq.ParquetFile(path) for path in (shards[0] / "crack.parquet", tmp_path / "old.parquet"))
    assert set(new.metadata.metadata) - set(before.metadata.metadata) == {b"huggingface"}


def test_an_exported_folder_loads_with_its_card(shards: tuple[Path, list[Made]], tmp_path: Path) -> None:
    folder, made = shards
    out = tmp_path / "nut"
    assert export_product(folder, out, "huggingface") == len(made)
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == GENERATED_SCHEMA.names
    for row, one in zip(loaded, made, strict=True):
        assert row["sample_id"] == one.sample_id
        assert row["anomaly_types"] == (one.kind.split("+") if one.kind else [])
        assert (np.asarray(row["image"]) == one.pixels).all()


def test_the_card_says_what_is_there(shards: tuple[Path, list[Made]], tmp_path: Path) -> None:
    export_product(shards[0], tmp_path / "nut", "huggingface")
    _, head, text = (tmp_path / "nut/README.md").read_text(encoding="utf-8").split("---\n", 2)
    said = yaml.safe_load(head)
    assert said["configs"] == [{"config_name": "default", "data_files": "data/*.parquet"}]
    assert "| crack | 2 |" in text
    assert "| ひび割れ | 2 |" in text
    assert "| good | 2 |" in text
    assert "<tiefe>" not in text  # a name is text, whatever Markdown makes of its signs
    assert all(f"| {name} | " in text for name in GENERATED_SCHEMA.names)


def test_an_older_shard_is_exported_with_images_as_images(shards: tuple[Path, list[Made]], tmp_path: Path) -> None:
    for path in shards[0].glob("*.parquet"):
        write_table(tmp_path / "nut" / path.name, read_table(path).replace_schema_metadata(None))
    export_product(tmp_path / "nut", tmp_path / "out", "huggingface")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["image"] == datasets.Image()
