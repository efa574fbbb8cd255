"""benchmarks/scale.py: what it says of the run that it was measured on, and of a larger one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from parameters import file_text, over, values_of

from cadiff.params import Params, load_params
from cadiff.records import SAMPLE_SCHEMA, SCENE_SCHEMA, SampleRow, SceneRow, to_table
from cadiff.storage import write_json, write_table

ROOT = Path(__file__).parents[2]
TYPES, PER_TYPE, EXEMPLARS = ("chip", "rust"), 5, 6
SECONDS = {"samples": 1.0, "scenes": 2.0, "adapt": 3.0, "train": 40.0, "generate": 20.0, "synthesize": 1.5, "quality": 7.0,
           "showcase": 9.0, "detect": 30.0}  # fmt: skip
REALISM = 6.0


@pytest.fixture
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("scale")


@pytest.fixture
def params(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The smoke preset with times and masks as its stages would leave them; the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(file_text(over(values_of("smoke"), {"methods": {"unions": ["both"]}})))
    params = load_params()
    for product in params.products:
        rows = [scene(product, kind, k, named) for kind in TYPES for k in range(PER_TYPE) for named in (True, False)]
        write_table(Path("data/made/scenes/cadiff") / f"{product}.parquet", to_table(rows, SCENE_SCHEMA))
        samples = [sample(product, index, "exemplar") for index in range(EXEMPLARS)] + [sample(product, EXEMPLARS, "normal")]
        write_table(Path("data/made/samples") / f"{product}.parquet", to_table(samples, SAMPLE_SCHEMA))
        for stage, seconds in SECONDS.items():
            for method in bench.methods_of(stage, params):
                record(stage, product, method, seconds)
    record("scenes", "left-over", "cadiff", 1000.0)  # of a product that is no longer there
    record("report", "", "", 8.0)
    return params


def scene(product: str, kind: str, index: int, named: bool) -> SceneRow:
    blank = {"bytes": b"", "path": ""}
    return SceneRow(f"{kind}-{index}-{named}", product, named, [kind], [blank], ["drawn"], [1.0], [None], [None], None, None, 0, 0)


def sample(product: str, index: int, role: str) -> SampleRow:
    return SampleRow(f"{product}-{index}", "demo", product, TYPES[index % 2], role, f"{index}.png", None, 64, 64, "")  # type: ignore[arg-type]


def record(stage: str, product: str, method: str, seconds: float) -> None:
    parts = {"realism": 0.0 if method == "both" else REALISM} if stage == "detect" else {}
    row = {"stage": stage, "product": product, "method": method, "seconds": seconds, "parts": parts}
    write_json(Path(".cadiff/times") / f"{stage}-{product}-{method}.json", row)


def without_parts(product: str, method: str) -> None:
    row = {"stage": "detect", "product": product, "method": method, "seconds": 1000.0}
    write_json(Path(".cadiff/times") / f"detect-{product}-{method}.json", row)


def predicted(bench: ModuleType, params: Params, size: object, devices: int = 1, cluster: bool = False) -> dict[str, float]:
    rates = bench.rates(params)
    return {w.stage: bench.predict(w, rates[w.stage], params, size, devices, cluster) for w in bench.WORK if w.stage in rates}


def test_the_measured_run_is_predicted_as_it_was(bench: ModuleType, params: Params) -> None:
    measured = sum(SECONDS[s] * 2 * len(bench.methods_of(s, params)) for s in SECONDS) + 8.0
    found = predicted(bench, params, bench.Size(2, len(TYPES), len(TYPES) * PER_TYPE, EXEMPLARS))
    assert sum(found.values()) == pytest.approx(measured)
    assert found["realism"] == pytest.approx(2 * 2 * REALISM), "two products, two methods with images of their own"
    assert found["detect"] == pytest.approx(2 * 3 * SECONDS["detect"] - found["realism"])


def test_a_trained_peer_costs_by_its_steps_and_patchcore_by_its_seeds(bench: ModuleType, params: Params) -> None:
    values = params.model_dump()
    peers = {**values["peers"], "steps": 10, "batch": 4}
    params = Params(**{**values, "methods": ["exemplars", "patchcore", "draem"], "peers": peers, "ship": {"methods": []}})
    for product in params.products:
        record("peer", product, "patchcore", 3.0)
        record("peer", product, "draem", 80.0)
    seeds = len(params.detector.seeds)
    found = bench.rates(params)
    assert found["peer"] == pytest.approx(3.0 / seeds)
    assert found[bench.TRAINED_PEER] == pytest.approx(80.0 / (seeds * 10 * 4))


def test_a_detector_without_parts_is_refused_only_where_it_counts(bench: ModuleType, params: Params) -> None:
    before = bench.rates(params)
    without_parts("left-over", "cadiff")
    without_parts("nut", "cutpaste")
    assert bench.rates(params) == before, "neither is in the parameters"
    without_parts("nut", "cadiff")
    with pytest.raises(SystemExit, match="detect nut cadiff: expected its parts, found none"):
        bench.rates(params)


def test_more_images_cost_where_images_are_touched(bench: ModuleType, params: Params) -> None:
    one, ten = (predicted(bench, params, bench.Size(2, len(TYPES), n * len(TYPES) * PER_TYPE, EXEMPLARS)) for n in (1, 10))
    ratio = {stage: ten[stage] / one[stage] for stage in one}
    assert [s for s, r in ratio.items() if r == pytest.approx(10)] == ["scenes", "generate", "synthesize", "quality", "realism"]
    assert 1 < ratio["detect"] < 10, "the classifier sees every image, the detector a set number"
    assert [s for s, r in ratio.items() if r == pytest.approx(1)] == ["samples", "adapt", "train", "showcase", "report"]


def test_a_training_by_epochs_costs_by_the_products_exemplars(bench: ModuleType, params: Params) -> None:
    train = {**params.train.model_dump(), "steps": None, "epochs": 8, "batch": 4, "normal_share": 0.0}
    params = Params(**{**params.model_dump(), "train": train})
    rates, (own, twice) = bench.rates(params), (bench.Size(2, len(TYPES), 10, n * EXEMPLARS) for n in (1, 2))
    assert rates["train"] == pytest.approx(SECONDS["train"] / (8 * EXEMPLARS)), "seconds an exemplar shown"
    work = next(work for work in bench.WORK if work.stage == "train")
    found = [bench.predict(work, rates["train"], params, size, 1, False) for size in (own, twice)]
    assert found == pytest.approx([2 * SECONDS["train"], 4 * SECONDS["train"]])


def test_devices_share_stages_and_a_cluster_their_parts(bench: ModuleType, params: Params) -> None:
    size = bench.Size(4, 2, 320, EXEMPLARS)
    one, eight, cluster = (predicted(bench, params, size, *place) for place in ((1, False), (8, False), (32, True)))
    assert eight["train"] == pytest.approx(one["train"] / 4), "no more devices than products train at a time"
    assert cluster["generate"] == pytest.approx(one["generate"] / 32)
    assert cluster["quality"] == one["quality"], "a cluster does not compute it"


def test_the_target_decides_methods_and_what_was_not_measured_is_named(bench: ModuleType, params: Params) -> None:
    fewer = params.model_copy(update={"methods": ["cadiff"]})
    rates = bench.rates(params)
    bench.check_comparable(rates, params, fewer)
    size = bench.Size(2, len(TYPES), len(TYPES) * PER_TYPE, EXEMPLARS)
    quality = next(work for work in bench.WORK if work.stage == "quality")
    assert bench.predict(quality, rates["quality"], fewer, size, 1, False) == pytest.approx(2 * SECONDS["quality"])
    more = params.model_copy(update={"methods": [*params.methods, "patchcore"]})
    with pytest.raises(SystemExit, match="found none of peer"):
        bench.check_comparable(rates, params, more)
    adapted = params.model_copy(update={"adapt": params.adapt.model_copy(update={"steps": 0})})
    with pytest.raises(SystemExit, match=r"adapt\.steps"):
        bench.check_comparable(rates, params, adapted)


def test_the_table_has_every_work_and_the_total(
    bench: ModuleType, params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scale.py", "--per-type", "10"])
    bench.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == [*bench.rates(params), "total"]
    assert len({row.count("|") for row in rows}) == 1
