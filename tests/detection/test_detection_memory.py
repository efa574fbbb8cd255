"""What reads a shard in parts holds a part of it: told in a process of its own, by the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cadiff.records import GENERATED_SCHEMA, to_table
from cadiff.storage import table_writer

SCRIPT = """
import re, sys
from pathlib import Path
from cadiff.records import GENERATED_SCHEMA
from cadiff.storage import Spill, read_batches
def peak():  # of this process: getrusage begins with its parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
spill = Spill()
kept = [spill.put(row["image"]["bytes"]) for part in read_batches(sys.argv[1], GENERATED_SCHEMA, 16) for row in part.to_pylist()]
assert len(kept[-1]()) == len(kept[0]()), "what was put aside is there"
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_shard_that_is_read_in_parts_is_not_in_memory_whole(make_row, tmp_path: Path) -> None:
    rng, length = np.random.default_rng(0), 400_000  # bytes that no dictionary shortens, in place of a picture's
    shard = tmp_path / "blot.parquet"
    with table_writer(shard, GENERATED_SCHEMA) as append:
        for start in range(0, 480, 16):
            append(to_table([make_row(f"{start + k}", ["blot"], rng.bytes(length), b"") for k in range(16)], GENERATED_SCHEMA))
    size = 480 * length // 2**20
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(shard)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < size // 2, f"{done.stdout.strip()} MiB for a shard of {size} MiB of pictures"
