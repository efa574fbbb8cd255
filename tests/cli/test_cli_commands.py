import json
from pathlib import Path

import numpy as np
import pytest

import cadiff.cli
from cadiff.cli import main
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, to_table
from cadiff.storage import encode_png, read_image, write_json, write_table

ROOT = Path(__file__).resolve().parents[2]


def run(*call: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(call))
    return ended.value.code


def shard_row(name: str, value: int, types: list[str]) -> GeneratedRow:
    image = {"bytes": encode_png(np.full((16, 16, 3), value, np.uint8)), "path": f"{name}.png"}
    mask = {"bytes": encode_png(np.eye(16, dtype=np.uint8) * 255), "path": f"{name}_mask.png"}
    return GeneratedRow(
        name, "nut", types, image, mask, "exemplar", None, 1.0, 0, 3, 1.0, None, None, [None] * len(types), None, None, "0", "0"
    )


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "presets" / "demo.yaml").read_bytes())
    return tmp_path


def test_export_writes_mvtec_layout_with_the_shards_own_pixels(demo: Path) -> None:
    shards = Path("data/made/generated/cadiff/nut")
    rows = [shard_row("a", 10, ["crack"]), shard_row("b", 20, ["crack"])]
    write_table(shards / "crack.parquet", to_table(rows, GENERATED_SCHEMA))
    write_table(shards / "good.parquet", to_table([shard_row("c", 30, [])], GENERATED_SCHEMA))
    assert run("export", "out", "--product", "nut") == 0
    files = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.png"))
    assert files == [
        "nut/ground_truth/crack/0000_mask.png", "nut/ground_truth/crack/0001_mask.png",
        "nut/test/crack/0000.png", "nut/test/crack/0001.png", "nut/test/good/0000.png",
    ]  # fmt: skip
    assert (read_image("out/nut/test/crack/0001.png") == 20).all()
    assert (read_image("out/nut/ground_truth/crack/0000_mask.png", "L") == np.eye(16) * 255).all()


def test_export_mixes_with_nothing(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(Path("data/made/generated/cadiff/nut/crack.parquet"), to_table([shard_row("a", 10, ["crack"])], GENERATED_SCHEMA))
    assert run("export", "out", "--product", "nut") == 0
    assert run("export", "out", "--product", "nut") == 2
    assert "out/nut: expected a new or empty folder" in capsys.readouterr().err
    assert run("export", "data/made/demo/more", "--product", "nut") == 2
    assert "lies in the data set" in capsys.readouterr().err
    assert not Path("data/made/demo").exists()


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (["export", "out", "--product", "nut"], 1, "generated/cadiff/nut/*.parquet: expected this file"),
        (["export", "out", "--product", "cup"], 2, "products.cup: not in the parameters"),
        (["stage", "paint"], 2, "paint: no such stage"),
        (["export"], 2, "Missing argument"),
        (["polish"], 2, "No such command 'polish'"),
        (["times", "--loud"], 2, "No such option: --loud"),
        (["stage", "samples", "--params", "none.yaml"], 2, "none.yaml: no such file"),
        (["verify"], 2, "expected a DVC project"),
    ],
)
def test_errors_are_one_line_with_the_right_code(
    demo: Path, capsys: pytest.CaptureFixture[str], call: list[str], code: int, message: str
) -> None:
    assert run(*call) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_debug_shows_the_traceback(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stage", "paint", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_interruption_says_what_is_kept(
    demo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cadiff.cli, "load_params", interrupt)
    assert run("doctor") == 130
    assert "finished artefacts and parts (.cadiff/work) are kept" in capsys.readouterr().err


def test_inspect_exits_1_where_there_are_problems(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cadiff.storage import write_image

    for index in range(4):
        write_image(f"raw/nut/train/good/{index}.png", np.full((64, 64, 3), index, np.uint8))
        write_image(f"raw/nut/test/crack/{index}.png", np.full((64, 64, 3), 50 + index, np.uint8))
        write_image(f"raw/nut/ground_truth/crack/{index}_mask.png", np.eye(64, dtype=np.uint8) * 255)
    assert run("inspect", "raw") == 0
    assert "nut" in capsys.readouterr().out
    Path("raw/nut/ground_truth/crack/2_mask.png").unlink()
    assert run("inspect", "raw", "--layout", "mvtec") == 1
    assert "raw/nut/test/crack/2.png" in capsys.readouterr().out


def test_doctor_names_devices_and_weights(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    found = capsys.readouterr().out
    for name in ("device used", "weights base", "weights alexnet", "metrics.lpips", "torch", "dvc"):
        assert name in found


def test_times_is_a_table_in_pipeline_order(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage in ("detect", "adapt"):
        row = {"stage": stage, "product": "nut", "method": "cadiff", "seconds": 2.5, "peak_mib": 90,
               "device_peak_mib": None}  # fmt: skip
        write_json(f".cadiff/times/{stage}-nut-cadiff.json", json.loads(json.dumps(row)))
    assert run("times") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["stage", "adapt", "detect"]
    assert "2.5" in lines[1]


def test_the_demo_is_not_drawn_over_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MVTec AD has a capsule too, with the same file names."""
    mine = tmp_path / "capsule" / "train" / "good" / "000.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    assert run("draw", str(tmp_path), "--product", "capsule", "--params", str(ROOT / "presets" / "smoke.yaml")) == 2
    assert "nothing is drawn over images" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"


def test_doctor_tells_the_rest_where_the_device_is_not_there(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text(f"{Path('params.yaml').read_text()}base: {{device: abacus}}\n")
    assert run("doctor") == 0
    said = capsys.readouterr().out
    assert "expected auto or a device that is here" in said
    assert "device cpu" in said
