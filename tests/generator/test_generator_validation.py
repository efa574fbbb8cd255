"""Pictures in the middle of a training: when they are drawn, that they are of one scene, and that the training does not notice."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from interrupting import interrupted
from parameters import bare

from cadiff.errors import UsageError
from cadiff.generator import adapt_base, gather_validation, train_generator
from cadiff.generator import validation as watching
from cadiff.generator.board import opened
from cadiff.generator.validation import EXEMPLAR, FOLDER, PICTURES, SHEET, moments
from cadiff.params import Params
from cadiff.records import VALIDATION_SCHEMA, SampleRow, ValidationRow, from_table
from cadiff.storage import decode_image, read_image, read_table, sha256_folder
from cadiff.task import Task


def with_changes(params: Params, **sections: dict[str, object]) -> Params:
    return params.model_copy(update={name: getattr(params, name).model_copy(update=own) for name, own in sections.items()})


Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(tiny_base: Path, nut_samples: list[SampleRow], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains into ``folder/out`` from ``folder/work``, three steps; they pay for pictures at the ``share`` of the time alone."""
    params = bare(
        products={"nut": {}}, dataset={"size": 64}, window={"cut": "whole"}, base={"path": str(tiny_base), "size": 64, "device": "cpu"},
        train={"steps": 3, "batch": 4}, prompt={"learning_rate": 1e-3}, control={"learning_rate": 1e-3},
        generate={"steps": 3, "background": "real", "blend": None},
    ).for_product("nut")  # fmt: skip
    adapted = tmp_path_factory.mktemp("adapted")
    adapt_base(Task(params, "nut", samples=nut_samples), adapted, adapted / "work")

    def run(folder: Path, share: float = 50.0, **sections: dict[str, object]) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watching, "SHARE", share)
            own = with_changes(params, **sections)
            train_generator(Task(own, "nut", "cadiff", nut_samples), adapted, folder / "out", folder / "work")
        return folder / "work" / FOLDER

    return run


@pytest.fixture(scope="module")
def drawn(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training with its pictures, on TensorBoard too where that is installed."""
    root = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("tensorboard"):
            patch.setenv("CADIFF_TENSORBOARD", str(root / "boards"))
        train(root)
    return root


def rows_of(folder: Path) -> list[ValidationRow]:
    return from_table(read_table(folder / PICTURES, VALIDATION_SCHEMA), ValidationRow)


@pytest.mark.parametrize(
    ("steps", "batch", "pictures", "expected"),
    [
        (180, 16, 4, [0, 60, 120, 180]),  # 4 % of 3 x 16 x 180 passes are 345; a sheet takes 4 x (2 x 8 + 3) = 76
        (180, 16, 2, [0, 26, 51, 77, 103, 129, 154, 180]),  # 2 x 19 = 38: nine, of which eight
        (5000, 16, 4, [0, 714, 1429, 2143, 2857, 3571, 4286, 5000]),  # eight at most
        (40, 16, 4, []),  # 76 for one, and one says nothing of when
    ],
)
def test_pictures_take_a_share_of_the_passes(
    small_params: Params, steps: int, batch: int, pictures: int, expected: list[int]
) -> None:
    params = with_changes(small_params, train={"batch": batch})
    assert moments(params, steps, pictures) == expected


def test_a_training_does_not_notice_them(train: Train, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "work" / FOLDER, tmp_path / "work" / FOLDER)
    assert not train(tmp_path, share=0.04).exists(), "an earlier training's pictures do not stand for it"
    assert sha256_folder(tmp_path / "out") == sha256_folder(drawn / "out")
    gather_validation(tmp_path / "work", tmp_path / "kept")
    assert rows_of(tmp_path / "kept") == []


def test_a_stopped_training_has_its_pictures_and_goes_on_to_the_same(train: Train, drawn: Path, tmp_path: Path) -> None:
    with interrupted(3):
        train(tmp_path)
    left = tmp_path / "work" / FOLDER
    assert {row.step for row in rows_of(left)} == {EXEMPLAR, 0, 1, 2}
    train(tmp_path)
    assert sha256_folder(tmp_path / "out") == sha256_folder(drawn / "out")
    assert sha256_folder(left) == sha256_folder(drawn / "work" / FOLDER), "to the byte, with the sheet"


def test_each_type_has_one_scene_under_one_noise(train: Train, drawn: Path, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    rows = rows_of(train(tmp_path, prompt={"learning_rate": 0.0}, control={"learning_rate": 0.0}))
    kinds = ["chip", "rust", "scratch"]
    assert sorted({(row.anomaly_type, row.step) for row in rows}) == [(kind, step) for kind in kinds for step in (EXEMPLAR, 0, 1, 2, 3)]
    for kind in kinds:
        exemplar, *later = (row for row in rows if row.anomaly_type == kind)
        assert len({row.image["bytes"] for row in later}) == 1, "what does not learn draws the same"
        real = next(row for row in nut_samples if (row.anomaly_type, row.role) == (kind, "exemplar"))
        mask = decode_image(exemplar.mask["bytes"], "L", kind) > 127
        assert np.array_equal(mask, read_image(str(real.mask_path), "L") > 127), "the first exemplar's, where it is"
        assert exemplar.seed == later[0].seed
    assert len({row.seed for row in rows}) == len(kinds)
    learned = rows_of(drawn / "work" / FOLDER)
    assert len({row.image["bytes"] for row in learned if row.anomaly_type == "rust" and row.step >= 0}) > 1


def test_what_was_drawn_goes_to_the_report(drawn: Path, tmp_path: Path) -> None:
    gather_validation(drawn / "work", tmp_path)
    assert rows_of(tmp_path) == rows_of(drawn / "work" / FOLDER)
    assert decode_image((tmp_path / SHEET).read_bytes(), "RGB", SHEET).std() > 10


def test_tensorboard_has_losses_rates_and_pictures_on_request(drawn: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(drawn / "boards" / "work")).Reload()
    curve = {(row["step"], row["name"]): row["value"] for row in read_table(drawn / "out" / "curve.parquet").to_pylist()}
    for name in ("denoising", "localizing", "contrastive"):
        told = {(event.step, name): event.value for event in found.Scalars(f"loss/{name}")}
        assert told == {key: pytest.approx(value) for key, value in curve.items() if key[1] == name}
    assert [event.step for event in found.Images("validation/rust")] == [0, 1, 2, 3]
    assert set(found.Tags()["scalars"]) >= {"rate/tokens", "rate/control"}


def test_tensorboard_that_is_not_installed_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CADIFF_TENSORBOARD", str(tmp_path / "boards"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r'CADIFF_TENSORBOARD: .* pip install -e "\.\[tensorboard\]", or unset CADIFF_TENSORBOARD'):
        opened("nut", 0)
    monkeypatch.delenv("CADIFF_TENSORBOARD")
    assert opened("nut", 0) is None
