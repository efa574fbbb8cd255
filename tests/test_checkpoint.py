"""The steps of a training: a stop is noticed in no byte, and a step that was not finished is taken again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parameters import save_each_step

from cadiff.checkpoint import Steps
from cadiff.storage import read_metadata


def learn(path: Path, stop: int | None = None, **own: object) -> list[int]:
    """Five steps of a layer, stopped in the middle of one of them; the steps that were taken whole."""
    torch.manual_seed(0)
    layer, taken = torch.nn.Linear(3, 1), []
    left = Steps("learn", 5, path, {"layer": layer}, torch.optim.Adam(layer.parameters(), lr=0.1), **own)  # type: ignore[arg-type]
    for step in left:
        left.optimiser.zero_grad()
        layer(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        if step == stop:
            raise KeyboardInterrupt
        left.optimiser.step()
        taken.append(step)
    return taken


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    save_each_step(monkeypatch)


@pytest.mark.usefixtures("each_step")
def test_a_stopped_training_takes_the_unfinished_step_again_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    assert learn(tmp_path / "calm") == [0, 1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "stopped", stop=3)
    assert read_metadata(tmp_path / "stopped")["step"] == "3"
    assert learn(tmp_path / "stopped") == [3, 4]
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "calm").read_bytes()
    assert learn(tmp_path / "stopped") == [], "what is done is not done again"


def test_a_short_training_is_kept_at_its_end_alone_and_not_even_there_where_its_result_is_written_next(tmp_path: Path) -> None:
    kept: list[int] = []
    learn(tmp_path / "kept", beside=kept.append)
    assert kept == [5]
    learn(tmp_path / "not", keeps_last=False)
    assert not (tmp_path / "not").exists()


@pytest.mark.usefixtures("each_step")
def test_what_goes_beside_a_checkpoint_is_there_before_it(tmp_path: Path) -> None:
    """Else a run that was stopped between the two would go on from a checkpoint without it."""
    path = tmp_path / "steps"

    def beside(step: int) -> None:
        assert (read_metadata(path)["step"] if path.exists() else "0") == str(step - 1)

    learn(path, beside=beside, keeps_last=False)
    assert read_metadata(path)["step"] == "4"


def test_figures_are_shown_until_there_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CADIFF_QUIET", raising=False)
    layer = torch.nn.Linear(1, 1)
    left = Steps("learn", 3, tmp_path / "steps", {"layer": layer}, torch.optim.SGD(layer.parameters()))
    for step in left:
        if step == 1:
            left.figures = {"loss": 0.25}
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("learn 0/3")
    assert lines[-1].startswith("learn 3/3")
    assert lines[-1].endswith("loss 0.25")
