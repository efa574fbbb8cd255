"""What a reader asks first: whether it helped, against what, and whether that can be believed."""

from __future__ import annotations

import pandas as pd

from cadiff.params import ADDED, OURS, Params
from cadiff.records import WITHOUT_GOOD
from cadiff.reporting import comparing, paper_measured, signals, tables, verdict
from cadiff.reporting.artefacts import SHOWN, WITH_SHOWN, Artefacts
from cadiff.reporting.comparing import counted
from cadiff.reporting.gallery import Group
from cadiff.reporting.run_said import origin, protocol_said


def lead(artefacts: Artefacts, frame: pd.DataFrame) -> list[str]:
    """The page's first line and what follows it: that no defect is needed at all, where that is so; else the verdict."""
    without = verdict.needs_no_defect(frame, sources_of(artefacts.params))
    found = concluded(artefacts, frame)
    return [without, " ".join(found)] if without else found


def concluded(artefacts: Artefacts, frame: pd.DataFrame) -> list[str]:
    return verdict.verdict(frame, held_out(artefacts))


def facts(artefacts: Artefacts, frame: pd.DataFrame, groups: list[Group]) -> list[tuple[str, str]]:
    """The four questions that a reader brings, answered from the data."""
    params = artefacts.params
    made = sum(group.total for group in groups if group.source == SHOWN)
    kinds = len({(group.product, group.anomaly_type) for group in groups if group.source == SHOWN})
    peers = [comparing.title_of(method) for method in sources_of(params) if method != OURS]
    others = [comparing.title_of(method) for method in detectors_of(params)]
    against = f"The same detector, trained the same way, on {'; on '.join(peers) or 'nothing else: no peer'}."
    if others:
        against += f" Beside it, detectors of their own: {'; '.join(others)}."
    by_product = frame.loc[frame["metric"] == "image_auroc"].drop_duplicates(["product"]).set_index("product")["n"]
    images, anomalies = by_product.sum(), sum(number for name, number in held_out(artefacts).items() if name in by_product)
    scored = frame[(frame["metric"] == "pixel_ap") & frame["method"].isin(sources_of(params))]
    seeds = set(scored["seed"])
    tested = f"{images:,} test images, {anomalies:,} of them anomalies" if images else "No test image"
    protocol = protocol_said(set(scored["protocol"])) + elsewhere(artefacts)
    generators = ", one of the generator" if WITH_SHOWN & set(params.methods) else ""
    own = frame[(frame["method"] == OURS) & ~frame["metric"].astype(str).str.contains("/")]
    realism = own[own["metric"].astype(str).str.startswith(("is(", "ic_lpips("))].groupby("metric")["value"].mean()
    measured = "; ".join(f"{tables.plain_name(str(name))} {value:.3f}" for name, value in realism.items())
    judged = f"Mean over products: {measured}." if measured else "Realism and diversity were not measured."
    shown = f"{counted(made, 'image')} for {counted(kinds, 'anomaly type')}"
    out = signals.left_out(frame)
    used = "all of them used, none picked out" if out is None else f"{out[0]:,} of {out[1]:,} left out by the filter’s rules, none by hand"
    return [
        ("Are the generated anomalies good?",
         " ".join(filter(None, [signals.spoken(artefacts), judged])) + f" Judge by eye: {shown}, {used}; "
         "the gallery shows them beside the real exemplars that they were learned from."),
        ("Do they help the detector?", " ".join([concluded(artefacts, frame)[0], verdict.place_among(frame, sources_of(params))]).strip()),
        ("Against what?", against),
        ("Can it be believed?",
         f"{tested}; {counted(len(seeds), 'seed')} of the detector{generators}; {protocol}. {overlap(artefacts)}{origin(params)}"),
    ]  # fmt: skip


def detectors_of(params: Params) -> list[str]:
    """The methods that are detectors of their own, not a source of images for the common one."""
    return [method for method in params.methods if method not in sources_of(params)]


def sources_of(params: Params) -> list[str]:
    """The methods whose images the common detector is trained on."""
    return params.taking("detect")


def generators_of(params: Params) -> list[str]:
    """The methods that a generator may have been trained for."""
    found = params.taking("train")
    return found if ADDED not in params.methods else list(dict.fromkeys([SHOWN, *found]))


def protocol_of(params: Params, frame: pd.DataFrame) -> str:
    """What the common detector was measured under; the parameters' where nothing was measured yet."""
    return paper_measured.protocols(paper_measured.Run(frame, params, ""), sources_of(params)) or params.detector.protocol


def held_out(artefacts: Artefacts) -> dict[str, int]:
    """How many anomalies each product is scored on; of products whose samples are absent, nothing."""
    samples = {product: artefacts.samples(product) for product in artefacts.params.products}
    return {product: sum(row.role == "held_out" for row in rows) for product, rows in samples.items() if rows}


def elsewhere(artefacts: Artefacts) -> str:
    """What is not known of results that were made elsewhere, as the rest of a sentence; empty where there are none."""
    params = artefacts.params
    methods = [method for method in params.methods if params.kind_of(method) in ("images", "maps")]
    said = f"; what {', '.join(methods)} had seen when it was made is not known here" if methods else ""
    without = [method for method in methods if params.kind_of(method) == "images" and artefacts.lack_good(method)]
    if without:
        said += f"; {', '.join(without)} {WITHOUT_GOOD}"
    return said


def overlap(artefacts: Artefacts) -> str:
    """Whether any image's bytes are both trained or calibrated on and tested on."""
    rows = [row for product in artefacts.params.products for row in artefacts.samples(product)]
    seen = {row.image_sha256 for row in rows if row.role in ("normal", "calibration", "exemplar")}
    both = [
        row.sample_id for row in rows if row.role in ("held_out", "test_good") and row.image_sha256 in seen
    ]
    if not both:
        return "No test image is byte for byte a training image; near-duplicates were not looked for."
    number = f"{counted(len(both), 'test image')} equal{'s' if len(both) == 1 else ''}"
    return f"Caution: {number} a training image or one that set a threshold, such as {both[0]}."
