"""The pipeline as a Prefect flow run, against Prefect's own test API (started once: it costs seconds)."""

import uuid
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from cadiff.errors import CADiffError
from flows.pipeline import pipeline


@pytest.mark.filterwarnings("ignore")
def test_one_flow_run_shows_every_stage_and_fails_with_the_failed(project: Path) -> None:
    (project / "work-b.sh").write_text("echo 'error: no cloth left' >&2; exit 3\n")
    (project / "reports").mkdir()
    (project / "reports" / "summary.md").write_text("# Key figures\n")
    with prefect_test_harness():
        state = pipeline(jobs=2, root=project, return_state=True)
        with get_client(sync_client=True) as client:
            tasks = {run.name: run.state_name for run in client.read_task_runs()}
            artifacts = {artifact.key: artifact.data for artifact in client.read_artifacts()}
            logs = [entry.message for entry in client.read_logs()]
    assert state.is_failed()
    with pytest.raises(CADiffError, match="make@b"):
        state.result()
    assert tasks == {
        "make@a": "Completed", "make@b": "Failed", "make@b-2": "Completed",
        "detect@a": "Completed", "detect@b-2": "Completed",
    }  # fmt: skip
    assert artifacts["report"] == "# Key figures\n"
    assert artifacts["progress"] == 100
    assert "no cloth left" in artifacts["stages"]
    assert isinstance(uuid.UUID(str(state.state_details.flow_run_id)), uuid.UUID)
    assert any("no cloth left" in line for line in logs), "the stages' output is not in the run's log"
