"""The parts of this package that each stage's result depends on. dvc.yaml lists the same (a test compares them, and with what is
imported); what a stage reads of the parameters is in ``cadiff.params.READS``."""

from __future__ import annotations

from pathlib import Path

from cadiff.storage import digest, missing, sha256_file

PACKAGE = Path(__file__).resolve().parents[1]
CODE: dict[str, tuple[str, ...]] = {
    "settings": ("params",),
    "draw": ("data/demo.py", "data/drawing"),
    "samples": ("data", "pictures.py", "decoding.py", "marking.py", "opening.py", "visible.py", "names.py"),
    "adapt": (
        "generator/adapt.py", "generator/steps.py", "generator/windows.py", "prompt", "backbone", "data", "scene.py", "pictures.py",
        "task.py",
    ),
    "scenes": ("masks", "scene.py", "pictures.py", "task.py"),
    "train": ("generator", "intensity.py", "prompt", "control", "masks", "backbone", "data", "scene.py", "pictures.py", "task.py"),
    "generate": ("generator", "masks", "prompt", "control", "intensity.py", "backbone", "data", "scene.py", "pictures.py", "task.py"),
    "showcase": (
        "showcase.py", "generator", "masks", "prompt", "control", "intensity.py", "backbone", "data", "scene.py", "pictures.py",
        "task.py",
    ),
    "synthesize": ("synthesis", "data", "masks", "pictures.py", "task.py"),
    "import": ("synthesis", "data", "masks", "pictures.py", "task.py"),
    "detect": ("detection", "metrics", "data", "pictures.py", "task.py", "thresholds.py"),
    "peer": ("detection", "metrics", "data", "pictures.py", "task.py", "thresholds.py"),
    "maps": ("detection", "metrics", "data", "pictures.py", "task.py", "thresholds.py"),
    "quality": ("metrics", "pictures.py", "task.py"),
    "ship": (
        "shipping", "detection", "synthesis", "metrics", "data", "masks", "pictures.py", "task.py", "thresholds.py",
        "threshold_words.py",
    ),
    "report": ("reporting", "params/methods.py", "pictures.py", "thresholds.py", "threshold_words.py"),
}  # fmt: skip


def content_digest(path: Path) -> str:
    """A digest of a file, or of a folder's files and their names (Python's byte code left out)."""
    if not path.exists():
        raise missing(path)
    if not path.is_dir():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return digest([(file.relative_to(path).as_posix(), sha256_file(file)) for file in files])
