"""What was measured here for the paper's rows, and what of it may be set against which printed figure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cadiff.params import METHODS, OURS, Params
from cadiff.reporting.comparing import counted, mean_and_spread
from cadiff.reporting.paper_printed import DATASETS, DETECTORS_TABLE, MVTEC, PLAIN_UNITS, PRODUCTS_OF_VISA, VISA, names_in

# IS and IC-LPIPS count as the paper's only with the published files of its network; others carry theirs in the metric's
# name (cadiff.metrics.networks). Of IC-LPIPS it is the variant of AnomalyDiffusion's code, whose row the paper prints beside its own.
SAME_NETWORK = {"is": r"is\(inception-v3\)", "ic_lpips": r"ic_lpips\(lpips-vgg,cap=50,single=dropped\)"}
NEAREST = re.compile(r"\([^,]*,cap=50,single=dropped\)")  # the same but for its network
SAME_PROTOCOL, SAME_DETECTOR = "legacy", "unet"  # of a detector's figures
# The paper's methods by this project's names; the paper's own name, in lower case, serves too (an external folder).
PEERS = {
    "CADiff": (OURS,),
    "AnoDiff": ("anomalydiffusion",),
    "DRAEM": ("perlin",),
    "RD4AD": ("reverse_distillation",),
    "single token": ("single", "single_token", "textual_inversion"),
}
ABLATION = "ablation"  # what rows that were measured apart are called


@dataclass(frozen=True)
class Run:
    """What was measured (METRIC_SCHEMA, shares in [0, 1]), and what of it may be set against which printed figure;
    ``scale`` says in words how this run differs ("demo, 64 px, 3 products"), ``where`` what its rows are called."""

    frame: pd.DataFrame
    params: Params
    scale: str
    where: str = "here"

    @property
    def same(self) -> str | None:
        """The printed data set that this one is; None: neither."""
        return DATASETS.get(re.sub(r"[^a-z]", "", self.params.dataset.name.lower()))

    @property
    def whole(self) -> bool:
        """Whether a mean over the products run is the mean that the paper prints."""
        if self.same == MVTEC:
            return set(self.params.products) == set(names_in(DETECTORS_TABLE, "product")) - {"average"}
        return self.same == VISA and len(self.params.products) == PRODUCTS_OF_VISA

    def peer(self, table: int, printed: str) -> str | None:
        """The method run here that a printed method is; None if none was run."""
        found = set(self.frame["method"])
        if table != DETECTORS_TABLE:  # their rows are sources of images for one detector, not detectors
            found -= set(self.params.methods) - set(self.params.taking("detect"))
        aliases = (printed.lower(), *PEERS.get(printed, ()))
        if table == DETECTORS_TABLE and printed == "DRAEM":
            aliases = ("draem",)
        return next((name for name in aliases if name in found), None)


@dataclass(frozen=True)
class Figure:
    """A measured figure in the paper's units. ``alike``: with the paper's network and textures; ``comparable``: a printed
    one may be subtracted."""

    value: float
    spread: float
    seeds: int
    alike: bool = True
    comparable: bool = True


def run_of_variants(frame: pd.DataFrame | None) -> Run | None:
    """The ablations' rows as a run of their own whose methods are the variants; None where there are none."""
    if frame is None or frame.empty:
        return None
    products, dataset = sorted(set(frame["product"])), ", ".join(sorted(set(frame["dataset"])))
    params = Params(products={product: {} for product in products}, dataset={"name": dataset})
    return Run(frame.assign(method=frame["variant"]), params, f"{dataset}, {counted(len(products), 'product')}", ABLATION)


def intensity_row(params: Params) -> str | None:
    """The row of Table 4 that has this run's intensity settings; None if the paper has no such row."""
    values = params.intensity
    rows = {
        (0.5, 0.5, True, True): "w = 0.5",
        (1.0, 1.0, True, True): "w = 1",
        (1.5, 1.5, True, True): "w = 1.5",
        (0.5, 1.5, True, True): "w in [0.5, 1.5]",
        (0.5, 1.5, False, True): "w/o MFA",
        (0.5, 1.5, True, False): "w/o DFS",
    }
    return rows.get((values.low, values.high, values.masked_focus, values.delayed_focus))


