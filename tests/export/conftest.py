"""Shards with every kind of mask and name that an export may meet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cadiff.records import GENERATED_SCHEMA, REDRAWN, GeneratedRow, to_table
from cadiff.storage import encode_png, sha256_bytes, write_table

HEIGHT, WIDTH = 24, 40
NAMES = ("crack", "kratzer & <tiefe> 'ü'", "ひび割れ", "شرخ", "no: 08 #1", "null")


def masks() -> dict[str, np.ndarray]:
    """Masks by what is special in them."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ring = ((x - 15) ** 2 + (y - 11) ** 2 < 90) & ~((x - 13) ** 2 + (y - 10) ** 2 < 9) & ~((x - 19) ** 2 + (y - 12) ** 2 < 5)
    island = ring | ((x - 13) ** 2 + (y - 10) ** 2 < 2)
    corners = (x + y) % 2 == 0
    speckled = np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.55
    return {
        "pixel": (x == 7) & (y == 3), "last pixel": (x == WIDTH - 1) & (y == HEIGHT - 1), "all": np.ones((HEIGHT, WIDTH), bool),
        "holes": ring, "an island in a hole": island, "two parts": (x < 3) | (x > 30), "a diagonal": x == y + 2,
        "corners that touch": corners & (x > 20), "frame": (x < 2) | (y < 2) | (x >= WIDTH - 2) | (y >= HEIGHT - 2), "speckled": speckled,
    }  # fmt: skip


@dataclass(frozen=True)
class Made:
    """One image as it went into a shard: ``mask`` is all False for normals."""

    sample_id: str
    kind: str | None
    pixels: np.ndarray
    mask: np.ndarray


def shard_row(name: str, types: list[str], pixels: np.ndarray, mask: np.ndarray, source: str = "exemplar") -> GeneratedRow:
    image = encode_png(pixels)
    return GeneratedRow(
        sample_id=name, product="nut", anomaly_types=types, image={"bytes": image, "path": "a.png"},
        mask={"bytes": encode_png(mask.astype(np.uint8) * 255), "path": "a_mask.png"}, mask_source=source, prompt=None, intensity=1.0,
        seed=0, steps=3, guidance_scale=1.0, focus_step=None, normal_id=None, exemplar_ids=[None] * len(types), base_digest=None,
        generator_digest=None, params_digest="0", image_sha256=sha256_bytes(image), attempts=1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Made]]:
    """A folder of shards, and its images in the order of an export: every mask, every name, two types in one image, and normals, of which
    one has a mask that says where it was drawn anew."""
    folder = tmp_path_factory.mktemp("shards") / "nut"
    rng = np.random.default_rng(0)
    kinds = [*([name] for name in NAMES), ["crack", "ひび割れ"]]
    wanted = [(kinds[place % len(kinds)], name, mask) for place, (name, mask) in enumerate(masks().items())]
    wanted += [([], "untouched", np.zeros((HEIGHT, WIDTH), bool)), ([], "redrawn", masks()["holes"])]
    made: dict[str, list[tuple[GeneratedRow, Made]]] = {}
    for types, name, mask in wanted:
        kind, pixels = "+".join(types) or None, rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        row = shard_row(f"nut/{kind}/{name}", types, pixels, mask, "exemplar" if types else REDRAWN)
        made.setdefault(kind or "good", []).append((row, Made(row.sample_id, kind, pixels, mask if types else np.zeros_like(mask))))
    for stem, pairs in made.items():
        write_table(folder / f"{stem}.parquet", to_table([row for row, _ in pairs], GENERATED_SCHEMA))
    return folder, [one for stem in sorted(made, key="{}.parquet".format) for _, one in made[stem]]
