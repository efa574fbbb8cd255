"""The page as a reader and a browser meet it."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from reporting_artefacts import LEVEL, SHAPES, TYPES, make_params, small_params

from cadiff.errors import CADiffError
from cadiff.records import GENERATED_SCHEMA, METRIC_SCHEMA, MetricRow, ValidationRow, to_table
from cadiff.reporting import write_report
from cadiff.reporting.artefacts import claims_of
from cadiff.reporting.claims import claims_tables
from cadiff.reporting.films import GAP, films
from cadiff.reporting.run_said import network_said, sizes
from cadiff.reporting.signals import filter_table
from cadiff.storage import encode_png, read_json, read_table, write_table

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """All elements of a page with their attributes, and its text; fails on tags not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text())


def test_page_asks_no_host_for_anything(report: Path, page: Page) -> None:
    text = (report / "index.html").read_text()
    assert re.findall(r"https?://[^\s\"'<>]*", text) == []
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")) or (tag == "a" and (report / value).is_dir()), (tag, name, value[:80])
    assert len(text) < 5_000_000


def test_page_is_accessible(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for link in (link for link in page.all("a") if link["href"].startswith("#")):
        assert link["href"].removeprefix("#") in identifiers
    for _, attributes in page.elements:
        for name in attributes.get("aria-labelledby", "").split():
            assert name in identifiers
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) >= 10
    charts = [attributes for attributes in page.all("svg") if attributes.get("class") == "chart"]
    assert charts
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_page_answers_the_four_questions(page: Page) -> None:
    for text in ("Are the generated anomalies good?", "Do they help the detector?", "Against what?"):
        assert text in page.text
    assert "Can it be believed?" in page.text
    assert "Yes: the generated images, added to the exemplars, helped, in every seed." in page.text
    assert "augmented exemplars alone" in page.text
    assert "No test image is byte for byte a training image; near-duplicates were not looked for." in page.text
    assert "The demo’s images are drawn, not photographed" in page.text
    assert "of the detector, one of the generator" in page.text


def test_gallery_shows_real_beside_generated_with_provenance(page: Page) -> None:
    sections = [section for section in page.all("section") if section.get("class") == "kind"]
    kinds = {(section["data-product"], section["data-type"]) for section in sections}
    assert kinds == {(p, t) for p, types in TYPES.items() for t in [*types, "anomaly"]}
    assert {g["data-source"] for g in page.all("div") if g.get("class") == "group"} == {
        "real", "cadiff", "exemplars", "perlin",
    }  # fmt: skip
    rows = [json.loads(button["data-row"]) for button in page.all("button") if "data-row" in button]
    generated = [row for row in rows if row.get("method") == "cadiff"]
    assert generated[0]["prompt"] == "a photo of a <fabric> with hole & more"
    assert set(generated[0]) >= set(GENERATED_SCHEMA.names)
    assert any(row.get("role") == "exemplar" for row in rows)


def test_the_sizes_and_the_mask_rule_are_named_and_explained(page: Page, report: Path) -> None:
    for said in (
        "144 px of each picture’s shorter side, its aspect ratio kept: masks, generated images, anomaly maps and exports (dataset.size).",
        "a square 2 times as large as what is masked, brought to 64 x 64 px, drawn, brought back and set in (recipe.window, base.size).",
        "144 px of the shorter side, in squares of 256 px (detector.size, detector.tile).",
        "Pixels are scored at 256 px of the shorter side, where a pixel of the true mask counts if the anomaly covers at least half of it "
        "(recipe.metrics.mask_rule: half)",
    ):
        assert said in page.text
    assert "Protocol: strict; pixels are scored at 256 px of the shorter side" in (report / "summary.md").read_text()


def test_sizes_that_differ_by_product_are_told_apart() -> None:
    own = {"base": {"size": 32}, "metrics": {"mask_rule": "nearest"}, "detector": {"size": 64}}
    said = dict(sizes(make_params(products={"fabric": {}, "metal_plate": own}, dataset={"size": "native"})))
    assert said["Canvas"].startswith("each picture as it is")
    assert "metal_plate: a square 2 times as large as what is masked, brought to 32 x 32 px" in said["What the base draws"]
    assert said["What the detector sees"].startswith("fabric: pictures at their own size; metal_plate: 64 px of the shorter side, in ")
    assert "the mask’s pixel nearest to its centre (recipe.metrics.mask_rule: nearest)" in said["What is scored"]
    whole = make_params(window={"cut": "whole"}, dataset={"size": "native"})
    assert dict(sizes(whole))["What the base draws"].startswith("all of the picture, brought to 64 x 64 px")


