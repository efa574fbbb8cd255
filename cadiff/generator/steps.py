"""What a training step is made of: passes over parts of its batch, a loss that float16 can hold, an optimizer."""

from __future__ import annotations

from typing import Any, Literal

import torch

from cadiff.errors import UsageError


def new_optimizer(name: Literal["adamw", "adamw-8bit"], groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW, or with its two averages in 8 bits.

    Raises:
        UsageError: as `adamw_8bit`.
    """
    optimizer: torch.optim.Optimizer = (torch.optim.AdamW if name == "adamw" else adamw_8bit())(groups)
    return optimizer


def adamw_8bit() -> Any:
    """bitsandbytes' class (Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022).

    Raises:
        UsageError: if bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UsageError(
            f"train.optimizer: adamw-8bit needs bitsandbytes, which does not import ({str(error).splitlines()[0]}). "
            'pip install -e ".[adam8bit]", or set train.optimizer: adamw'
        ) from None
    return AdamW8bit


def in_passes(count: int, passes: int) -> list[slice]:
    """The pictures of a batch in as many equal parts; its number is a multiple of theirs."""
    return [slice(k * count // passes, (k + 1) * count // passes) for k in range(passes)]


def update(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip: float | None = 1.0) -> None:
    """One step from gradients of a scaled loss, their common norm at most ``clip``. A step whose gradients left float16's range is not
    taken, and the next loss is scaled by half."""
    if clip is not None:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    scaler.step(optimizer)
    scaler.update()


def new_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Scales a loss that is computed in float16, in which small gradients vanish; any other it leaves as it is."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
