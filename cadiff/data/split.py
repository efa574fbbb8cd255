"""The strict split: the one place that knows which anomalies are trained on and which are held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cadiff.data.listing import Entry
from cadiff.records import Role


def assign_roles(entries: Sequence[Entry]) -> list[tuple[Entry, Role]]:
    """Every entry, in key order, with its role.

    Per anomaly type, by sorted name, the first max(1, n // 3) of n images are exemplars and the rest is held
    out (so a type of one image has nothing held out); train normals are ``normal``, test ones ``test_good``.
    """
    by_type: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.anomaly_type is not None:
            by_type[entry.anomaly_type].append(entry)
    exemplars: set[str] = set()
    for members in by_type.values():
        first = sorted(members, key=lambda entry: entry.name)[: max(1, len(members) // 3)]
        exemplars.update(entry.key for entry in first)

    def role(entry: Entry) -> Role:
        if entry.anomaly_type is not None:
            return "exemplar" if entry.key in exemplars else "held_out"
        return "normal" if entry.split == "train" else "test_good"

    return [(entry, role(entry)) for entry in sorted(entries, key=lambda entry: entry.key)]
