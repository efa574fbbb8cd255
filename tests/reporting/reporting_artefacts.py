"""A complete set of artefacts with drawn images, as the stages leave them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from parameters import bare
from scipy.ndimage import gaussian_filter

from cadiff.params import Params
from cadiff.records import (
    ATTENTION_SCHEMA,
    CURVE_SCHEMA,
    GENERATED_SCHEMA,
    METRIC_SCHEMA,
    QUALITY_SCHEMA,
    SAMPLE_SCHEMA,
    SCORED_SCHEMA,
    SHOWCASE_SCHEMA,
    VALIDATION_SCHEMA,
    VECTOR_SCHEMA,
    AttentionRow,
    GeneratedRow,
    MetricRow,
    QualityRow,
    SampleRow,
    ScoredRow,
    ShowcaseRow,
    ValidationRow,
    VectorRow,
    to_table,
)
from cadiff.seeds import numpy_generator
from cadiff.storage import encode_png, sealed, sha256_bytes, write_bytes, write_image, write_json, write_table
from cadiff.thresholds import conformal

SIZE = 144
SHAPES = [(144, 144), (144, 210), (180, 144)]  # of the pictures of every product; a name decides which
TYPES = {"fabric": ["hole", "stain"], "metal_plate": ["bent", "scratch"]}
SOURCES = ["exemplars, by context", "exemplars, anywhere", "exemplars, by context"]  # of cadiff's masks, in turn
LEVEL = {"cadiff": 0.72, "exemplars": 0.66, "both": 0.75, "perlin": 0.51}
CALIBRATION = 3  # normals that set the threshold, where 99 are needed for 1 %
THRESHOLD = 0.5
METRICS = ["pixel_ap", "pixel_ap_types", "pixel_auroc", "pixel_f1max", "pro", "image_auroc", "image_ap", "image_f1max"]


def make_params(**changes: Any) -> Params:
    values: dict[str, Any] = {
        "products": {"fabric": {}, "metal_plate": {}},
        "methods": list(LEVEL),
        "dataset": {"size": SIZE, "calibration": 0.2},
        "detector": {"seeds": [0, 1, 2]},
    }
    values |= changes
    return bare(**{"ship": {"methods": [name for name in ("cadiff",) if name in values["methods"]]}, **values})


def small_params() -> Params:
    """A part of what make_params() asks for, quicker to report."""
    return make_params(products={"fabric": {}}, methods=["cadiff", "exemplars"], detector={"seeds": [0]})


def shape_of(name: str) -> tuple[int, int]:
    return SHAPES[int(numpy_generator(0, "shape", name).integers(len(SHAPES)))]


def draw(product: str, kind: str | None, name: str, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """An image (``h w 3``) and its mask (``h w``): a weave or brushed metal, with a blob or a streak."""
    rng, (height, width) = numpy_generator(0, "draw", product, kind, name), shape_of(name)
    y, x = np.mgrid[:height, :width]
    if product == "fabric":
        base = 120 + 30 * np.sin(x * 1.3) * np.sin(y * 1.3) + rng.normal(0, 5, (height, width))
        colour = np.array([0.8, 0.95, 1.2])
    else:
        base = 165 + gaussian_filter(rng.normal(0, 45, (height, width)), (0.4, 6)) - 0.2 * abs(x - width / 2)
        colour = np.array([1.0, 1.0, 0.97])
    mask = np.zeros((height, width), bool)
    if kind in ("hole", "stain"):
        cy, cx = rng.uniform(0.2, 0.8, 2) * (height, width)
        radius = rng.uniform(9, 20) * (1 + 0.25 * np.sin(3 * np.arctan2(y - cy, x - cx)))
        mask = np.hypot(x - cx, y - cy) < radius
    elif kind:
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-25, 25)
        u, v = x - width / 2, y - height / 2
        along = u * np.cos(angle) + v * np.sin(angle)
        mask = (abs(v * np.cos(angle) - u * np.sin(angle) - offset) < 3) & (abs(along) < rng.uniform(18, 58))
    soft = gaussian_filter(mask.astype(float), 0.6)[..., None] * min(strength, 1.5)
    defect = np.array([50, 40, 35]) if kind != "stain" else np.array([150, 95, 50])
    image = base[..., None] * colour * (1 - soft) + defect * soft
    return image.clip(0, 255).astype(np.uint8), np.where(mask, 255, 0).astype(np.uint8)


def make_samples(root: Path, product: str) -> list[SampleRow]:
    rows = []
    for role, count in (("normal", 6), ("calibration", CALIBRATION), ("exemplar", 4), ("held_out", 5), ("test_good", 4)):
        for kind in TYPES[product] if role in ("exemplar", "held_out") else [None]:
            for k in range(count):
                name = f"{product}/{kind or 'good'}/{role}-{k:02d}"
                image, mask = draw(product, kind, name)
                path, mask_path = (
                    f"data/made/demo/{name}.png",
                    f"data/made/demo/{name}_mask.png" if kind else None,
                )
                write_image(root / path, image)
                if mask_path:
                    write_image(root / mask_path, mask)
                digest = sha256_bytes((root / path).read_bytes())
                height, width = mask.shape
                rows.append(SampleRow(name, "demo", product, kind, role, path, mask_path, width, height, digest))
    write_table(root / f"data/made/samples/{product}.parquet", to_table(rows, SAMPLE_SCHEMA))
    return rows


def make_shard(root: Path, method: str, product: str, kind: str, count: int) -> None:
    rows = []
    for k in range(count):
        name = f"{method}/{product}/{kind}/{k:04d}"
        own = method == "cadiff"
        w = float(numpy_generator(0, "w", name).uniform(0.5, 1.5)) if own else None
        image, mask = draw(product, kind if kind != "anomaly" else TYPES[product][0], name, w or 1.0)
        png = encode_png(image)
        rows.append(GeneratedRow(
            name, product, [kind], {"bytes": png, "path": f"{k:04d}.png"},
            {"bytes": encode_png(mask), "path": f"{k:04d}_mask.png"}, SOURCES[k % 3] if own else "drawn",
            *((f"a photo of a <{product}> with {kind} & more", w, k, 20, 1.0, 4, f"{product}/good/normal-00",
               [f"{product}/{kind}/exemplar-00"], "b" * 16, "c" * 16) if own
              else (None, None, k, None, None, None, None, [None], None, None)), "d" * 16, sha256_bytes(png),
        ))  # fmt: skip
    path = root / f"data/made/generated/{method}/{product}/{kind}.parquet"
    write_table(path, to_table(rows, GENERATED_SCHEMA))


def make_quality(root: Path, method: str, product: str, kinds: list[str], count: int) -> None:
    """Signals of ``count`` images and 4 exemplars a type; every fifth image is a copy, every seventh cannot be seen."""
    rows = []
    for kind in kinds:
        rng = numpy_generator(0, "quality", method, product, kind)
        for k in range(count):
            copy, seen = 0.1 if k % 5 == 0 else rng.uniform(0.7, 1.6), 0.8 if k % 7 == 0 else rng.uniform(1.2, 3)
            share = float(rng.uniform(0.6, 1)) if method == "cadiff" else None
            rows.append(QualityRow(f"{method}/{product}/{kind}/{k:04d}", product, method, kind, "generated", float(copy),
                                   f"{product}/{kind}/exemplar-00", share, float(seen)))  # fmt: skip
        rows += [QualityRow(f"{product}/{kind}/exemplar-{k:02d}", product, method, kind, "exemplar", 1.0, None, None, 2.0)
                 for k in range(4)]  # fmt: skip
    write_table(root / f"data/made/reported/quality/{method}/{product}.parquet", to_table(rows, QUALITY_SCHEMA))


def make_showcase(root: Path, product: str) -> None:
    """Ladders whose change rises with w (the second type's does not act), two ways of re-weighting, a pair, an edit."""
    folder, kinds = root / f"data/made/reported/showcase/cadiff/{product}", TYPES[product]
    rows, maps = [], []

    def add(figure: str, group: str, label: str, ws: list[float], name: str, strength: float, change: float | None) -> None:
        image, mask = draw(product, group if group in kinds else kinds[0], name, strength)
        pictures = [{"bytes": encode_png(pixels), "path": f"{figure}{end}.png"} for pixels, end in ((image, ""), (mask, "-mask"))]
        types = [group] if group in kinds else kinds
        outside = None if change is None else change / 20
        rows.append(ShowcaseRow(figure, group, label, product, types, ws, *pictures, "a prompt", 0, 3, change, outside))  # type: ignore[arg-type]

    for i, kind in enumerate(kinds):
        for w in (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0):
            add("ladder", kind, f"w = {w:g}", [w], f"ladder-{kind}", max(w, 0), 0.0 if i else max(w, 0) * 0.05)
        for w in (0.0, 2.0):
            add("edit", kind, f"w = {w:g}", [w], f"{product}/{kind}/exemplar-00", w, 0.1)
        for label, w in (("w = 1", 1.0), ("both", 2.0), ("without masked focus", 2.0), ("without delayed focus", 2.0)):
            add("attention", kind, label, [w], f"attention-{kind}", w, 0.0 if w == 1 else 0.08)
            for step in range(12):
                bump = np.exp(-((np.mgrid[:8, :8] - 4) ** 2).sum(0) / (14 - step)).ravel() * w
                acting = step >= 4 or label == "without delayed focus"
                maps.append(AttentionRow(product, kind, label, step, 8, bump.tolist(), step / 12, acting))
    add("composition", " and ".join(kinds), " and ".join(kinds), [0.7, 1.3], "composition", 1.0, None)
    write_table(folder / "pictures.parquet", to_table(rows, SHOWCASE_SCHEMA))
    write_table(folder / "attention.parquet", to_table(maps, ATTENTION_SCHEMA))
    rng = numpy_generator(0, "vectors", product)
    vectors = [
        VectorRow(product, concept, f"prompt {k}", (centre + rng.normal(0, 0.2, 16)).tolist())
        for concept in ("context", *kinds) for centre in [rng.normal(0, 1, 16)] for k in range(5)
    ]  # fmt: skip
    write_table(folder / "vectors.parquet", to_table(vectors, VECTOR_SCHEMA))


def make_validation(root: Path, product: str) -> None:
    """Each type's exemplar and three moments of a training, in which its defect appears."""
    rows = []
    for kind in TYPES[product]:
        for step in (-1, 0, 90, 180):
            image, mask = (pixels[:96, :96] for pixels in draw(product, kind, f"validation-{kind}", 1.0 if step < 0 else step / 180))
            png = [{"bytes": encode_png(pixels), "path": f"{kind}{end}.png"} for pixels, end in ((image, ""), (mask, "-mask"))]
            rows.append(ValidationRow(product, kind, step, *png, "a prompt", 0))  # type: ignore[arg-type]
    write_table(root / f"data/made/reported/validation/cadiff/{product}/pictures.parquet", to_table(rows, VALIDATION_SCHEMA))


def curve(names: list[str], *key: object) -> pa.Table:
    rng = numpy_generator(0, "curve", *key)
    rows = [
        {
            "step": step,
            "name": name,
            "value": float((i + 1) * 0.3 * np.exp(-step / 120) + 0.02 * rng.uniform(0.5, 1.5)),
        }
        for i, name in enumerate(names)
        for step in range(400)
    ]
    return pa.Table.from_pylist(rows, schema=CURVE_SCHEMA)


def make_evaluated(root: Path, method: str, product: str, samples: list[SampleRow]) -> None:
    metrics, scored = [], []
    for seed in (0, 1, 2):
        rng = numpy_generator(0, "evaluated", product, seed)
        names = METRICS + [f"pixel_ap/{kind}" for kind in TYPES[product]]
        metrics += [
            MetricRow("demo", product, method, "default", name,
                      LEVEL[method] + 0.02 * i + rng.uniform(-0.01, 0.01), seed, 14, "strict", None, "e" * 16)
            for i, name in enumerate(names)
        ]  # fmt: skip
        rates = {"false_alarm_rate": (0.25, 4), "miss_rate": (0.1 * (seed + 1), 10), "threshold_promised": (0.25, CALIBRATION)}
        rates |= {f"miss_rate/{kind}": (0.2 * i * (seed + 1), 5) for i, kind in enumerate(TYPES[product])}
        metrics += [replace(metrics[-1], metric=name, value=value, n=n) for name, (value, n) in rates.items()]
        for row in [sample for sample in samples if sample.role in ("held_out", "test_good", "calibration")]:
            _, mask = draw(product, row.anomaly_type, row.sample_id)
            noise = gaussian_filter(rng.uniform(0, 1, mask.shape), 2)
            pixels = (255 * (0.75 * LEVEL[method] * gaussian_filter(mask / 255, 1.5) + 0.3 * noise)).clip(0, 255)
            known = int(row.sample_id[-2:])  # the first two of each role score above the threshold, the others below
            value = THRESHOLD + (0.4 - 0.1 * known if known < 2 else -0.1 * known + LEVEL[method] / 100)
            pixels = pixels[::2, ::2]  # as a detector that sees half the canvas leaves it
            image = {"bytes": encode_png(pixels.astype(np.uint8)), "path": "map.png"}
            scored.append(
                ScoredRow(row.sample_id, product, row.anomaly_type, method, seed, value, image)
            )
    folder = root / f"data/made/evaluated/{method}/{product}"
    write_table(folder / "metrics.parquet", to_table(metrics, METRIC_SCHEMA))
    write_table(folder / "scored.parquet", to_table(scored, SCORED_SCHEMA))


def make_shipped(root: Path, method: str, product: str, **changes: object) -> None:
    """A folder as the stage ``ship`` leaves it, its threshold set on too few normals."""
    limit = asdict(conformal(np.linspace(0, THRESHOLD, CALIBRATION), 0.01))
    said = {"product": product, "method": method, "seed": 0, "false_alarms": 0.01, "threshold": "good", "image": limit, "pixel": limit}
    folder = root / f"data/made/shipped/{method}/{product}"
    for path in (root / f"data/made/reported/shipped/{method}/{product}.json", folder / "detector.json"):
        write_json(path, sealed({**said, **changes}))
    write_bytes(folder / "detector.onnx", bytes(1_200_000))


def fabricate(root: Path) -> None:
    """Everything that the stages of make_params() leave below root."""
    for product, kinds in TYPES.items():
        samples = make_samples(root, product)
        for kind in kinds:
            make_shard(root, "cadiff", product, kind, 30)
            make_shard(root, "exemplars", product, kind, 10)
        make_shard(root, "perlin", product, "anomaly", 10)
        for method, of_method, count in (("cadiff", kinds, 30), ("exemplars", kinds, 10), ("perlin", ["anomaly"], 10)):
            make_quality(root, method, product, of_method, count)
        make_shipped(root, "cadiff", product)
        make_showcase(root, product)
        make_validation(root, product)
        names = ["denoising", "localizing", "contrastive"]
        write_table(root / f"data/made/generator/cadiff/{product}/curve.parquet", curve(names, product))
        for method in LEVEL:
            for seed in (0, 1, 2):
                path = root / f"data/made/detectors/{method}/{product}/curve-{seed}.parquet"
                write_table(path, curve(["loss"], product, method, seed))
            make_evaluated(root, method, product, samples)
