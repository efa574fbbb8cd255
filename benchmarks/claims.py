"""What the paper claims and a small base can show: ``python benchmarks/claims.py [PART ...] [--seeds 0 1 2] [--products P ...]``.

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

All of a window is generated, as for ``benchmarks/method.py``, whose cells, figures and table these are. Unseen combinations of types, and
Tables 4 and 5 with a generated background, are not among them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from cells import Cell, cell_for, draw_if_demo
from jaxtyping import Bool, Float
from method import (
    WEIGHTS,
    Figures,
    Overrides,
    at_weight,
    contextual_vectors,
    drawn,
    held_out_attention,
    margin,
    requests_of,
    run_parts,
    windows_of,
)
from scipy import ndimage
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from cadiff.metrics.control import change, control_figures, intensity_figures
from cadiff.metrics.imagenet import embeddings
from cadiff.params import Params
from cadiff.prompt import CONTEXT
from cadiff.records import MetricRow, SampleRow

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


PARTS: dict[str, Callable[[Cell, str, int], Figures]] = {"tokens": tokens, "training": training, "joint": joint, "focus": focus}


def measure(params: Params, parts: list[str], products: list[str], seeds: list[int], count: int, work: Path) -> Iterator[MetricRow]:
    draw_if_demo(params, products)
    for seed, product, part in ((seed, product, part) for seed in seeds for product in products for part in parts):
        own = settings(params.for_product(product), part)
        for setting in own:
            cell = cell_for(params.with_variants(own), product, seed, work, setting)
            digested = cell.params.digest_of("base", "window", "adapt", "prompt", "control", "train", "intensity", "generate")
            for name, value in PARTS[part](cell, setting, count).items():
                yield MetricRow(
                    params.dataset.name, product, "cadiff", f"{part}: {setting}", name, value, seed, count, params.detector.protocol, None,
                    digested,
                )  # fmt: skip
            print(f"seed {seed} {product} {part}: {setting}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    run_parts(__doc__, PARTS, measure, "reports/claims.parquet", arguments)


if __name__ == "__main__":
    main()
