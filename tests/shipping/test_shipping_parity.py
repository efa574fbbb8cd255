"""The shipped folder says what the package says: torch, ONNX and run.py on the same pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from shipping_plates import Product, of_role, train

from cadiff.detection import Inspector, load_detector
from cadiff.detection.inspector import brought_to, pixels_of
from cadiff.errors import CADiffError
from cadiff.predict import unlike
from cadiff.records import SampleRow
from cadiff.shipping import ship_detector
from cadiff.shipping.graphs import ClassifierGraph, DetectorGraph
from cadiff.storage import read_json, read_sealed

LARGEST = 1e-3  # difference of two maps' pixels
SMP = pytest.mark.skipif(find_spec("segmentation_models_pytorch") is None, reason="the extra smp is not installed")


def run(folder: Path, *arguments: str | Path) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, the rows and what went to standard error, of run.py in a process and a folder of its own."""
    call = [sys.executable, "-I", str(folder / "run.py"), "--json", *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120, cwd=folder.parent)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def module_of(folder: Path) -> ModuleType:
    """``run.py`` as a module, without the byte code that an import leaves beside it."""
    module = ModuleType("shipped_run")
    exec(compile((folder / "run.py").read_text(), "run.py", "exec"), module.__dict__)
    return module


def sessions(folder: Path) -> dict[str, onnxruntime.InferenceSession]:
    return {path.name: onnxruntime.InferenceSession(path) for path in folder.glob("*.onnx")}


def pictures(folder: Path, samples: list[SampleRow]) -> list[Path]:
    """The product's own (calibration normals among them, one of which is the threshold), and others of odd sizes and modes."""
    rows = [*of_role(samples, "calibration"), *of_role(samples, "test_good"), *of_role(samples, "held_out")]
    spot = Image.open(of_role(samples, "held_out")[0].image_path)
    made = {
        "odd.png": spot.resize((211, 97)), "tall.png": spot.resize((61, 400)), "tiny.png": spot.resize((17, 19)),
        "grey.png": spot.convert("L"), "palette.png": spot.quantize(8), "lossy.jpg": spot, "opaque.png": spot.convert("RGBA"),
        "tagged.tiff": spot, "bits.bmp": spot.convert("1"),
    }  # fmt: skip
    for name, image in made.items():
        image.save(folder / name)
    return [*(Path(row.image_path) for row in rows), *(folder / name for name in made)]


def check_parity(inspector: Inspector, folder: Path, given: list[Path]) -> set[str | None]:
    """All three on all pictures; returns the verdicts that came."""
    script, said, networks = module_of(folder), read_json(folder / "detector.json"), sessions(folder)
    code, rows, _ = run(folder, *given)
    assert code == 0
    assert [row["path"] for row in rows] == list(map(str, given))
    for path, row in zip(given, rows, strict=True):
        found = inspector.predict(path)
        canvas = brought_to(pixels_of(path), inspector.trained.view.canvas)
        seen = brought_to(canvas, inspector.trained.view.seen)
        map_ = inspector.segmenter.score_images([seen]).maps[0]
        theirs = script.anomaly_map(script.fitted(script.fitted(script.read(path, said), said["canvas"]), said["size"]),
                                    networks["detector.onnx"], said)  # fmt: skip
        assert theirs.shape == map_.shape
        assert np.abs(theirs - map_).max() < LARGEST
        assert row["score"] == pytest.approx(found.score, abs=1e-5)
        expected = None if found.defective is None else "defect" if found.defective else "good"
        assert (row["verdict"], row["threshold"], row["anomaly_type"]) == (expected, found.threshold, found.anomaly_type), path.name
        assert row["unlike"] is unlike(inspector.trained, pixels_of(path)), path.name
    return {row["verdict"] for row in rows}


def test_tiles_of_a_shrunk_picture_with_types_and_a_threshold(product: Product, shipped: Path, tmp_path: Path) -> None:
    inspector = load_detector(product.detector, 1, "cpu")
    assert check_parity(inspector, shipped, pictures(tmp_path, product.samples)) == {"good", "defect"}
    assert {row["unlike"] for row in run(shipped, *(tmp_path / name for name in ("odd.png", "grey.png", "bits.bmp")))[1]} == {True}
    kinds = {row["anomaly_type"] for row in run(shipped, *(row.image_path for row in of_role(product.samples, "held_out")))[1]}
    assert kinds & {"spot", "line"}


@pytest.mark.parametrize(
    ("size", "detector"),
    [
        (80, {"network": "efficientnet-lite0", "standardise": True, "tile": 256}),
        ("native", {"size": None, "tile": 64, "standardise": True}),
        pytest.param(80, {"network": "smp:tu-mobilenetv3_small_050:scratch"}, marks=SMP),
    ],
    ids=["pretrained-whole", "native-tiles", "smp-tiles"],
)
def test_other_networks_and_sizes(plates: list[SampleRow], size: Any, detector: dict[str, Any], tmp_path: Path) -> None:
    """Without calibration normals: there are scores, but no verdicts."""
    uncalibrated = [row for row in plates if row.role != "calibration"]
    found = train(uncalibrated, tmp_path, size, per_type=4, samples_per_epoch=16, seeds=[0], **detector)
    folder = tmp_path / "plate"
    ship_detector("plate", found.samples, 0, found.detector, found.evaluated, folder)
    given = [path for path in pictures(tmp_path, plates) if path.stem != "tiny"]  # at its own size it has less than 32 px
    assert check_parity(load_detector(found.detector, 0, "cpu"), folder, given) == {None}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40e6
    assert run(folder, given[0], "--fail-on-defect")[0] == 2
    if size == "native":
        code, rows, _ = run(folder, tmp_path / "tiny.png")
        assert code == 3
        assert "at least 32 px of the shorter side" in rows[0]["error"]


