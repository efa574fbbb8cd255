"""benchmarks/networks.py: each network at each size, trained on exemplars once, for as many steps as it is given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from parameters import file_text, values_of

from cadiff.params import load_params
from cadiff.stages import run_stage
from cadiff.storage import read_json


@pytest.fixture
def networks(script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script where the smoke preset's nut has its exemplars."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CADIFF_QUIET", "1")
    Path("params.yaml").write_text(file_text(values_of("smoke")))
    for stage, product, method in (("settings", "", ""), ("draw", "nut", ""), ("samples", "nut", ""), ("synthesize", "nut", "exemplars")):
        run_stage(stage, load_params(), product, method)
    return script("networks")


def test_each_cell_has_its_steps_and_is_made_once(networks: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    steps = {"unet": {64: 3, 128: 2, 256: 1}, "efficientnet-lite0": {64: 2, 128: 2, 256: 1}}
    monkeypatch.setattr(networks, "STEPS", steps)
    monkeypatch.setattr(sys, "argv", ["networks.py", "nut", "--seeds", "0", "1", "--sizes", "64", "128", "--times", "2"])
    for _ in range(2):
        with pytest.raises(SystemExit, match="0"):
            networks.main()
        said = capsys.readouterr().out
        assert [line.split("|")[1:4] for line in said.splitlines() if line.startswith(("| unet", "| eff"))] == [
            [f" {network} ", f" {size} ", f" {2 * steps[network][size]} "] for network in steps for size in (64, 128)
        ]
        files = sorted(networks.KEPT.iterdir())
        assert len(files) == 8
        stamps = [file.stat().st_mtime_ns for file in files]
    assert stamps == [file.stat().st_mtime_ns for file in files], "what is there is not made again"
    found = read_json(files[0])
    assert set(found) == {"steps", "seconds", *networks.SHOWN}
    assert found["seconds"] > 0


def test_images_of_two_methods_make_another_cell(networks: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(networks, "STEPS", {"unet": {64: 2, 128: 1, 256: 1}, "efficientnet-lite0": {64: 1, 128: 1, 256: 1}})
    values = values_of("smoke")
    values["methods"]["synthesizers"] = ["exemplars", "cutpaste"]
    Path("params.yaml").write_text(file_text(values))
    for stage, product, method in (("settings", "", ""), ("synthesize", "nut", "cutpaste")):
        run_stage(stage, load_params(), product, method)
    seen = []
    own = networks.train_detector
    monkeypatch.setattr(networks, "train_detector", lambda task, sources, *rest: seen.append(sources) or own(task, sources, *rest))
    call = ["networks.py", "nut", "--seeds", "0", "--networks", "unet", "--sizes", "64", "--method", "cutpaste"]
    for beside in ([], ["--beside", "exemplars"]):
        monkeypatch.setattr(sys, "argv", [*call, *beside])
        with pytest.raises(SystemExit, match="0"):
            networks.main()
    assert [[folder.parent.name for folder in sources] for sources in seen] == [["cutpaste"], ["cutpaste", "exemplars"]]
    assert len([*networks.KEPT.iterdir()]) == 2


def test_the_table_says_mean_and_spread_over_seeds(networks: ModuleType) -> None:
    own = {"network": "unet", "size": 64, "steps": 3.0, **dict.fromkeys(networks.SHOWN, 0.5)}
    rows = [{**own, "seconds": 2 * seed, "pixel_ap": 0.6 + 0.1 * seed} for seed in range(3)]
    last = networks.shown(pd.DataFrame(rows)).splitlines()[-1]
    assert last == "| unet | 64 | 3 | 2 | 70.0 +- 10.0 | 50.0 +- 0.0 | 50.0 +- 0.0 | 50.0 +- 0.0 |"
