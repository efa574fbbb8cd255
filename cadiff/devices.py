"""Which device computes, in which precision, and what is said where its memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cadiff.errors import CADiffError, UsageError

# What to set where it does not fit.
LEANER_TRAINING = "train.accumulate higher, train.checkpointing: true, or train.optimizer: adamw-8bit"
LEANER_DRAWING = "generate.batch lower"


def pick_device(name: str) -> torch.device:
    """``auto`` is the first accelerator, else the CPU; any other name is torch's own.

    Raises:
        UsageError: if the device is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"base.device: expected auto or a device that is here, found {name!r} ({str(error).splitlines()[0]})."
        ) from None


def pick_dtype(name: str, device: torch.device, scaled: bool = False) -> torch.dtype:
    """``auto`` is bfloat16 where the device has it in hardware (a CPU with AVX512-BF16 or AMX, a recent GPU), else float16 on an NVIDIA
    GPU, else float32.

    float16 is for what has its loss ``scaled`` (torch.amp.GradScaler), as small gradients vanish in it; all else has float32 then.
    """
    if name != "auto":
        half = torch.float16 if scaled else torch.float32
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": half}[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    if not native and scaled and device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Computes in ``dtype``; weights stay in float32, so that what is trained is trained in float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@contextmanager
def within_memory(remedy: str) -> Iterator[None]:
    """Around what fills a device: says what to set where that is too much.

    Raises:
        CADiffError: with the word ``OutOfMemoryError``, by which a run knows that a second try may pass (``flows.stage.PASSING``): torch's
            error does not say whether another process holds the memory, and a try costs no more than loading.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        told = str(error).splitlines()[0].split(" If reserved but unallocated")[0].strip()
        raise CADiffError(
            f"base.device: its memory is full (OutOfMemoryError: {told}) Set {remedy} (cadiff doctor counts what is needed), or, where "
            "another process holds the memory, run again when it has ended: what is done is kept."
        ) from error
