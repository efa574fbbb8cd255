"""Which device computes."""

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
