"""Which device computes, and in which precision."""

from __future__ import annotations

import torch

from cadiff.errors import UsageError


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
