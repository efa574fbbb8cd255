from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cadiff.data.listing import Entry
from cadiff.data.split import assign_roles, kept_apart

NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=4)
KEYS = st.tuples(st.sampled_from(["train/good", "test/good", "test/a", "test/b", "test/c"]), NAMES)


def entry(place: str, name: str) -> Entry:
    split, kind = place.split("/")
    path, anomalous = Path(name), kind != "good"
    return Entry(split, kind if anomalous else None, name, path, (path,) if anomalous else ())


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


@given(st.lists(KEYS, unique=True, max_size=60), st.floats(0, 1, exclude_max=True), st.randoms(use_true_random=False))
def test_calibration_takes_its_share_of_the_train_normals_alone_whatever_the_order(keys, share, random):
    """All other roles are as without it."""
    entries = [entry(*key) for key in keys]
    before = {e.key: role for e, role in assign_roles(entries)}
    random.shuffle(entries)
    after = {e.key: role for e, role in assign_roles(entries, share)}
    moved = {key for key in before if after[key] != before[key]}
    assert {(before[key], after[key]) for key in moved} <= {("normal", "calibration")}
    normals = sum(role == "normal" for role in before.values())
    if share == 0 or normals < 3:
        assert not moved
    else:
        assert 1 <= len(moved) < normals
        assert abs(len(moved) - share * normals) <= 1


@given(st.integers(3, 500), st.floats(0.001, 0.999))
def test_calibration_pictures_are_spread_evenly(count, share):
    chosen = kept_apart(count, share)
    steps = [b - a for a, b in itertools.pairwise(chosen)]
    assert len({*chosen}) == len(chosen)
    assert chosen == sorted(chosen)
    assert chosen[0] >= 0
    assert chosen[-1] < count
    assert not steps or max(steps) - min(steps) <= 1
    before, after = chosen[0], count - 1 - chosen[-1]
    assert abs(before - after) <= 1, "neither end has more of them"