def ablation_row(params: Params) -> str | None:
    """The row of Table 5 that has this run's prompt and control settings; None if there is no such row."""
    prompt, saim = params.prompt, params.control.interaction != "none"
    if prompt.tokens != "multi":
        return "single token" if prompt.tokens == "single" and not saim else None
    if prompt.localizing != prompt.contrastive:
        return None
    return " + ".join(["MTL"] + ["Reg"] * prompt.localizing + ["SAIM"] * saim)


ROW_OF = {4: intensity_row, 5: ablation_row}
# What these two read, so what sets a table's rows apart.
SETTINGS_OF = {
    4: {"intensity.low", "intensity.high", "intensity.masked_focus", "intensity.delayed_focus"},
    5: {"prompt.tokens", "prompt.localizing", "prompt.contrastive", "control.interaction"},
}


def measured(run: Run, method: str | None, metric: str, product: str | None = None, dataset: str = MVTEC) -> Figure | None:
    """A figure of this run in the paper's units: of one product, or the mean over all that were run.

    ``comparable`` are figures of the ``dataset`` that the printed ones are of, means over all of its products, by the evaluation that the
    paper follows (``same_evaluation``), and none of a stand-in for the paper's network or textures. None: not measured; a product
    of another data set is none of the paper's, whatever its name.
    """
    if method is None or (product is not None and run.same != MVTEC):
        return None
    frame = run.frame if product is None else run.frame[run.frame["product"] == product]
    names = {str(name) for name in frame.loc[frame["method"] == method, "metric"]}
    if metric in PLAIN_UNITS:
        own = sorted(name for name in names if re.match(rf"{metric}(\(|$)", name) and "/" not in name)
        own.sort(key=lambda name: (not re.fullmatch(SAME_NETWORK[metric], name), not NEAREST.search(name)))
        name = own[0] if own else metric
    else:
        name = metric
    mean, spread, seeds = mean_and_spread(frame, method, name)
    if pd.isna(mean):
        return None
    factor = 1 if metric in PLAIN_UNITS else 100
    known = METHODS.get(method)
    alike = not (known and known.stand_in) and (metric not in PLAIN_UNITS or bool(re.fullmatch(SAME_NETWORK[metric], name)))
    if known and "backbone" in known.needs:  # the paper's where their variant ends in the published WideResNet-50
        alike = bool(frame.loc[frame["method"] == method, "variant"].str.endswith(",wide_resnet50_2)").all())
    comparable = alike and run.same == dataset and (product is not None or run.whole) and same_evaluation(run, method, name)
    return Figure(factor * mean, factor * spread, seeds, alike, comparable)


def same_evaluation(run: Run, method: str, metric: str) -> bool:
    """Whether a figure was measured as the paper's was. A generator's is told by its name. A detector's is by the published evaluation, and
    where it was trained on generated images it is the published U-Net; that evaluation stretches pictures to a square and ours does not, so
    that of VisA's, which are none, it is another one."""
    if metric.partition("(")[0] in PLAIN_UNITS:
        return True
    rows = run.frame[(run.frame["method"] == method) & (run.frame["metric"] == metric)]
    if set(rows["protocol"]) != {SAME_PROTOCOL} or run.same != MVTEC:
        return False
    own = method in run.params.taking("peer")
    return own or run.where == ABLATION or set(rows["variant"]) == {SAME_DETECTOR}


def protocols(run: Run, methods: Sequence[str | None]) -> str:
    """The protocols that the rows of these methods were measured under."""
    return ", ".join(sorted(set(run.frame.loc[run.frame["method"].isin([m for m in methods if m]), "protocol"])))
