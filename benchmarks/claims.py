"""What the paper claims and a small base can show: ``python benchmarks/claims.py [PART ...] [--small] [--seeds 0 1 2] [--products P]``.

- ``tokens`` (Fig. 6, Table 5): one token a type against tokens for product and types apart: attention of held-out anomalies against
  their masks, and how far the contextual vectors of a product's types stand apart (silhouette in the plane of t-SNE).
- ``training`` (Self-adaptive Spatial Control): tokens that learn a tenth and ten times as fast, with and without SAIM: anomalies that
  leak or are missing, and how sharp the edges of what is drawn are (``sharpness``: the change's gradient at the mask's edge over its mean
  inside; a blurred edge has less).
- ``joint`` (Joint training): one generator for all types against one a type, each with its share of the steps: how near what is drawn
  comes to an exemplar (``exemplar``) and how far images of a type are from each other (``apart``), both as squared distances of ImageNet
  features; a copy has 0.
- ``focus`` (Eq. 11): delayed focus where the control sees no mask, so that there is something to delay: contrast over w, and what moves
  outside of the mask.
- ``unseen`` (Fig. 1, 7): two types in one image, which no exemplar shows, against the same two masks drawn each alone, in real pictures
  at w = 1. A classifier of the product's types and of no defect, trained on its real pictures, exemplars and held out, looks at a window
  around each mask: ``told`` is the share that is what was asked for (``told_TYPE`` of one type), ``both`` the share of pairs of which both
  are, ``nothing`` what is taken for no defect, and ``real`` how it fares on real windows that it has not seen (five parts, each by the
  others).
- ``tables`` (Tables 4 and 5): the rows of ``presets/ablations.yaml`` with nothing of a real picture kept (``generate.background:
  generated``, whole pictures at the size that the base draws), the only place where masked focus and SAIM can act on what lies outside of
  masks: a detector's figures on held-out images, IC-LPIPS, and how many masks lie off the product that was drawn (``off_product``).

But for the last two all of a window is generated, as for ``benchmarks/method.py``, whose cells, figures and table these are.

Figures go to ``data/ablations/claims/DATASET.parquet``, where that data set's report finds them (``dvc repro report``).

``--small`` takes less of everything (``SMALL``): with ``--products nut --count 4`` a seed is 13 trainings of 40 steps and 10 detectors of
50.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from cells import Cell, cell_for, draw_if_demo
from jaxtyping import Bool, Float, UInt8
from method import (
    WEIGHTS,
    Figures,
    Overrides,
    at_weight,
    contextual_vectors,
    drawn,
    first_piece,
    held_out_attention,
    margin,
    measured_rows,
    requests_of,
    run_parts,
    windows_of,
)
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cadiff.generator import draw_scenes
from cadiff.generator.windows import placed_like
from cadiff.masks import Placer
from cadiff.metrics.control import change, control_figures, intensity_figures
from cadiff.metrics.imagenet import embeddings, features
from cadiff.params import Params, load_params
from cadiff.params.whole import layered
from cadiff.pictures import read_picture
from cadiff.prompt import CONTEXT
from cadiff.records import ATTEMPTS, GENERATED_SCHEMA, MetricRow, SampleRow
from cadiff.scene import Scene
from cadiff.seeds import derive_seed
from cadiff.storage import read_table

PRESET = Path(__file__).resolve().parents[1] / "presets" / "ablations.yaml"
NOTHING = "no defect"
# The background is generated: whole pictures, as the base draws them.
WHOLE: dict[str, dict[str, object]] = {
    "window": {"cut": "whole"}, "detector": {"size": None},
    "generate": {"background": "generated", "start": "noise", "redraw": False, "blend": None},
}  # fmt: skip
# Of presets/ablations.yaml: 40 training steps for 90, 8 images a type for 24 in 6 denoising steps for 10, one epoch of the detector for 6.
SMALL: dict[str, dict[str, object]] = {
    "train": {"steps": 40}, "generate": {"per_type": 8, "steps": 6}, "detector": {"epochs": 1},
}  # fmt: skip
FASTER = {"a tenth": 0.1, "as set": 1.0, "tenfold": 10.0}


def settings(params: Params, part: str) -> dict[str, Overrides]:
    """A part's settings as overrides of the parameters."""
    plain: Overrides = {"control": {"interaction": "none"}}
    if part == "tokens":
        single: Overrides = {"prompt": {"tokens": "single", "localizing": False, "contrastive": False}, **plain}
        return {"single token": single, "multiple tokens": {}}
    if part == "training":
        rate = params.prompt.learning_rate
        own = {name: {"prompt": {"learning_rate": rate * times}} for name, times in FASTER.items()}
        return {f"{name}, {saim}": {**o, **more} for name, o in own.items() for saim, more in (("SAIM", {}), ("without", plain))}
    if part == "joint":
        return {"joint": {}, "a generator a type": {}}
    if part == "unseen":
        return {"each alone": {}, "two in one image": {}}
    if part == "tables":
        return load_params(PRESET).variants
    return {"delayed": {}, "at once": {"intensity": {"delayed_focus": False}}}


