"""The pipeline as a Prefect flow run, against Prefect's own test API (started once: it costs seconds)."""

import json
import logging
import time
import uuid
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, LogFilter
from prefect.testing.utilities import prefect_test_harness

from cadiff.errors import CADiffError
from flows.artifacts import StageTable
from flows.pipeline import pipeline


@flow
def shown_late() -> None:
    """A table of stages that cannot be written as JSON until its third update."""
    table = StageTable([b"a"])  # type: ignore[list-item]
    table.publish()
    table.rows[b"a"]["stage"] = "a"  # type: ignore[index]
    table.publish()
    table.show(b"a", "done", 1.0)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_one_flow_run_shows_every_stage_and_fails_with_the_failed(project: Path) -> None:
    (project / "work-b.sh").write_text("echo 'error: no cloth left' >&2; exit 3\n")
    (project / "work-a.sh").write_text("echo 'train a 3/4 (1.00/s, 1 s left) loss 0.5'\n")
    (project / "reports").mkdir()
    (project / "reports" / "summary.md").write_text("# Key figures\n")
    (project / "reports" / "metrics.json").write_text('{"cadiff": {"pixel_ap": 0.614}}')
    (project / "reports" / "index.html").write_text("<p>report</p>")
    with prefect_test_harness(server_startup_timeout=180):
        state = pipeline(jobs=2, root=project, return_state=True)
        with get_client(sync_client=True) as client:
            tasks = {run.name: run.state_name for run in client.read_task_runs() if run.task_key.startswith("stage_task")}
            nested = {run.name: run.state_name for run in client.read_flow_runs() if run.parent_task_run_id}
            tags = {run.name: run.tags for run in client.read_task_runs()}
            artifacts = {artifact.key: artifact.data for artifact in client.read_artifacts()}
            logs = [entry.message for entry in client.read_logs()]
        (project / "work-b.sh").write_text("true\n")
        shard = project / "data/made/generated/cadiff/a/hole.parquet"
        shard.parent.mkdir(parents=True)
        shard.write_text("no Parquet")
        mended = pipeline(jobs=2, root=project, return_state=True)
        with get_client(sync_client=True) as client:
            shown = {artifact.key: artifact.data for artifact in client.read_artifacts()}
            warned = LogFilter(level={"ge_": logging.WARNING}, flow_run_id={"any_": [mended.state_details.flow_run_id]})
            deadline = time.monotonic() + 30
            while not (warnings := [entry.message for entry in client.read_logs(warned)]):  # logs are sent in the background
                assert time.monotonic() < deadline, "no warning came"
                time.sleep(0.2)
        late = shown_late(return_state=True)
        with get_client(sync_client=True) as client:
            own = ArtifactFilter(flow_run_id={"any_": [late.state_details.flow_run_id]})
            published = sorted((artifact.key, artifact.data) for artifact in client.read_artifacts(artifact_filter=own))
    assert [key for key, _ in published] == ["progress", "stages"], "a table that comes late costs one bar, not one each time"
    assert published[0][1] == 100
    assert json.loads(published[1][1]) == [{"stage": "a", "state": "done", "seconds": "1.0", "message": ""}]
    assert mended.is_completed(), "what cannot be shown failed the run"
    assert "61.4" in shown["headline"]
    assert shown["report"] == "# Key figures\n"
    assert (project / "reports" / "index.html").as_uri() in shown["page"]
    (warning,) = warnings
    assert warning.startswith("generated pictures: cannot be shown (CADiffError:")
    assert state.is_failed()
    with pytest.raises(CADiffError, match="make@b"):
        state.result()
    assert tasks == {
        "make@a": "Completed", "make@b": "Failed", "make@b-2": "Completed",
        "detect@a": "Completed", "detect@b-2": "Completed",
    }  # fmt: skip
    assert nested == tasks, "a nested flow run for each stage"
    assert tags["detect@a"] == ["accelerator"]
    assert tags["make@a"] == []
    assert artifacts["progress-make-a"] == 75
    assert not {"headline", "page", "report"} & set(artifacts), "the report of an earlier run was shown"
    assert artifacts["progress"] == 100
    rows = {row["stage"]: row for row in json.loads(artifacts["stages"])}
    assert {name: row["state"] for name, row in rows.items()} == {
        "make@a": "done", "make@b": "failed", "make@b-2": "done", "detect@a": "done", "detect@b": "not run",
        "detect@b-2": "done", "report": "not run",
    }  # fmt: skip
    assert "no cloth left" in rows["make@b"]["message"]
    assert float(rows["make@a"]["seconds"]) > 0
    assert isinstance(uuid.UUID(str(state.state_details.flow_run_id)), uuid.UUID)
    assert any("no cloth left" in line for line in logs), "the stages' output is not in the run's log"
