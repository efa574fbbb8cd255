"""The machine's limit, and what of it a piece of work needs: floating-point operations, counted and timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cadiff.devices import pick_dtype

from .rows import Rate, seconds_of

TRIES = 8


def matrix_peak(dtype: torch.dtype, side: int) -> Rate:
    """Operations a second of the fastest of ``TRIES`` products of two square matrices: what nothing else here can exceed."""
    one, other = (torch.randn(side, side).to(dtype) for _ in range(2))

    def measured() -> float:
        return 2 * side**3 / min(seconds_of(lambda: one @ other) for _ in range(TRIES))

    return measured


def operations(work: Callable[[], object]) -> int:
    """What ``work`` computes in matrix products, convolutions and attention, forwards and backwards, as torch counts it.

    torch has no formula for attention's kernel on a CPU; it gets that of any attention, two matrix products forwards and five backwards.
    """
    aten = torch.ops.aten
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return int(counter.get_total_flops())


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of shapes (b heads n d), (b heads m d) and (b heads m e)."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _attention_backward(_: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *__: Any, **___: Any) -> int:
    """The scores once more, and the gradients of the values, of the weights, of the queries and of the keys."""
    return 2 * math.prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


def dtypes(names: Sequence[str]) -> dict[str, torch.dtype]:
    """What each ``base.dtype`` computes in on this CPU, by name; what two of them have in common once."""
    kinds = [pick_dtype(name, torch.device("cpu"), scaled=True) for name in names]
    return {str(kind).removeprefix("torch."): kind for kind in kinds}
