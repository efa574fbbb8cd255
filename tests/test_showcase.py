"""The pictures that the report's figures need, from a small random base with real components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cadiff.generator import adapt_base, train_generator
from cadiff.intensity import touched_cells
from cadiff.params import Params
from cadiff.records import (
    ATTENTION_SCHEMA,
    SHOWCASE_SCHEMA,
    VECTOR_SCHEMA,
    AttentionRow,
    SampleRow,
    ShowcaseRow,
    VectorRow,
    from_table,
)
from cadiff.showcase import ATTENDED, LADDER, make_showcase
from cadiff.storage import decode_image, read_table, sha256_folder
from cadiff.task import Task

TYPES = ["chip", "rust", "scratch"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("showcase")


@pytest.fixture
def shown(folders: Path, small_params: Params, nut_samples: list[SampleRow]) -> Path:
    """One showcase for all tests of this file."""
    if not (folders / "shown").exists():
        adapt_base(Task(small_params, "nut", samples=nut_samples), folders / "adapted", folders / "work-a")
        train_generator(Task(small_params, "nut", "cadiff", nut_samples), folders / "adapted", folders / "generator", folders / "work-t")
        make_showcase(Task(small_params, "nut", "cadiff", nut_samples), folders / "adapted", folders / "generator", folders / "shown")
    return folders / "shown"


def pictures(shown: Path, figure: str) -> dict[tuple[str, str], ShowcaseRow]:
    rows = from_table(read_table(shown / "pictures.parquet", SHOWCASE_SCHEMA), ShowcaseRow)
    return {(row.group, row.label): row for row in rows if row.figure == figure}


def pixels(row: ShowcaseRow) -> np.ndarray:
    return decode_image(row.image["bytes"], "RGB").astype(float) / 255


def mask_of(row: ShowcaseRow) -> np.ndarray:
    return decode_image(row.mask["bytes"], "L") > 127


def test_ladder_varies_w_and_nothing_else(shown: Path) -> None:
    rows = pictures(shown, "ladder")
    assert set(rows) == {(kind, f"w = {w:g}") for kind in TYPES for w in LADDER}
    for kind in TYPES:
        steps = [rows[kind, f"w = {w:g}"] for w in LADDER]
        assert [row.intensities for row in steps] == [[w] for w in LADDER]
        assert len({(row.mask["bytes"], row.seed, row.prompt) for row in steps}) == 1
        silent = rows[kind, "w = 0"]
        assert (silent.change_inside, silent.change_outside) == (0, 0)
        for row in steps:
            difference = np.abs(pixels(row) - pixels(silent)).mean(-1)
            assert row.change_inside == pytest.approx(difference[mask_of(row)].mean(), abs=1e-6)
    assert len({row.image["bytes"] for row in rows.values()}) > len(TYPES), "w has to act on something"


def test_compositions_have_a_place_for_each_type(shown: Path) -> None:
    rows = pictures(shown, "composition")
    pairs = ["chip and rust", "chip and scratch", "rust and scratch"]
    assert [group for group, _ in rows] == [*pairs, *(f"{kind} twice" for kind in TYPES)]
    both = rows["chip and rust", "chip and rust"]
    assert both.anomaly_types == ["chip", "rust"]
    assert len(set(both.intensities)) == 2


def test_edits_keep_the_real_mask(shown: Path, nut_samples: list[SampleRow]) -> None:
    rows = pictures(shown, "edit")
    exemplar = next(row for row in nut_samples if row.role == "exemplar" and row.anomaly_type == "rust")
    assert {label for group, label in rows if group == "rust"} == {"w = 0", "w = 2"}
    edited = rows["rust", "w = 0"]
    np.testing.assert_array_equal(mask_of(edited), decode_image(Path(exemplar.mask_path or "").read_bytes(), "L") > 127)


def test_recorded_attention_is_eq_11_on_the_plain_map(shown: Path) -> None:
    """Without delay re-weighting acts in the first step, where the latents are still those of w = 1: so the map is
    twice the plain one in the mask's cells, and the same elsewhere, but for what later layers see of earlier ones."""
    rows = from_table(read_table(shown / "attention.parquet", ATTENTION_SCHEMA), AttentionRow)
    assert {row.group for row in rows} == set(TYPES[:ATTENDED])
    first = {(row.group, row.label): row for row in rows if row.step == 0}
    for kind in TYPES[:ATTENDED]:
        plain, doubled = first[kind, "w = 1"], first[kind, "without delayed focus"]
        assert (plain.acting, doubled.acting) == (False, True)
        mask = torch.from_numpy(mask_of(pictures(shown, "attention")[kind, "w = 1"]))[None, None]
        factor = 1.0 + touched_cells(mask, plain.side)[0, 0].numpy()
        assert 1 < factor.mean() < 2
        np.testing.assert_allclose(doubled.attention, factor * plain.attention, rtol=1e-2)
        delayed = first[kind, "both"]
        assert not delayed.acting
        assert delayed.attention == plain.attention


def test_vectors_stand_for_every_concept_in_its_context(shown: Path) -> None:
    rows = from_table(read_table(shown / "vectors.parquet", VECTOR_SCHEMA), VectorRow)
    assert {row.concept for row in rows} == {"context", *TYPES}
    rust = [row for row in rows if row.concept == "rust"]
    assert len({row.prompt for row in rust}) == len(rust) == 5 * 3  # five templates: alone, and beside two others
    # CLIP's text encoder looks back only: what stands behind a token does not change its vector.
    assert len({tuple(row.vector) for row in rust}) == 10, "five templates, at the start or behind chip"


@pytest.mark.slow
def test_same_inputs_give_the_same_bytes(
    shown: Path, folders: Path, small_params: Params, nut_samples: list[SampleRow], tmp_path: Path
) -> None:
    make_showcase(Task(small_params, "nut", "cadiff", nut_samples), folders / "adapted", folders / "generator", tmp_path / "again")
    assert sha256_folder(tmp_path / "again") == sha256_folder(shown)
