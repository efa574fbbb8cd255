from pathlib import Path

import numpy as np
import pytest
import torch
from parameters import bare

from cadiff.errors import CADiffError, UsageError
from cadiff.export import export_product
from cadiff.metrics.generated import IS
from cadiff.params import Params, load_params
from cadiff.records import GENERATED_SCHEMA, METRIC_SCHEMA, QUALITY_SCHEMA, SAMPLE_SCHEMA, SCORED_SCHEMA, SampleRow, from_table
from cadiff.reporting import write_report
from cadiff.stages import Run, kept, main, prune_work, read_times, resolve, run_stage
from cadiff.storage import read_image, read_json, read_table, sha256_file, sha256_folder, write_image, write_json, write_tensors


def run_all(product: str) -> None:
    params = load_params()
    for stage in ("samples", "synthesize", "detect", "ship"):
        run_stage(stage, params, product, "exemplars" if stage != "samples" else "")


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
    assert [row["stage"] for row in read_times()] == ["samples", "synthesize", "detect", "ship"]
    assert all(row["peak_mib"] > 10 for row in read_times())
    detected = read_times()[-2]
    assert 0 < detected["parts"]["realism"] < detected["seconds"]


def test_the_shipped_detector_is_told_where_the_report_looks(repository: Path) -> None:
    run_all("plate")
    shipped = Path("data/made/shipped/exemplars/plate")
    told = read_json("data/made/reported/shipped/exemplars/plate.json")
    assert told == read_json(shipped / "detector.json")
    assert told["image"]["normals"] == 1, "a fifth of six normals"
    assert {name: sha256_file(shipped / name) for name in told["sha256"]} == told["sha256"]


def test_how_long_a_picture_takes_is_reported_and_is_in_no_output(repository: Path) -> None:
    """Timed anew every output has the same bytes; a time of another detector is not shown."""
    run_all("plate")
    run = resolve("ship", load_params(), "plate", "exemplars")
    pace, first = read_json(run.pace_path), sha256_folder("data/made")
    assert pace["detector"] == read_json(run.shipped_path)["self"]
    assert (pace["pictures"], 0 < pace["seconds"] < 60) == (1, True)
    write_json(run.pace_path, {**pace, "seconds": 0.0421})
    params = load_params()
    params = params.model_copy(update={"products": {"plate": params.products["plate"]}})
    write_report(params, Path(), Path("reports"), partial=True)
    assert "Its run.py takes 42 ms a picture: one calibration normal, on one thread" in Path("reports/index.html").read_text()
    assert " MB, 42 ms a picture on one thread): A picture is called" in Path("reports/summary.md").read_text()
    write_json(run.pace_path, {**pace, "detector": "another"})
    write_report(params, Path(), Path("reports"), partial=True)
    assert "ms a picture" not in Path("reports/index.html").read_text() + Path("reports/summary.md").read_text()
    for row in run.samples:
        Path(row.image_path).unlink()
    run.pace_path.unlink()
    run_stage("ship", load_params(), "plate", "exemplars")
    assert not run.pace_path.exists(), "without the pictures there is nothing to time, and the detector is shipped all the same"
    assert sha256_folder("data/made") == first


def test_work_is_named_by_what_the_result_depends_on(repository: Path) -> None:
    run_all("plate")
    params = load_params()
    run = resolve("detect", params, "plate", "exemplars")
    same = run.work(*run.sources)
    assert [path.name for path in Path(".cadiff/work/detect").iterdir()] == [same.name]
    unrelated = params.model_copy(update={"train": params.train.model_copy(update={"steps": 99})})
    assert resolve("detect", unrelated, "plate", "exemplars").work(*run.sources) == same
    longer = params.model_copy(update={"detector": params.detector.model_copy(update={"epochs": 2})})
    later = resolve("detect", longer, "plate", "exemplars")
    other = later.work(*run.sources)
    assert other != same
    prune_work(later)
    assert [path.name for path in Path(".cadiff/work/detect").iterdir()] == [other.name], "only its own stays"


def test_a_stopped_run_tells_of_its_own_state_alone(repository: Path) -> None:
    """A product's name may begin another's: tray, tray-2."""
    tray, other = (Run("scenes", bare(products={product: {}}), product, "cadiff") for product in ("tray", "tray-2"))
    folder = Path(".cadiff/work/scenes") / f"{other.name}-{16 * 'a'}"
    folder.mkdir(parents=True)
    (folder / "part.parquet").touch()
    assert kept(other) == f"scenes tray-2 cadiff: stopped; kept in {folder}: 1 finished parts"
    write_tensors(folder / "finished-seed-0.safetensors", {"a": torch.zeros(1)}, {"seed": "0"})
    write_tensors(folder / "seed-1.safetensors", {"a": torch.zeros(1)}, {"step": "7"})
    assert kept(other).endswith(": finished-seed-0, seed-1 up to step 7, 1 finished parts"), "a peer's finished seed has no step"
    assert kept(tray) == "scenes tray cadiff: stopped; it begins anew, what other stages finished is kept"


def test_both_trains_on_the_shards_of_two_methods(repository: Path) -> None:
    run = Run("detect", load_params().for_product("plate"), "plate", "both")
    with pytest.raises(CADiffError, match=r"generated/cadiff/plate/\*.parquet: expected this file"):
        _ = run.sources


