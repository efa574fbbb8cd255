"""Time and peak memory of exact pixel metrics: ``python benchmarks/pixels.py IMAGES SIDE`` (random scores)."""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from cadiff.metrics.pixels import PixelRanking


def main(images: int, side: int) -> None:
    rng, started = np.random.default_rng(0), time.monotonic()
    with PixelRanking() as ranking:
        for index in range(images):
            mask = np.zeros((1, side, side), bool)
            mask[0, side // 8 : side // 4, side // 8 : side // 4] = index % 2
            scores = rng.random((1, side, side), dtype=np.float32) + 0.3 * mask
            ranking.add(mask, scores, [("hole", "crack")[index // 2 % 2] if index % 2 else None])
        found = ranking.overall()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{images} images of {side} px: {time.monotonic() - started:.0f} s, peak {peak:.0f} MiB; {found}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
