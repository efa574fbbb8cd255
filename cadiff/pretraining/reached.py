"""What a checkpoint of the pretraining may be taken for."""

from __future__ import annotations

from pathlib import Path

from cadiff.errors import UsageError


def check_reached(path: Path, reached: int, steps: int, option: str) -> None:
    """A checkpoint's step must not lie beyond the steps that ``option`` asks for; to be at the last one is to be done.

    Raises:
        UsageError: if it does: its weights are not those that the call asks for.
    """
    if reached > steps:
        raise UsageError(f"{path}: is at step {reached}, beyond {option} {steps}. Ask for {reached} or more, or name another --work.")
