"""Every artefact against DVC's manifest, dvc.lock."""

from __future__ import annotations

from pathlib import Path

from cadiff.errors import UsageError
from cadiff.storage import missing

ADVICE = {
    "deleted": "is missing",
    "modified": "has other content than dvc.lock says",
    "new": "was never recorded in dvc.lock: its stage did not finish",
}


def find_problems(root: Path) -> tuple[int, list[str]]:
    """How many artefacts the pipeline has, and one line for each that does not verify, with its path.

    Contents are hashed anew, not looked up in DVC's state database, so that silent corruption is found too.

    Raises:
        UsageError: if ``root`` holds no DVC project.
        CADiffError: if nothing was ever made there.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc_data.hashfile.state import StateNoop

    try:
        repo = Repo(str(root))
    except NotDvcRepoError:
        raise UsageError(f"{root.resolve()}: expected a DVC project (dvc.yaml, .dvc), found none") from None
    if not (root / "dvc.lock").is_file():
        raise missing(root / "dvc.lock")
    with repo:
        repo.cache.local.state = StateNoop()
        outs = list(repo.index.outs)
        found = [item for out in outs for item in out.workspace_status().items()]
    return len(outs), sorted(f"{path}: {ADVICE.get(status, status)}" for path, status in found)
