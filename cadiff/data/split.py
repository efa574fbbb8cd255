"""The strict split: the one place that knows which images are trained on, which set a threshold, and which are held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from cadiff.data.listing import Entry
from cadiff.records import Role

LEAST = 3  # train normals: of fewer none is kept for calibration


def assign_roles(
    entries: Sequence[Entry], calibration: float = 0.0, wholes: Mapping[Path, str] | None = None
) -> list[tuple[Entry, Role]]:
    """Every entry, in key order, with its role.

    Per anomaly type, by sorted name, the first max(1, n // 3) of n images are exemplars and the rest is held
    out (so a type of one image has nothing held out); test normals are ``test_good``. Train normals are ``normal``, but for the share
    ``calibration`` of them (``kept_apart``). Those that ``wholes`` says to be pieces of one count as one image.
    """
    groups: dict[tuple[str, str | None], dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in sorted(entries, key=lambda entry: entry.name):
        groups[entry.split, entry.anomaly_type][(wholes or {}).get(entry.image, entry.key)].append(entry)
    exemplars, apart = set[str](), set[str]()
    for (split, kind), members in groups.items():
        pictures = list(members.values())
        if kind is not None:
            exemplars.update(entry.key for pieces in pictures[: max(1, len(pictures) // 3)] for entry in pieces)
        elif split == "train":
            apart.update(entry.key for index in kept_apart(len(pictures), calibration) for entry in pictures[index])

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