def tokens(cell: Cell, setting: str, count: int) -> Figures:
    vectors, concepts = contextual_vectors(cell)
    known = cell.generator.tokens.concepts
    types = np.array([known[concept] != CONTEXT for concept in concepts])
    found = {f"attention_{name}": value for name, value in held_out_attention(cell, count).items()}
    return found | {"silhouette": silhouette(vectors[types], concepts[types])}


def silhouette(vectors: Float[np.ndarray, "n d"], concepts: np.ndarray) -> float:
    """-1 to 1: how much nearer vectors lie to their own concept's than to the next one's, in the plane of t-SNE (Fig. 6)."""
    plane = TSNE(perplexity=min(5.0, (len(vectors) - 1) / 3), init="pca", random_state=0).fit_transform(vectors)
    return float(silhouette_score(plane, concepts))


def training(cell: Cell, setting: str, count: int) -> Figures:
    requests, masks = requests_of(cell, count)
    changed = change(drawn(cell, at_weight(requests, 1.0)), drawn(cell, requests, silent=True))
    found = control_figures(changed, masks, margin(cell))
    return {name: found[name] for name in ("inside_share", "missing_rate", "leakage_rate")} | {"sharpness": sharpness(changed, masks)}


def sharpness(changed: Float[np.ndarray, "n h w"], masks: Bool[np.ndarray, "n h w"]) -> float:
    """The mean gradient of the change within a pixel of the mask's edge, over its mean inside the mask; the mean over images."""
    found = []
    for one, mask in zip(changed, masks, strict=True):
        edge = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
        slope = np.hypot(*np.gradient(one))
        found.append(float(slope[edge].mean() / max(one[mask].mean(), 1e-6)))
    return float(np.mean(found))


@dataclasses.dataclass(frozen=True)
class OneType(Cell):
    """A cell whose generator sees the exemplars of one type alone, for its share of the steps."""

    kind: str = ""

    @cached_property
    def samples(self) -> list[SampleRow]:
        rows = Cell(self.params, self.product, self.work).samples
        return [row for row in rows if row.role != "exemplar" or row.anomaly_type == self.kind]


def joint(cell: Cell, setting: str, count: int) -> Figures:
    kinds = sorted({str(row.anomaly_type) for row in cell.samples if row.role == "exemplar"})
    found: list[Figures] = []
    for kind in kinds:
        own = cell if setting == "joint" else alone(cell, kind, len(kinds))
        requests, _ = requests_of(own, count)
        images = drawn(own, at_weight([request for request in requests if request.types == (kind,)], 1.0))
        shown = [row for row in cell.samples if row.role == "exemplar" and row.anomaly_type == kind]
        made, real = embeddings(images).double(), embeddings(windows_of(cell, shown)[0]).double()
        found.append(spread(made.numpy(), real.numpy()))
    return {name: float(np.mean([figures[name] for figures in found])) for name in found[0]}


def alone(cell: Cell, kind: str, types: int) -> OneType:
    """The cell of one type, trained for its share of the steps."""
    train = cell.params.train
    shorter = train.model_copy(update={"steps": max(1, round(train.steps_for(sum(r.role == "exemplar" for r in cell.samples)) / types)),
                                       "epochs": None})  # fmt: skip
    return OneType(cell.params.model_copy(update={"train": shorter}), cell.product, cell.work, kind)


def spread(made: Float[np.ndarray, "n d"], real: Float[np.ndarray, "m d"]) -> Figures:
    """``exemplar``: the mean over images of the squared distance from the nearest exemplar; ``apart``: the mean over pairs of images."""
    near = ((made[:, None] - real[None]) ** 2).sum(-1).min(1)
    pairs = [((a - b) ** 2).sum() for i, a in enumerate(made) for b in made[i + 1 :]]
    return {"exemplar": float(near.mean()), "apart": float(np.mean(pairs)) if pairs else float("nan")}


def focus(cell: Cell, setting: str, count: int) -> Figures:
    requests, masks = requests_of(cell, count)
    requests = [dataclasses.replace(request, asked=False) for request in requests]  # the control sees no mask
    counterpart = drawn(cell, requests, silent=True)
    images = {w: drawn(cell, at_weight(requests, w)) for w in WEIGHTS}
    by_weight = {w: change(image, counterpart) for w, image in images.items()}
    return intensity_figures(by_weight, {w: change(image, images[1.0]) for w, image in images.items()}, masks, margin(cell))


def unseen(cell: Cell, setting: str, count: int) -> Figures:
    pairs = paired_scenes(cell, count)
    alone = [[dataclasses.replace(scene, anomalies=(one,)) for one in scene.anomalies] for scene in pairs]
    asked = pairs if setting == "two in one image" else [one for two in alone for one in two]
    drawn_scenes = draw_scenes(cell.generator, cell.params, asked, again=False)
    crops = [around(cell, one.image, anomaly.mask) for one in drawn_scenes for anomaly in one.scene.anomalies]
    wanted = np.array([anomaly.anomaly_type for scene in asked for anomaly in scene.anomalies])
    classifier, real = judge(cell)
    said = classifier.predict(pooled(np.stack(crops)))
    right = said == wanted
    both = float(right.reshape(-1, 2).all(1).mean())
    found = {"told": float(right.mean()), "both": both, "nothing": float((said == NOTHING).mean()), "real": real}
    return found | {f"told_{kind}": float(right[wanted == kind].mean()) for kind in sorted(set(wanted))}


