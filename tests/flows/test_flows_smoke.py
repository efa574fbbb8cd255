"""presets/smoke.yaml from the first stage to the report: through DVC, and (slow) through a Prefect run's pipeline."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from PIL import Image

from cadiff.params import READS
from cadiff.records import GENERATED_SCHEMA
from cadiff.storage import sha256_file, sha256_folder

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., str]


def checkout(root: Path) -> Call:
    """A copy of what a stage needs, with the smoke preset; returns a call of a module in it."""
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("cadiff", "flows", "presets"):
        shutil.copytree(ROOT / folder, root / folder, ignore=skip)
    for name in ("dvc.yaml", ".dvcignore", "data/ablations/README.md", "data/masks/README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / "presets" / "smoke.yaml", root / "params.yaml")
    (root / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    (root / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    return caller(root)


def caller(root: Path) -> Call:
    """Calls of a module in a checkout, with caches of its own."""
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(root.parent / ".site"),
        "CADIFF_READS": str(root.parent / "reads"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "watching"), str(root)]),
        "CADIFF_QUIET": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    environment.pop("PREFECT_API_URL", None)

    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Call]:
    root = tmp_path_factory.mktemp("smoke") / "repository"
    call = checkout(root)
    call("dvc", "repro")
    return root, call


def test_one_command_makes_the_report_and_a_second_one_does_nothing(run: tuple[Path, Call]) -> None:
    root, call = run
    assert (root / "reports" / "index.html").stat().st_size > 20_000
    assert (root / "reports" / "metrics.parquet").is_file()
    assert "Data and pipelines are up to date." in call("dvc", "repro")
    assert "artefacts verify" in call("cadiff.cli", "verify")


def test_a_stage_reads_no_section_that_its_settings_lack(run: tuple[Path, Call]) -> None:
    """As it ran: a section that it reads, and whose change would not have it run again, leaves an old result."""
    found: dict[str, set[str]] = {}
    for path in (run[0].parent / "reads").glob("*.json"):
        found.setdefault(path.stem.split("-")[0], set()).update(json.loads(path.read_text()))
    assert found.keys() == READS.keys() - {"import", "maps", "peer"} | {"settings"}, "the smoke preset has none of these"
    assert {"generate", "masks", "dataset"} <= found["scenes"], "what is noted is what is read"
    for stage in found.keys() - {"settings", "samples"}:  # the latter looks ahead for what the others will be refused for
        declared = {key.split(".")[0] for key in READS[stage]}
        graph = {"products", "methods", "external", "ship", "cluster"}  # what the graph is made of, and where it is computed
        assert found[stage] <= declared | graph, stage


def test_a_deleted_shard_comes_back_with_the_same_bytes(run: tuple[Path, Call]) -> None:
    root, call = run
    shard = root / "data/made/generated/cadiff/nut/rust.parquet"
    first = sha256_file(shard)
    shard.unlink()
    call("dvc", "repro", "--force", "--single-item", "generate@nut-cadiff")  # made again, not taken from DVC's cache
    assert sha256_file(shard) == first


def test_changing_one_products_section_reruns_that_product_only(run: tuple[Path, Call]) -> None:
    root, call = run
    params = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(params.replace("  nut: {}", "  nut: {train: {steps: 4}}"))
    call("dvc", "repro", "settings")
    planned = [line for line in call("dvc", "repro", "--dry").splitlines() if line.startswith("Running stage")]
    (root / "params.yaml").write_text(params)
    call("dvc", "repro", "settings")
    assert any("train@nut-cadiff" in line for line in planned)
    assert not any("fabric" in line for line in planned), planned


def test_no_report_shows_old_figures_under_new_parameters(run: tuple[Path, Call]) -> None:
    root, call = run
    params, page = (root / "params.yaml").read_text(), (root / "reports/index.html").read_bytes()
    (root / "params.yaml").write_text(params.replace("  nut: {}", "  nut: {train: {steps: 4}}"))
    try:
        with pytest.raises(AssertionError, match="stages that it rests on are out of date"):
            call("flows.report")
    finally:
        (root / "params.yaml").write_text(params)
    assert (root / "reports/index.html").read_bytes() == page
    call("flows.report")


def test_shards_open_in_pandas_and_in_datasets_as_images(run: tuple[Path, Call]) -> None:
    import datasets

    shard = run[0] / "data/made/generated/cadiff/fabric/hole.parquet"
    frame = pandas.read_parquet(shard)
    assert list(frame.columns) == GENERATED_SCHEMA.names
    assert Image.open(io.BytesIO(frame["image"][0]["bytes"])).size == (64, 64)
    loaded = datasets.load_dataset("parquet", data_files=str(shard), split="train", cache_dir=str(run[0] / ".datasets"))
    assert loaded[0]["image"].size == (64, 64)
    assert set(loaded[0]["mask"].convert("L").tobytes()) <= {0, 255}


def test_pushed_here_and_pulled_there_nothing_is_left_to_do(run: tuple[Path, Call], tmp_path: Path) -> None:
    root, call = run
    shutil.copy(ROOT / ".gitignore", root / ".gitignore")
    # Rows of its schema are enough; the table is no output of DVC's, so git must carry it.
    shutil.copy(root / "data/made/evaluated/cadiff/nut/metrics.parquet", root / "data/ablations/ablations.parquet")
    call("dvc", "repro")
    call("dvc", "remote", "add", "--default", "--force", "store", str(tmp_path / "store"))
    call("dvc", "push")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All that git keeps"]):
        subprocess.run([*git, *words], cwd=root, check=True)
    there = tmp_path / "there"
    subprocess.run([*git, "clone", "--quiet", str(root), str(there)], check=True)
    assert sorted(path.name for path in (there / "data").iterdir()) == ["ablations", "masks"]
    assert not (there / "reports").exists()
    call_there = caller(there)
    call_there("dvc", "pull")
    said = call_there("dvc", "repro")
    assert "Data and pipelines are up to date." in said
    assert "Running stage" not in said
    assert sha256_folder(there / "data" / "made") == sha256_folder(root / "data" / "made")
    assert sha256_folder(there / "reports") == sha256_folder(root / "reports")


@pytest.mark.slow
def test_a_partial_report_says_what_is_absent(run: tuple[Path, Call], tmp_path: Path) -> None:
    root, call = run
    missing, page = root / "data/made/evaluated/exemplars/nut", root / "reports" / "index.html"
    before = page.read_bytes()
    missing.rename(tmp_path / "kept")
    said = call("flows.report", "--partial")
    (tmp_path / "kept").rename(missing)
    assert said.strip().endswith("reports/partial/index.html")
    assert "data/made/evaluated/exemplars/nut/metrics.parquet" in (root / "reports/partial/summary.md").read_text()
    assert (root / "reports/partial/index.html").stat().st_size > 20_000
    assert page.read_bytes() == before
    assert "Data and pipelines are up to date." in call("dvc", "repro")


@pytest.mark.slow
def test_the_pipeline_gives_the_same_bytes_as_dvc_repro(run: tuple[Path, Call], tmp_path: Path) -> None:
    root = tmp_path / "repository"
    call = checkout(root)
    call("flows.pipeline", "--jobs", "2")
    assert sha256_folder(root / "data" / "made") == sha256_folder(run[0] / "data" / "made")
