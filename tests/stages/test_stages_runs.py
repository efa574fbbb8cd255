from pathlib import Path

import pytest

from cadiff.errors import CADiffError, UsageError
from cadiff.params import load_params
from cadiff.records import METRIC_SCHEMA, SAMPLE_SCHEMA
from cadiff.stages import Run, main, prune_work, read_times, resolve, run_stage
from cadiff.storage import read_table, sha256_folder


def run_all(product: str) -> None:
    params = load_params()
    for stage in ("samples", "masks", "synthesize", "detect"):
        run_stage(stage, params, product, "exemplars" if stage in ("synthesize", "detect") else "")


def test_stages_write_what_they_should_and_the_same_bytes_again(repository: Path) -> None:
    run_all("plate")
    samples = read_table("data/made/samples/plate.parquet", SAMPLE_SCHEMA)
    assert samples.num_rows == 15
    metrics = read_table("data/made/evaluated/exemplars/plate/metrics.parquet", METRIC_SCHEMA)
    assert set(metrics["method"].to_pylist()) == {"exemplars"}
    first = sha256_folder("data/made")
    run_all("plate")
    assert sha256_folder("data/made") == first
    for folder in (Path("data"), Path(".cadiff/work")):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    run_all("plate")
    assert sha256_folder("data/made") == first, "a run without kept state gives other bytes"
    assert [row["stage"] for row in read_times()] == ["samples", "masks", "synthesize", "detect"]
    assert all(row["peak_mib"] > 10 for row in read_times())


def test_work_is_named_by_what_the_result_depends_on(repository: Path) -> None:
    run_all("plate")
    params = load_params()
    run = resolve("detect", params, "plate", "exemplars")
    same = run.work(*run.sources)
    assert [path.name for path in Path(".cadiff/work/detect").iterdir()] == [same.name]
    unrelated = params.model_copy(update={"train": params.train.model_copy(update={"steps": 99})})
    assert resolve("detect", unrelated, "plate", "exemplars").work(*run.sources) == same
    longer = params.model_copy(update={"detector": params.detector.model_copy(update={"epochs": 2})})
    other = resolve("detect", longer, "plate", "exemplars").work(*run.sources)
    assert other != same
    prune_work(run)
    kept = [path.name for path in Path(".cadiff/work/detect").iterdir()]
    assert kept == [other.name], "only the newest stays"


def test_both_trains_on_the_shards_of_two_methods(repository: Path) -> None:
    run = Run("detect", load_params().for_product("plate"), "plate", "both")
    with pytest.raises(CADiffError, match=r"generated/cadiff/plate/\*.parquet: expected this file"):
        _ = run.sources


@pytest.mark.parametrize(
    ("stage", "product", "method", "message"),
    [
        ("paint", "plate", "", "paint: no such stage; one of draw, samples"),
        ("samples", "", "", "samples: needs --product; products are plate, tray"),
        ("samples", "cup", "", "products.cup: not in the parameters"),
        ("detect", "plate", "perlin", "detect: needs --method, one of exemplars; found 'perlin'"),
        ("train", "plate", "exemplars", "train: is of cadiff alone"),
        ("report", "plate", "", "report: takes neither"),
    ],
)
def test_wrong_calls(repository: Path, stage: str, product: str, method: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(stage, load_params(), product, method)


def test_exit_codes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", "--product", "cup"]) == 2
    assert main(["masks", "--product", "plate"]) == 1
    error = capsys.readouterr().err
    assert "data/made/samples/plate.parquet: expected this file" in error
    assert "Traceback" not in error
