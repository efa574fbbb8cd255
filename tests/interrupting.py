"""A generator's training that is stopped in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from parameters import save_each_step

from cadiff.generator.joint import learn


@contextmanager
def interrupted(step: int) -> Iterator[None]:
    """A training within this saves after every step, and has to be interrupted as it takes this one."""
    taken = count(1)

    def stopping(*arguments: object) -> object:
        if next(taken) == step:
            raise KeyboardInterrupt
        return learn(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cadiff.generator.train.learn", stopping)
        save_each_step(patch)
        with pytest.raises(KeyboardInterrupt):
            yield
