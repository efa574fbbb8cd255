from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cadiff.data.listing import Entry
from cadiff.data.split import assign_roles

NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=4)
KEYS = st.tuples(st.sampled_from(["train/good", "test/good", "test/a", "test/b", "test/c"]), NAMES)


def entry(place: str, name: str) -> Entry:
    split, kind = place.split("/")
    path, anomalous = Path(name), kind != "good"
    return Entry(split, kind if anomalous else None, name, path, path if anomalous else None)


@given(st.lists(KEYS, unique=True, max_size=60), st.randoms(use_true_random=False))
def test_exemplars_and_held_out_are_disjoint_and_complete_whatever_the_order(keys, random):
    entries = [entry(*key) for key in keys]
    roles = {e.key: role for e, role in assign_roles(entries)}
    assert len(roles) == len(keys)
    for kind in "abc":
        names = sorted(name for place, name in keys if place == f"test/{kind}")
        third = max(1, len(names) // 3)
        exemplars = [n for n in names if roles[f"test/{kind}/{n}"] == "exemplar"]
        held_out = [n for n in names if roles[f"test/{kind}/{n}"] == "held_out"]
        assert exemplars == names[:third]
        assert held_out == names[third:]
    for place, role in (("train/good", "normal"), ("test/good", "test_good")):
        assert {roles[f"{p}/{n}"] for p, n in keys if p == place} <= {role}
    random.shuffle(entries)
    assert {e.key: role for e, role in assign_roles(entries)} == roles
