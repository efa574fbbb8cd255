"""The strict split: the one place that knows which images are trained on, which set a threshold, and which are held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cadiff.data.listing import Entry
from cadiff.records import Role

LEAST = 3  # train normals: of fewer none is kept for calibration


def assign_roles(entries: Sequence[Entry], calibration: float = 0.0) -> list[tuple[Entry, Role]]:
    """Every entry, in key order, with its role.

    Per anomaly type, by sorted name, the first max(1, n // 3) of n images are exemplars and the rest is held
    out (so a type of one image has nothing held out); test normals are ``test_good``. Train normals are ``normal``, but for the share
    ``calibration`` of them (``kept_apart``).
    """
    by_type: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.anomaly_type is not None:
            by_type[entry.anomaly_type].append(entry)
    exemplars: set[str] = set()
    for members in by_type.values():
        first = sorted(members, key=lambda entry: entry.name)[: max(1, len(members) // 3)]
        exemplars.update(entry.key for entry in first)
    normals = sorted(entry.key for entry in entries if entry.anomaly_type is None and entry.split == "train")
    apart = {normals[index] for index in kept_apart(len(normals), calibration)}

    def role(entry: Entry) -> Role:
        if entry.anomaly_type is not None:
            return "exemplar" if entry.key in exemplars else "held_out"
        if entry.split == "test":
            return "test_good"
        return "calibration" if entry.key in apart else "normal"

    return [(entry, role(entry)) for entry in sorted(entries, key=lambda entry: entry.key)]


def kept_apart(count: int, share: float) -> list[int]:
    """Which of ``count`` normals, by name, are for calibration: the nearest number to ``share`` of them, at least one where there are
    ``LEAST`` and the share is not 0, never all. They are spread evenly, since names often tell the time: light and wear that change
    over a series are in both parts alike."""
    if share == 0 or count < LEAST:
        return []
    chosen = min(count - 1, max(1, round(share * count)))
    return [(2 * index + 1) * count // (2 * chosen) for index in range(chosen)]
