"""What is wrong with a parameter file, said in one line with the key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from parameters import file_text, over, values_of

from cadiff.errors import UsageError
from cadiff.params import load_params
from cadiff.stages import resolve, run_stage

ROOT = Path(__file__).resolve().parents[2]
OWN = (ROOT / "presets" / "own-data.yaml").read_text(encoding="utf-8")


def edited(**sections: object) -> str:
    return yaml.safe_dump({**yaml.safe_load(OWN), **sections}, allow_unicode=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace("  tile: {}", "  Gehäuse: {}").encode("latin-1"), "save the file as UTF-8"),
        (OWN.replace("  tile: {}", "  tile: {}\n  tile: {train: {steps: 5}}"), "'tile' is there twice"),
        (OWN + "\n5: x\n", "5: unknown key"),
        (edited(products={4711: {}}), "put it in quotes"),
        (OWN.replace("  tile: {}", "  on: {}"), "found True, which YAML reads as bool; put it in quotes"),
        (edited(products={"tile": {"masks": {"folder": "mine"}}}), "products.tile.masks.folder: gone: masks that someone"),
        (edited(products={"tile": None}), "write `tile: {}`"),
        (edited(products={"my tile": {}}), "'my tile' cannot name a product"),
        (edited(products={"../tile": {}}), "cannot name a product"),
        (edited(dataset={"name": "own", "layout": "mvtec", "root": "~/images"}), "dataset.root: ~ is not your home here"),
        (edited(detector={"seeds": [0, 0]}), "detector.seeds: expected each seed once"),
        (edited(draw={"products": ["capsule"]}), "draw.products: expected [] with dataset.layout: mvtec"),
    ],
)
def test_each_fault_is_one_line_with_its_remedy(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as error:
        load_params(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


def test_a_folder_is_no_parameter_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not open"):
        load_params(tmp_path)


def test_the_demo_is_drawn_over_nobodys_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As dvc.yaml's out is fixed, this is the message and not the guard."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/capsule").mkdir(parents=True)
    (tmp_path / "mine/capsule/a.png").write_bytes(b"mine")
    Path("params.yaml").write_text(file_text(over(values_of("demo"), {"dataset": {"root": "mine"}})))
    with pytest.raises(UsageError, match=r"drawn into data/made/demo, found mine"):
        run_stage("draw", load_params(), "capsule")
    assert resolve("draw", load_params(), "capsule").raw == Path("mine/capsule")
    assert (tmp_path / "mine/capsule/a.png").read_bytes() == b"mine"