def test_pictures_have_their_own_aspect_and_their_outline_fits(page: Page) -> None:
    shown = [(image["width"], image["height"]) for image in page.all("img")]
    assert {(str(width), str(height)) for height, width in SHAPES} <= set(shown)
    boxes = {svg["viewbox"] for svg in page.all("svg") if svg.get("class") == "outline"}
    assert {f"0 0 {width} {height}" for height, width in SHAPES} <= boxes


def test_where_the_masks_lie_has_a_table(page: Page) -> None:
    assert "Where the masks lie: how each image’s masks were placed" in page.text
    assert "exemplars, by context" in page.text


def test_the_mean_over_types_is_in_every_headline(page: Page, report: Path) -> None:
    assert "The mean over anomaly types is " in page.text
    assert "| Pixel AP | Pixel AP, mean over types |" in (report / "summary.md").read_text()
    assert read_json(report / "metrics.json")["cadiff"]["pixel_ap_types"] == pytest.approx(0.74, abs=0.01)


def test_other_generators_are_named_and_need_no_words_of_their_own(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    for folder in ("generated", "evaluated", "detectors", "reported/quality"):
        for method in ("controlnet", "perturbed"):
            copy(artefacts_root / "data/made" / folder / "cadiff", tmp_path / "root/data/made" / folder / method)
            for path in (tmp_path / "root/data/made" / folder / method).rglob("metrics.parquet"):
                rows = [{**row, "method": method} for row in read_table(path).to_pylist()]
                write_table(path, pa.Table.from_pylist(rows, schema=METRIC_SCHEMA))
    curves = tmp_path / "root/data/made/generator"
    copy(curves / "cadiff", curves / "controlnet")  # the other one learns nothing
    params = make_params(products={"fabric": {}}, methods=["cadiff", "controlnet", "perturbed", "exemplars"], detector={"seeds": [0]})
    write_report(params, tmp_path / "root", tmp_path / "out")
    page = Page((tmp_path / "out/index.html").read_text())
    assert "controlnet – ControlNet alone" in page.text
    assert "perturbed – Perturbed normals" in page.text
    plots = {path.stem for path in (tmp_path / "out/plots").iterdir()}
    assert {"generator-fabric", "generator-fabric-controlnet"} <= plots
    assert "generator-fabric-perturbed" not in plots
    sources = {group["data-source"] for group in page.all("div") if group.get("class") == "group"}
    assert sources == {"real", "cadiff", "controlnet", "perturbed", "exemplars"}


def test_the_first_line_says_where_no_defect_is_needed(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    evaluated = tmp_path / "root/data/made/evaluated"
    copy(artefacts_root / "data/made/evaluated/both", evaluated / "patchcore")
    for path in (evaluated / "patchcore").rglob("metrics.parquet"):
        rows = [{**row, "method": "patchcore", "value": row["value"] + 0.05} for row in read_table(path).to_pylist()]
        write_table(path, pa.Table.from_pylist(rows, schema=METRIC_SCHEMA))
    params = make_params(products={"fabric": {}}, methods=["cadiff", "exemplars", "patchcore"])
    conclusion = write_report(params, tmp_path / "root", tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert conclusion.startswith("PatchCore, which needs no defect at all, is ahead of every detector trained on anomalies by Pixel AP (")
    assert f'<p class="lead"><strong>{conclusion}</strong> Yes: the generated images helped, in every seed. Pixel AP is ' in page
    assert conclusion in (tmp_path / "out/summary.md").read_text()
    assert "patchcore – normal images alone (PatchCore)" in page
    assert "Do they help the detector?</dt><dd>Yes: " in page, "the question keeps its own answer"


def test_a_test_image_that_set_the_threshold_is_told(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    path = tmp_path / "root/data/made/samples/fabric.parquet"
    rows = read_table(path).to_pylist()
    by_name = {row["sample_id"]: row for row in rows}
    by_name["fabric/good/test_good-00"]["image_sha256"] = by_name["fabric/good/calibration-00"]["image_sha256"]
    write_table(path, pa.Table.from_pylist(rows, schema=read_table(path).schema))
    write_report(small_params(), tmp_path / "root", tmp_path / "out")
    said = "Caution: 1 test image equals a training image or one that set a threshold, such as fabric/good/test_good-00."
    assert said in (tmp_path / "out/index.html").read_text()


def test_every_table_sorts(page: Page) -> None:
    tables = [attributes for tag, attributes in page.elements if tag == "table"]
    assert tables
    assert all("data-sortable" in attributes for attributes in tables)


def test_signals_stand_at_the_pictures_they_speak_against(page: Page) -> None:
    cards = [figure for figure in page.all("figure") if "data-w" in figure]
    marked = [figure["data-signals"] for figure in cards if "data-signals" in figure]
    assert {signal for signals in marked for signal in signals.split(",")} == {"likely copy", "not visible"}
    assert "Of 120 images: 24 taken for copies of an exemplar" in page.text


def test_bad_results_are_told(page: Page) -> None:
    """The fabricated second type's w does nothing, and the page says so beside its pictures."""
    assert page.text.count("w does not act: the change inside the mask stays below 1\u202f%") == 2
    assert page.text.count("The change inside the mask rises with every step of w, up to 10.0\u202f%") == 2


def test_attention_says_when_re_weighting_began(page: Page) -> None:
    assert page.text.count("Re-weighting began at step 4 of 12.") == 2 * 4
    assert page.text.count("Re-weighting began at step 0 of 12.") == 4
    acting = [cell for cell in page.all("span") if cell.get("class") == "frame acting"]
    assert 0 < len(acting) < 4 * 4 * 6


def test_files_beside_the_page(report: Path) -> None:
    joined = read_table(report / "metrics.parquet", METRIC_SCHEMA).to_pandas()
    assert len(joined) == 2 * len(LEVEL) * 3 * 15
    values = read_json(report / "metrics.json")
    assert set(values) == set(LEVEL)
    own = joined[(joined["method"] == "cadiff") & (joined["metric"] == "pro")]
    assert values["cadiff"]["pro"] == pytest.approx(own["value"].mean())
    assert values["cadiff"]["false_alarm_rate"] == pytest.approx(0.25)
    assert values["cadiff"]["miss_rate"] == pytest.approx(0.2)
    assert not any("/" in metric for metric in values["cadiff"])
    summary = (report / "summary.md").read_text()
    assert "| cadiff – CADiff images |" in summary
    assert "Protocol: strict" in summary
    chart = (report / "plots" / "pixel-ap.svg").read_text()
    assert ElementTree.fromstring(chart).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in chart, "a file of its own has no page to take colours from"
    assert (report / "paper.csv").read_text().startswith("table,metric,method,product,value\n")


def test_same_artefacts_give_the_same_bytes(artefacts_root: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_report(small_params(), artefacts_root, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    plots = sorted(f"plots/{path.name}" for path in (tmp_path / "one" / "plots").iterdir())
    assert plots == ["plots/detectors-fabric.svg", "plots/generator-fabric.svg", "plots/pixel-ap.svg"]
    assert names == ["index.html", "metrics.json", "metrics.parquet", "paper.csv", "plots", "summary.md"]
    for name in [*names[:4], *names[5:], *plots]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_absent_artefact_is_an_error_that_names_it(tmp_path: Path) -> None:
    line = r"evaluated/cadiff/fabric/metrics.parquet: expected this file, but it is not there. Run the stage"
    with pytest.raises(CADiffError, match=line):
        write_report(make_params(), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def copy(root: Path, to: Path) -> None:
    """The same files under another root as hard links, which writing through cadiff.storage parts."""
    shutil.copytree(root, to, copy_function=lambda a, b: Path(b).hardlink_to(a))


@pytest.mark.parametrize("gone", [
    "data/made/samples/fabric.parquet", "data/made/generated/cadiff/fabric/hole.parquet",
    "data/made/evaluated/exemplars/fabric/scored.parquet", "data/made/generator/cadiff/fabric/curve.parquet",
    "data/made/detectors/exemplars/fabric/curve-0.parquet", "data/made/demo/fabric/hole/exemplar-00.png",
    "data/made/reported/shipped/cadiff/fabric.json",
    "data/made/reported/quality/cadiff/fabric.parquet", "data/made/reported/showcase/cadiff/fabric/vectors.parquet",
    "data/made/reported/validation/cadiff/fabric/pictures.parquet",
])  # fmt: skip
def test_each_absent_artefact_is_named(gone: str, artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    (tmp_path / "root" / gone).unlink()
    with pytest.raises(CADiffError, match=re.escape(gone)):
        write_report(small_params(), tmp_path / "root", tmp_path / "out")


def test_the_training_is_shown_in_pictures_by_type(report: Path) -> None:
    page = Page((report / "index.html").read_text())
    said = "The exemplar, its mask, and what was drawn after 0, 90, 180 steps."
    assert page.text.count(said) == 4, "two products of two types"
    (film, *_) = films(make_rows())
    assert (film.width, film.height) == (5 * (96 + GAP) - GAP, 96)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(film.uri.partition(",")[2]))))
    parts = [pixels[:, k * (96 + GAP) : k * (96 + GAP) + 96].mean() for k in range(5)]
    assert parts == pytest.approx([10, 255, 40, 80, 120], abs=1), "the exemplar, the mask, then by step"


def make_rows() -> list[ValidationRow]:
    """Of one type, out of order: flat greys, under a mask that is white."""
    def png(value: int) -> dict[str, object]:
        return {"bytes": encode_png(np.full((96, 96, 3), value, np.uint8)), "path": "a.png"}

    return [ValidationRow("nut", "rust", step, png(grey), png(255), None, 0) for step, grey in ((90, 80), (0, 40), (180, 120), (-1, 10))]


def test_partial_report_says_what_is_absent(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    for gone in ("evaluated/exemplars", "generated/cadiff/fabric", "generator", "reported/showcase"):
        shutil.rmtree(tmp_path / "root/data/made" / gone)
    write_report(small_params(), tmp_path / "root", tmp_path / "out", partial=True)
    page = Page((tmp_path / "out/index.html").read_text())
    assert "This report is partial" in page.text
    assert "data/made/generated/cadiff/fabric/hole.parquet" in page.text
    assert "Not compared: Pixel AP was not measured for both cadiff and exemplars." in page.text
    assert "generated/cadiff/fabric/stain.parquet" in (tmp_path / "out/summary.md").read_text()


def test_what_the_filter_left_out_is_told(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    path = tmp_path / "root/data/made/evaluated/cadiff/fabric/metrics.parquet"
    rows = [{**row, "protocol": "filtered"} for row in read_table(path).to_pylist()]
    shares = {"images_kept": (0.9, 60), "images_kept/hole": (0.8, 30), "images_kept/stain": (1, 30), "images_kept_unknown": (0.05, 60),
              "images_kept_unknown/hole": (0.1, 30), "images_kept_unknown/stain": (0, 30)}  # fmt: skip
    rows += [{**rows[0], "metric": name, "value": value, "n": n, "seed": 0} for name, (value, n) in shares.items()]
    write_table(path, pa.Table.from_pylist(rows, schema=METRIC_SCHEMA))
    write_report(small_params(), tmp_path / "root", tmp_path / "out")
    page = Page((tmp_path / "out/index.html").read_text())
    assert "6 of 60 left out by the filter’s rules, none by hand" in page.text
    assert "all of them used" not in page.text
    assert "for some products generated images were left out by rules on their quality signals" in page.text
    assert "no image was left out because of them" not in page.text
    table = filter_table(read_table(path).to_pandas())
    assert [(row.heads, [cell.text for cell in row.cells]) for row in table.rows] == [
        (["cadiff", "fabric", "hole"], ["30", "24", "6", "3"]), (["cadiff", "fabric", "stain"], ["30", "30", "0", "0"]),
    ]  # fmt: skip


def test_a_whole_report_needs_no_method_that_was_not_asked_for(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    for folder in ("generated", "evaluated", "detectors", "reported/quality"):
        shutil.rmtree(tmp_path / "root/data/made" / folder / "cadiff")
    shutil.rmtree(tmp_path / "root/data/made/reported/showcase")
    write_report(make_params(methods=["exemplars", "perlin"]), tmp_path / "root", tmp_path / "out")
    page = Page((tmp_path / "out/index.html").read_text())
    assert "Not compared: Pixel AP was not measured for both cadiff and exemplars." in page.text


def test_the_ablations_table_is_read_where_it_is(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    rows = read_table(tmp_path / "root/data/made/evaluated/cadiff/fabric/metrics.parquet").to_pylist()
    table = pa.Table.from_pylist([{**row, "variant": "MTL + SAIM"} for row in rows], schema=METRIC_SCHEMA)
    write_table(tmp_path / "root/data/ablations/demo.parquet", table)
    write_report(small_params(), tmp_path / "root", tmp_path / "out")
    text = Page((tmp_path / "out/index.html").read_text()).text
    assert "MTL + SAIM, ablation" in text
    assert "An “ablation” is of data/ablations/demo.parquet (demo, 1 product)" in text


def test_what_else_was_measured_of_the_paper_is_shown_where_it_is(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    joint = {("joint: joint", "apart"): [5.0, 5.5], ("joint: a generator a type", "apart"): [4.0, 4.0]}
    figures = joint | {("tokens: multiple tokens", "iou"): [0.4]}
    rows = [
        MetricRow("demo", "fabric", "cadiff", variant, metric, value, seed, 4, "strict", None, "")
        for (variant, metric), values in figures.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    write_report(small_params(), tmp_path / "root", tmp_path / "out")
    assert "What else the paper claims" not in Page((tmp_path / "out/index.html").read_text()).text
    write_table(tmp_path / "root" / claims_of("demo"), to_table(rows, METRIC_SCHEMA))
    write_report(small_params(), tmp_path / "root", tmp_path / "out")
    text = " ".join(Page((tmp_path / "out/index.html").read_text()).text.split())
    assert "What else the paper claims" in text
    assert "Part joint of benchmarks/claims.py, whose head says what each figure is: 1 product, 2 seeds of the generator" in text
    tables = claims_tables(to_table(rows, METRIC_SCHEMA).to_pandas())
    assert [(table.columns, [(row.heads, [cell.text for cell in row.cells]) for row in table.rows]) for table in tables] == [
        (["Setting", "apart"], [(["joint"], ["5.25 ± 0.35"]), (["a generator a type"], ["4 ± 0"])]),
        (["Setting", "iou"], [(["multiple tokens"], ["0.4"])]),
    ]


def test_images_made_elsewhere_without_normal_ones_are_told(artefacts_root: Path, tmp_path: Path) -> None:
    copy(artefacts_root, tmp_path / "root")
    generated = tmp_path / "root/data/made/generated"
    (generated / "perlin").rename(generated / "dfmgan")
    external = {"images": ["dfmgan"]}
    params = make_params(methods=["exemplars"], products={"fabric": {}}, external=external)
    said = "dfmgan brought no normal images that took the generator’s path (a folder “good”)"
    for with_good in (False, True):
        if with_good:
            shutil.copy(generated / "dfmgan/fabric/anomaly.parquet", generated / "dfmgan/fabric/good.parquet")
        write_report(params, tmp_path / "root", tmp_path / "out", partial=True)
        text = Page((tmp_path / "out/index.html").read_text()).text
        assert "what dfmgan had seen when it was made is not known here" in text
        assert (said in text) != with_good


def test_partial_report_of_nothing(tmp_path: Path) -> None:
    write_report(make_params(), tmp_path, tmp_path / "out", partial=True)
    page = Page((tmp_path / "out/index.html").read_text())
    assert "No claim is made." in page.text
    assert read_json(tmp_path / "out/metrics.json") == {}


@pytest.mark.parametrize(("change", "message"), [
    (lambda rows: rows + rows[:1], "expected one row per metric and seed"),
    (lambda rows: [{**row, "product": "other"} for row in rows], "expected rows of .* only"),
])  # fmt: skip
def test_metrics_that_do_not_belong_are_refused(
    change: Callable[[list], list], message: str, artefacts_root: Path, tmp_path: Path
) -> None:
    copy(artefacts_root, tmp_path / "root")
    path = tmp_path / "root/data/made/evaluated/cadiff/fabric/metrics.parquet"
    table = read_table(path)
    write_table(path, type(table).from_pylist(change(table.to_pylist()), schema=METRIC_SCHEMA))
    with pytest.raises(CADiffError, match="evaluated/cadiff/fabric/metrics.parquet: " + message):
        write_report(make_params(), tmp_path / "root", tmp_path / "out", partial=True)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("unet", "a plain U-Net"),
        ("smp:resnet34", "a decoder on segmentation-models-pytorch’s resnet34, from ImageNet"),
        ("smp:tu-resnet18:scratch", "a decoder on segmentation-models-pytorch’s tu-resnet18, from scratch"),
    ],
)
def test_a_detectors_network_is_said_in_words(network: str, said: str) -> None:
    assert network_said(network) == said
