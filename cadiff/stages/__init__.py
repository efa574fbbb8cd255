"""The imperative shell: parameters and paths in, artefacts out. ``python -m cadiff.stages STAGE`` runs one."""

from cadiff.stages.code import CODE, content_digest
from cadiff.stages.command import main, resolve, run_stage
from cadiff.stages.left import TIMES, kept, prune_work, read_times
from cadiff.stages.run import MADE, Run
from cadiff.stages.work import STAGES, detect

__all__ = [
    "CODE", "MADE", "STAGES", "TIMES", "Run", "content_digest", "detect", "kept", "main", "prune_work", "read_times", "resolve",
    "run_stage",
]  # fmt: skip
