"""What names the types of generated images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from parameters import bare

from cadiff.synthesis.folder import import_folder


def test_the_same_pictures_are_named_alike_drawn_and_generated(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = script("kinds")
    for name, value in (("LEARNT", 6), ("NAMED", 4), ("EPOCHS", 1)):
        monkeypatch.setattr(kinds, name, value)
    for kind in kinds.DEMO["fabric"].kinds:
        kinds.drawn("fabric", kind, 64, 6, 4, tmp_path / "pictures" / "fabric")
    import_folder(tmp_path / "pictures", "fabric", [], 64, tmp_path / "shards" / "fabric")
    found = kinds.measure(bare(products={"fabric": {}}, dataset={"size": 64}), "fabric", tmp_path / "scratch", tmp_path / "shards")
    drawn, generated = ({row.metric: (row.value, row.n) for row in found[name]} for name in ("drawn", "generated"))
    assert drawn == generated
    assert drawn["classification_accuracy"][1] == 12