@pytest.mark.parametrize(
    ("stage", "product", "method", "message"),
    [
        ("paint", "plate", "", "paint: no such stage; one of settings, draw, samples"),
        ("samples", "", "", "samples: needs --product; products are plate, tray"),
        ("samples", "cup", "", "products.cup: not in the parameters"),
        ("detect", "plate", "perlin", "detect: needs --method, one of exemplars; found 'perlin'"),
        ("train", "plate", "exemplars", "train: needs --method, but the parameters have no generator; found 'exemplars'"),
        ("adapt", "plate", "cadiff", "adapt: is of the product, whatever the method; expected no --method, found cadiff"),
        ("report", "plate", "", "report: takes neither"),
    ],
)
def test_wrong_calls(repository: Path, stage: str, product: str, method: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(stage, load_params(), product, method)


def test_exit_codes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "--product", "cup"]) == 2
    assert main(["synthesize", "--product", "plate", "--method", "exemplars"]) == 1
    error = capsys.readouterr().err
    assert "data/made/samples/plate.parquet: expected this file" in error
    assert "Traceback" not in error


def test_an_input_that_is_not_there_is_named(repository: Path) -> None:
    run_stage("samples", load_params(), "plate", "")
    with pytest.raises(CADiffError, match=r"^data/made/adapted/plate: expected this file, but it is not there\."):
        Run("adapt", load_params().for_product("plate"), "plate").work(Path("data/made/adapted/plate"))


def test_what_was_made_elsewhere_and_a_peer_stand_beside_the_pipelines_own(repository: Path) -> None:
    run_all("plate")
    params = load_params()
    export_product(Path("data/made/generated/exemplars/plate"), Path("data/external/images/dfmgan/plate"))
    external = {"images": ["dfmgan"], "maps": ["destseg"]}
    values = params.model_dump() | {"external": external, "methods": ["exemplars", "patchcore"]}
    params = Params(**values)
    assert params.methods == ["exemplars", "patchcore", "dfmgan", "destseg"]
    run_stage("import", params, "plate", "dfmgan")
    shards = [Path("data/made/generated") / method / "plate" / "spot.parquet" for method in ("exemplars", "dfmgan")]
    own, imported = (read_table(path, GENERATED_SCHEMA)["image"].to_pylist() for path in shards)
    assert [image["bytes"] for image in own] == [image["bytes"] for image in imported]
    run_stage("peer", params, "plate", "patchcore")
    for row in from_table(read_table(resolve("peer", params, "plate", "patchcore").samples_path), SampleRow):
        if row.role in ("held_out", "test_good"):
            truth = read_image(row.mask_path, "L") if row.mask_path else np.zeros((64, 64), np.uint8)
            write_image(Path("data/external/maps/destseg") / f"{row.sample_id}.png", truth)
    run_stage("maps", params, "plate", "destseg")
    figures = {}
    for method in ("patchcore", "destseg"):
        folder = Path("data/made/evaluated") / method / "plate"
        scored = read_table(folder / "scored.parquet", SCORED_SCHEMA)
        assert set(scored["method"].to_pylist()) == {method}
        rows = read_table(folder / "metrics.parquet", METRIC_SCHEMA).to_pylist()
        figures[method] = {row["metric"]: row["value"] for row in rows}
    assert figures["destseg"]["pixel_ap"] == pytest.approx(1), "these maps are the masks"
    assert figures["patchcore"]["pixel_auroc"] > 0.7
    only = params.model_copy(update={"methods": ["exemplars", "patchcore", "destseg"]})
    write_report(only.model_copy(update={"products": {"plate": {}}}), Path(), Path("reports"), partial=True)
    assert {"patchcore", "destseg"} <= set(read_json("reports/metrics.json"))


def test_a_filter_leaves_out_what_the_quality_signals_say_and_every_row_says_so(repository: Path) -> None:
    run_all("plate")
    params = load_params()
    export_product(Path("data/made/generated/exemplars/plate"), Path("data/external/images/dfmgan/plate"))
    external = {"images": ["dfmgan"]}
    params = Params(**{**params.model_dump(), "external": external, "methods": ["exemplars", "dfmgan"]})
    for stage in ("import", "quality"):
        run_stage(stage, params, "plate", "dfmgan")
    signals = read_table(resolve("quality", params, "plate", "dfmgan").quality_path, QUALITY_SCHEMA).to_pandas()
    distances = signals[signals["source"] == "generated"]["normal_distance"]
    rules, protocol = {"min_normal_distance": float(distances.median())}, {**params.detector.model_dump(), "protocol": "filtered"}
    filtered = Params(**{**params.model_dump(), "filter": rules, "detector": protocol})
    for method in ("exemplars", "dfmgan"):
        run_stage("detect", filtered, "plate", method)
        rows = read_table(Path("data/made/evaluated") / method / "plate" / "metrics.parquet", METRIC_SCHEMA).to_pandas()
        assert set(rows["protocol"]) == {"filtered"}
        kept = rows[rows["metric"] == "images_kept/spot"]
        assert len(kept) == (method == "dfmgan"), "augmented exemplars are exempt"
    stay = int((distances >= distances.median()).sum())
    assert 0 < stay < len(distances)
    assert (kept["value"].item() * len(distances), kept["n"].item()) == (pytest.approx(stay), len(distances))
    assert rows[rows["metric"] == f"{IS}/spot"]["n"].item() == stay, "realism is of the images that were trained on"
    write_report(filtered.model_copy(update={"products": {"plate": {}}}), Path(), Path("reports"), partial=True)
    page = Path("reports/index.html").read_text()
    assert "What the filter left out of training" in page
    assert "generated images were left out by rules on their quality signals, none by hand (protocol: filtered)" in page


def test_names_of_external_methods_are_checked() -> None:
    with pytest.raises(ValueError, match="external: 'perlin' cannot name a method"):
        bare(products={"a": {}}, external={"images": ["perlin"]})
    with pytest.raises(ValueError, match="external: 'a-b' cannot name a method"):
        bare(products={"a": {}}, external={"maps": ["a-b"]})
    with pytest.raises(ValueError, match="methods: 'magic' is not known"):
        bare(products={"a": {}}, methods=["magic"])