def paired_scenes(cell: Cell, count: int) -> list[Scene]:
    """``count`` scenes of each two types, in a normal, each mask placed as the shards' are and beside the other, at w = 1."""
    placer, found = Placer(cell.task), []
    for k, (one, other) in ((k, pair) for pair in itertools.combinations(placer.types, 2) for k in range(count)):
        name = f"{cell.product}/{one}+{other}/{k}"
        seed = derive_seed(cell.params.seed, "unseen", name)
        normal = placer.normals[seed % len(placer.normals)]
        first = placer.place(one, (seed, one, 0), normal, moved=True)
        second = placer.place(other, (seed, other, 0), normal, first.outline.whole, moved=True)
        found.append(Scene(name, cell.product, (first.anomaly(one, 1.0), second.anomaly(other, 1.0)), normal, normal, seed, k))
    return found


def around(cell: Cell, image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "s s 3"]:
    return first_piece(cell, mask).window.picture(image, cell.params.base.size)


_judges: dict[tuple[str, str], tuple[Pipeline, float]] = {}


def judge(cell: Cell) -> tuple[Pipeline, float]:
    """A classifier of windows of the product's real pictures, every type's and those of normals at the same places, and its accuracy on
    what it has not seen. It is the same for every seed and setting."""
    key = (cell.params.dataset.root, cell.product)
    if key not in _judges:
        rows = [row for row in cell.samples if row.role in ("exemplar", "held_out")]
        normals = [row for row in cell.samples if row.role == "normal"]
        defects, empty, size = windows_of(cell, rows)[0], [], cell.params.base.size
        for row, normal in zip(rows, itertools.cycle(normals)):
            mask = read_picture(row, cell.params.dataset.size).mask
            other = read_picture(normal, cell.params.dataset.size).image
            window = placed_like(first_piece(cell, mask).window, (mask.shape[0], mask.shape[1]), (other.shape[0], other.shape[1]))
            empty.append(window.picture(other, size))
        x = pooled(np.concatenate([defects, np.stack(empty)]))
        y = np.array([str(row.anomaly_type) for row in rows] + [NOTHING] * len(empty))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        _judges[key] = model.fit(x, y), float(cross_val_score(model, x, y, cv=5).mean())
    return _judges[key]


def pooled(images: UInt8[np.ndarray, "n s s 3"]) -> Float[np.ndarray, "n d"]:
    """EfficientNet-Lite0's features at strides 8 to 32, each the mean over places."""
    return np.concatenate([level.mean((2, 3)).numpy() for level in features(images)[1:]], axis=1)


def tables(cell: Cell, setting: str, count: int) -> Figures:
    rows = {row.metric: row.value for row in cell.metrics}
    found = {name: rows[name] for name in ("pixel_ap", "pixel_auroc", "image_auroc")}
    found["ic_lpips"] = next(value for name, value in rows.items() if name.startswith("ic_lpips(") and "/" not in name)
    shards = [path for path in cell.generated.glob("*.parquet") if path.stem != "good"]
    attempts = np.concatenate([read_table(path, GENERATED_SCHEMA, ["attempts"])["attempts"].to_numpy() for path in shards])
    return found | {"off_product": float((attempts > ATTEMPTS).mean())}


PARTS: dict[str, Callable[[Cell, str, int], Figures]] = {
    "tokens": tokens, "training": training, "joint": joint, "focus": focus, "unseen": unseen, "tables": tables,
}  # fmt: skip


def adjusted(params: Params, part: str, small: bool) -> Params:
    """The parameters that a part is measured with, at their own scale or the small one."""
    changes: dict[str, dict[str, object]] = SMALL if small else {}
    values = params.model_dump()
    if part == "tables":
        changes = layered(changes, {**WHOLE, "dataset": {"size": params.base.size}})
    return Params(**{**values, **{section: {**values[section], **own} for section, own in changes.items()}, "variants": {}})


def measure(
    params: Params, part: str, products: list[str], seeds: list[int], count: int, work: Path, small: bool = False
) -> Iterator[list[MetricRow]]:
    """A part's rows, those of one setting after those of another."""
    draw_if_demo(params, products)
    base = adjusted(params, part, small)
    for seed, product in itertools.product(seeds, products):
        own = settings(base.for_product(product), part)
        for setting in own:
            yield measured_rows(cell_for(base.with_variants(own), product, seed, work, setting), part, setting, count, PARTS[part])


def main(arguments: Sequence[str] | None = None) -> None:
    run_parts(__doc__, PARTS, measure, "data/ablations/claims/{dataset}.parquet", arguments, may_be_small=True)


if __name__ == "__main__":
    main()