def test_graphs_take_any_number_of_pictures(product: Product, shipped: Path) -> None:
    inspector, networks = load_detector(product.detector, 1, "cpu"), sessions(shipped)
    assert inspector.classifier is not None
    detector, classifier = DetectorGraph(inspector.segmenter.model), ClassifierGraph(inspector.classifier)
    for name, module, sides in (("detector.onnx", detector, (32, 64)), ("classifier.onnx", classifier, (64,))):
        for count in (1, 3):
            for side in sides:
                given = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
                with torch.inference_mode():
                    expected = module.eval()(torch.from_numpy(given)).numpy()
                found = networks[name].run(None, {"image": given})[0]
                assert found.dtype == np.float32
                np.testing.assert_allclose(found, expected, atol=LARGEST)


def test_what_is_refused_in_training_is_refused_outside(shipped: Path, product: Product, tmp_path: Path) -> None:
    good = Path(of_role(product.samples, "test_good")[0].image_path)
    image = Image.open(good)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=turned)
    clear = image.convert("RGBA")
    clear.putalpha(128)
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.full((40, 40), 30000, np.uint16)).save(tmp_path / "deep.png")
    image.save(tmp_path / "pages.tiff", save_all=True, append_images=[image])
    image.resize((800, 90)).save(tmp_path / "long.png")
    image.resize((15, 15)).save(tmp_path / "small.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-2000])
    (tmp_path / "none.png").write_bytes(b"")
    (tmp_path / "words.png").write_text("no picture")
    given = [*sorted(tmp_path.iterdir()), tmp_path / "absent.png", tmp_path]
    for path in given:
        with pytest.raises(CADiffError):
            pixels_of(path)
    code, rows, _ = run(shipped, *given[:4], good, *given[4:])
    assert code == 3
    assert [row["path"] for row in rows if row["verdict"] != "unreadable"] == [str(good)], "a broken picture does not stop the others"
    assert all(row["error"] for row in rows if row["verdict"] == "unreadable")


def test_exit_status_and_heat_maps(shipped: Path, product: Product, tmp_path: Path) -> None:
    spots = [row.image_path for row in of_role(product.samples, "held_out")]
    inspector = load_detector(product.detector, 1, "cpu")
    defect = next(path for path in spots if inspector.predict(path).defective)
    good = next(row.image_path for row in of_role(product.samples, "calibration"))
    assert run(shipped, defect)[0] == 0
    assert run(shipped, good, "--fail-on-defect")[0] == 0
    assert run(shipped, defect, good, tmp_path / "absent.png", "--fail-on-defect")[0] == 4
    heat = tmp_path / "new" / "heat"
    run(shipped, defect, defect, "--heat", heat)
    names = sorted(path.name for path in heat.iterdir())
    assert names == [f"{number:05}-{Path(defect).stem}.png" for number in (0, 1)], "pictures of one name do not meet"
    drawn = np.asarray(Image.open(heat / names[0])).astype(float) / 255
    expected = inspector.predict(defect).heat
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected).mean() < 0.02


def test_a_changed_folder_is_refused(shipped: Path, product: Product, tmp_path: Path) -> None:
    picture = of_role(product.samples, "test_good")[0].image_path
    for name in ("detector.onnx", "classifier.onnx", "README.md", "run.py"):
        copy = tmp_path / name.replace(".", "-")
        copy.mkdir()
        for path in shipped.iterdir():
            data = path.read_bytes()
            (copy / path.name).write_bytes(data + b"\n" if path.name == name else data)
        code, rows, error = run(copy, picture)
        assert (code, rows) == (2, [])
        assert error.endswith(f"expected {name} as shipped, found otherwise; copy it anew, or ship again\n")
        if name != "run.py":
            (copy / name).unlink()
            assert run(copy, picture)[0] == 2


def moved(text: bytes) -> bytes:
    """A ``detector.json`` with another threshold, and all digests as they were."""
    said = json.loads(text)
    return json.dumps({**said, "image": {**said["image"], "value": 0.99}}).encode()


@pytest.mark.parametrize(
    "change",
    [
        moved,
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: b"[]",
        lambda text: b"\xff\xfe",
        lambda text: json.dumps({name: value for name, value in json.loads(text).items() if name != "self"}).encode(),
        None,
    ],
    ids=["value", "cut", "empty", "list", "bytes", "unsealed", "absent"],
)
def test_a_changed_threshold_is_refused(shipped: Path, product: Product, tmp_path: Path, change: Callable[[bytes], bytes] | None) -> None:
    """In one line, by the script; read here, it is refused too."""
    copy = tmp_path / "plate"
    shutil.copytree(shipped, copy)
    path = copy / "detector.json"
    path.unlink()
    if change is not None:
        path.write_bytes(change((shipped / "detector.json").read_bytes()))
    code, rows, error = run(copy, of_role(product.samples, "test_good")[0].image_path)
    assert (code, rows) == (2, [])
    assert error == f"error: {copy}: expected detector.json as shipped, found otherwise; copy it anew, or ship again\n"
    with pytest.raises(CADiffError, match=re.escape(str(path))):
        read_sealed(path)


def test_a_folder_may_be_laid_out_anew(shipped: Path, product: Product, tmp_path: Path) -> None:
    """The digest is of what it says: spaces, the order of keys, and files of someone's own beside it are nobody's business."""
    copy = tmp_path / "plate"
    shutil.copytree(shipped, copy)
    said = read_sealed(copy / "detector.json")
    (copy / "detector.json").write_text(json.dumps(dict(reversed(said.items()))))
    (copy / "notes").mkdir()
    assert run(copy, of_role(product.samples, "test_good")[0].image_path)[0] == 0
