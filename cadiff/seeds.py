"""The only place that seeds anything: every random stream has a name, and its seed is a hash of that name."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(root: int, *names: object) -> int:
    """A 63-bit seed for the stream ``names`` under the root seed.

    The seed depends on nothing but its arguments, so that an image depends on neither batch size, nor order,
    nor the part it was in: ``derive_seed(root, "generate", sample_id)``.
    """
    text = "\x1f".join([str(int(root)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(root: int, *names: object) -> np.random.Generator:
    """A numpy generator for the stream ``names``."""
    return np.random.default_rng(derive_seed(root, *names))


def torch_generator(root: int, *names: object) -> torch.Generator:
    """A CPU torch generator for the stream ``names``; noise is drawn on the CPU whatever device computes.

    torch keeps the low 32 of the seed's 63 bits: of 100,000 streams about one pair draws the same noise.
    """
    return torch.Generator("cpu").manual_seed(derive_seed(root, *names))
