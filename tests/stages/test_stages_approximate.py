"""A product of boxes from `cadiff import` to the report: every row that stems from an approximate mask says so, and no other does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from parameters import file_text, values_of

from cadiff.export import export_product
from cadiff.importing import import_labels
from cadiff.importing.order import Order
from cadiff.params import load_params
from cadiff.records import (
    GENERATED_SCHEMA,
    METRIC_SCHEMA,
    QUALITY_SCHEMA,
    SAMPLE_SCHEMA,
    SCENE_SCHEMA,
    SCORED_SCHEMA,
    SampleRow,
    from_table,
)
from cadiff.reporting.approximate import approximate_said
from cadiff.reporting.artefacts import Artefacts
from cadiff.stages import run_stage
from cadiff.storage import read_table, write_image, write_json
from cadiff.synthesis import import_folder

SIDE, NORMALS, OF_TYPE = 64, 10, 6
BOXED, EXACT = "spot", "stripe"  # types: labelled by boxes, and by outlines
MADE = Path("data/made")


def draw_labelled(folder: Path) -> Path:
    """Plates and COCO's labels of them: dark spots in boxes, dark stripes in outlines."""
    rng, images, marks = np.random.default_rng(0), [], []
    kinds = [None] * NORMALS + [BOXED] * OF_TYPE + [EXACT] * OF_TYPE
    for number, kind in enumerate(kinds):
        plate = rng.integers(120, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        left, top = (int(place) for place in rng.integers(8, 40, 2))
        width, height = (10, 10) if kind == BOXED else (16, 4)
        if kind:
            plate[top : top + height, left : left + width] = 20
            edges = [left, top, left + width, top, left + width, top + height, left, top + height]
            shape = {"segmentation": [edges], "category_id": 2} if kind == EXACT else {"category_id": 1}
            marks.append({"id": number, "image_id": number, "bbox": [left, top, width, height], **shape})
        name = f"{kind or 'ok'}/{number:02}.png"
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        write_image(folder / name, plate)
    categories = [{"id": number, "name": name} for number, name in ((1, BOXED), (2, EXACT))]
    write_json(folder / "labels.json", {"images": images, "annotations": marks, "categories": categories})
    return folder


@pytest.fixture
def boxed(repository: Path) -> Path:
    """The repository after every stage of the one product of boxes, but for the showcase."""
    drawn, raw = draw_labelled(repository.parent / "drawn"), repository.parent / "boxed"
    import_labels(Order(drawn / "labels.json", drawn, raw, product="plate", normals=("ok/*",)))
    values = values_of("smoke")
    values["dataset"] |= {"name": "plates", "layout": "mvtec", "root": str(raw), "size": 32}
    values["draw"]["products"], values["products"] = [], {"plate": {}}
    values["base"] |= {"path": str(load_params().base.path), "size": 32, "device": "cpu"}
    values["control"]["start"], values["metrics"]["size"] = "copy", 64
    (repository / "params.yaml").write_text(file_text(values))
    params = load_params()
    for stage, method in (("samples", ""), ("adapt", ""), ("scenes", "cadiff"), ("train", "cadiff"), ("generate", "cadiff"),
                          ("synthesize", "exemplars"), ("quality", "cadiff"), ("detect", "cadiff"), ("detect", "exemplars"),
                          ("ship", "cadiff")):  # fmt: skip
        run_stage(stage, params, "plate", method)
    return repository


def marks(path: str, schema: object, key: str) -> dict[str, set[bool]]:
    """By a column's values whether their rows are approximate."""
    found: dict[str, set[bool]] = {}
    for row in read_table(MADE / path, schema).to_pylist():  # type: ignore[arg-type]
        value = row[key]
        found.setdefault("+".join(value) if isinstance(value, list) else str(value), set()).add(row["approximate"])
    return found


def test_what_stems_from_a_box_says_so_and_nothing_else_does(boxed: Path, tmp_path: Path) -> None:
    check_tables()
    check_report_and_exports(tmp_path)


def check_tables() -> None:
    by_type = {BOXED: {True}, EXACT: {False}}
    assert marks("samples/plate.parquet", SAMPLE_SCHEMA, "anomaly_type") == {**by_type, "None": {False}}
    scenes = read_table(MADE / "scenes/cadiff/plate.parquet", SCENE_SCHEMA).to_pylist()
    assert all(row["approximate"] == (row["anomaly_types"] == [BOXED]) for row in scenes)
    redrawn = {row["scene_id"]: row["approximate"] for row in scenes if not row["named"]}
    assert set(redrawn.values()) == {True, False}, "normals with a place of either type's shape"
    for method in ("cadiff", "exemplars"):
        for kind, found in by_type.items():
            assert marks(f"generated/{method}/plate/{kind}.parquet", GENERATED_SCHEMA, "anomaly_types") == {kind: found}
    good = read_table(MADE / "generated/cadiff/plate/good.parquet", GENERATED_SCHEMA).to_pylist()
    assert {row["sample_id"]: row["approximate"] for row in good} == redrawn
    assert marks("generated/exemplars/plate/good.parquet", GENERATED_SCHEMA, "anomaly_types") == {"": {False}}
    assert marks("reported/quality/cadiff/plate.parquet", QUALITY_SCHEMA, "anomaly_type") == by_type
    for method in ("cadiff", "exemplars"):
        assert marks(f"evaluated/{method}/plate/scored.parquet", SCORED_SCHEMA, "anomaly_type") == {**by_type, "None": {False}}
        metrics = marks(f"evaluated/{method}/plate/metrics.parquet", METRIC_SCHEMA, "metric")
        rest = {"pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_ap_types", "pro", f"pixel_ap/{BOXED}"}
        assert {name for name, found in metrics.items() if found == {True}} == rest
        unmarked = {name for name, found in metrics.items() if found == {False}}
        assert {"image_auroc", f"pixel_ap/{EXACT}", "classification_accuracy"} <= unmarked


def check_report_and_exports(tmp_path: Path) -> None:
    params = load_params()
    (said,) = approximate_said(Artefacts(params, Path()))
    made = 2 * params.generate.per_type
    assert f"are 2 of 4 exemplars, {made} of {2 * made} generated anomalies and 4 of 8 held-out anomalies. Its pixel figures rest" in said
    assert "masks that stem from boxes" in (MADE / "shipped/cadiff/plate/README.md").read_text()

    shards, per_type = MADE / "generated/cadiff/plate", params.generate.per_type
    for layout in ("coco", "mvtec", "voc", "yolo", "huggingface"):
        export_product(shards, tmp_path / layout / "plate", layout)  # type: ignore[arg-type]
    told = json.loads((tmp_path / "coco/plate/annotations.json").read_text())
    names = {one["id"]: one["name"] for one in told["categories"]}
    assert {(names[one["category_id"]], one["approximate"]) for one in told["annotations"]} == {(BOXED, True), (EXACT, False)}
    images = [f"{number:06}" for number, kind in enumerate(kinds_of(shards)) if kind == BOXED]
    assert (tmp_path / "voc/plate/ImageSets/Segmentation/approximate.txt").read_text().split() == images
    assert (tmp_path / "yolo/plate/approximate.txt").read_text().split() == [f"./images/{stem}.png" for stem in images]
    assert all((tmp_path / "yolo/plate" / f"images/{stem}.png").is_file() for stem in images)
    card = (tmp_path / "huggingface/plate/README.md").read_text()
    assert f"The masks of {per_type} of the {2 * per_type} anomalies are approximate" in card
    assert (tmp_path / "mvtec/plate/ground_truth/approximate.csv").read_text().count(f"{BOXED}/") == per_type

    samples = from_table(read_table(MADE / "samples/plate.parquet", SAMPLE_SCHEMA), SampleRow)
    import_folder(tmp_path / "mvtec", "plate", samples, params.dataset.size, tmp_path / "again")
    for kind, approximate in ((BOXED, True), (EXACT, False)):
        assert set(read_table(tmp_path / f"again/{kind}.parquet", GENERATED_SCHEMA)["approximate"].to_pylist()) == {approximate}


def kinds_of(shards: Path) -> list[str]:
    """The type of each image in an export's order; empty for a normal one."""
    tables = [read_table(path, GENERATED_SCHEMA) for path in sorted(shards.glob("*.parquet"))]
    return ["+".join(types) for table in tables for types in table["anomaly_types"].to_pylist()]
