"""Figures that needed the trained model: the stage ``showcase`` drew what is arranged here (Fig. 3, 4, 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from cadiff.records import AttentionRow, ShowcaseRow, VectorRow
from cadiff.reporting import figures
from cadiff.reporting.artefacts import SHOWN, Artefacts
from cadiff.reporting.comparing import ABSENT
from cadiff.reporting.gallery import Picture, data_uri, heat, picture, real_picture
from cadiff.reporting.tables import Cell, Row, Table
from cadiff.storage import decode_image

SEEN = 0.01  # mean change inside the mask, of the full range: less cannot be seen
MOMENTS = 6  # steps of which attention is shown
FEW = 24  # concepts whose names fit into the map of tokens


@dataclass(frozen=True)
class Strip:
    """Pictures side by side with what they show in words."""

    title: str
    kind: str
    finding: str
    pictures: list[Picture]


@dataclass(frozen=True)
class AttentionCell:
    uri: str
    alt: str
    caption: list[str]
    acting: bool
    outline: str
    width: int
    height: int


@dataclass(frozen=True)
class AttentionStrip:
    """One way of re-weighting: the type's attention over the steps, then the picture that came of it."""

    label: str
    finding: str
    cells: list[AttentionCell]
    picture: Picture


def showcase_picture(row: ShowcaseRow) -> Picture:
    image = decode_image(row.image["bytes"], "RGB", row.label)
    mask = decode_image(row.mask["bytes"], "L", row.label)
    kind = " and ".join(row.anomaly_types)
    shown = {name: getattr(row, name) for name in (
        "figure", "group", "label", "product", "anomaly_types", "intensities", "prompt", "seed", "focus_step", "change_inside",
        "change_outside")}  # fmt: skip
    return picture(image, mask, shown, alt=f"Generated {row.product}, {kind}, {row.label}", caption=row.label.replace("-", "−"),
                   source=SHOWN, product=row.product, kind=kind, intensity=row.intensities[0])  # fmt: skip


def _grouped(rows: Sequence[ShowcaseRow], figure: str) -> dict[str, list[ShowcaseRow]]:
    groups: dict[str, list[ShowcaseRow]] = {}
    for row in rows:
        if row.figure == figure:
            groups.setdefault(row.group, []).append(row)
    return groups


def ladders(rows: Sequence[ShowcaseRow]) -> list[Strip]:
    """Fig. 3: one mask, one noise, w from low to high."""
    return [
        Strip(group, group, ladder_finding(steps), [showcase_picture(row) for row in steps])
        for group, steps in _grouped(rows, "ladder").items()
    ]


def ladder_finding(steps: Sequence[ShowcaseRow]) -> str:
    """Whether w acts, in words: change is from w = 0, inside the mask."""
    changes = {row.intensities[0]: row.change_inside or 0.0 for row in steps if row.intensities[0] >= 0}
    values = [changes[w] for w in sorted(changes)]
    most, outside = max(values), max(row.change_outside or 0.0 for row in steps)
    if most < SEEN:
        return f"w does not act: the change inside the mask stays below {_percent(SEEN, 0)} of the full range ({_percent(most, 2)})."
    rises = all(after > before for before, after in pairwise(values))
    word = "rises with every step of w" if rises else "does not rise with every step of w"
    return f"The change inside the mask {word}, up to {_percent(most)} of the full range; outside it is at most {_percent(outside, 2)}."


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\u202f%"


def ladder_table(by_product: dict[str, list[ShowcaseRow]]) -> Table:
    """Change inside the mask for every w, and outside for the largest."""
    steps = sorted({row.intensities[0] for rows in by_product.values() for row in rows if row.figure == "ladder"})
    rows = []
    for product, found in by_product.items():
        for group, ladder in _grouped(found, "ladder").items():
            inside = {row.intensities[0]: row.change_inside for row in ladder}
            cells = [_share(inside.get(w)) for w in steps] + [_share(max(row.change_outside or 0.0 for row in ladder))]
            rows.append(Row([product, group], cells))
    columns = ["Product", "Anomaly type", *(f"w = {w:g}".replace("-", "−") for w in steps), "Most outside"]
    return Table("Mean change from w = 0 inside the mask, and the largest outside of it, in % of the full range. One image a type.",
                 columns, rows, sortable=True)  # fmt: skip


def _share(value: float | None) -> Cell:
    return Cell(ABSENT) if value is None else Cell(f"{100 * value:.2f}", value)


def compositions(rows: Sequence[ShowcaseRow]) -> list[Picture]:
    """Fig. 1 right and 7: several types in one image, and one type at two places."""
    found = [row for row in rows if row.figure == "composition"]
    weights = [", ".join(f"{w:g}" for w in row.intensities).replace("-", "−") for row in found]
    return [replace(showcase_picture(row), caption=f"{row.label}, w = {w}") for row, w in zip(found, weights, strict=True)]


def edits(artefacts: Artefacts, product: str, rows: Sequence[ShowcaseRow]) -> list[Strip]:
    """Fig. 7: a real exemplar, then the same picture with its anomaly's word silenced and amplified."""
    strips = []
    for group, steps in _grouped(rows, "edit").items():
        exemplar = next((row for row in artefacts.exemplars(product) if row.anomaly_type == group), None)
        real = real_picture(artefacts, exemplar) if exemplar else None
        shown = [showcase_picture(row) for row in steps]
        strips.append(Strip(group, group, edit_finding(steps), [replace(real, caption="real"), *shown] if real else shown))
    return strips


def edit_finding(steps: Sequence[ShowcaseRow]) -> str:
    """How much of the real picture changed where it should not have."""
    outside = max(row.change_outside or 0.0 for row in steps)
    inside = {row.intensities[0]: row.change_inside or 0.0 for row in steps}
    parts = ", ".join(f"{_percent(value)} for w = {w:g}" for w, value in sorted(inside.items()))
    return (
        f"Change from the real picture inside the mask: {parts}; outside at most {_percent(outside, 2)}, the autoencoder’s "
        "loss included."
    )


def attention_strips(
    pictures: Sequence[ShowcaseRow], rows: Sequence[AttentionRow], whole: bool
) -> dict[str, list[AttentionStrip]]:
    """Fig. 4 by type: all maps of a type share one scale, so that amplification can be seen.

    ``whole``: the maps are of all of the picture (window.cut), so that its mask's outline fits them; else of the window that was drawn.
    """
    result: dict[str, list[AttentionStrip]] = {}
    for group, drawn in _grouped(pictures, "attention").items():
        own = [row for row in rows if row.group == group]
        top = max((max(row.attention) for row in own), default=1.0) or 1.0
        for row in drawn:
            steps = sorted((step for step in own if step.label == row.label), key=lambda step: step.step)
            chosen = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, MOMENTS).round().astype(int))] if steps else []
            shown = replace(showcase_picture(row), caption="the picture")
            cells = [_attention_cell(step, shown if whole else None, top, acts=row.intensities[0] != 1) for step in chosen]
            strip = AttentionStrip(_variant(row), attention_finding(row, steps), cells, shown)
            result.setdefault(group, []).append(strip)
    return result


def _variant(row: ShowcaseRow) -> str:
    w = f"w = {row.intensities[0]:g}"
    names = {"both": "masked and delayed focus", "without masked focus": "without masked focus",
             "without delayed focus": "without delayed focus"}  # fmt: skip
    return f"{w}, {names[row.label]}" if row.label in names else w


def attention_finding(row: ShowcaseRow, steps: Sequence[AttentionRow]) -> str:
    """When re-weighting began, and what it changed against w = 1."""
    acting = [step.step for step in steps if step.acting]
    if row.intensities[0] == 1:
        return "As drawn without amplification, for comparison."
    began = "Re-weighting never began: the focus stayed low."
    if acting:
        began = f"Re-weighting began at step {acting[0] - steps[0].step} of {len(steps)}."
    if row.change_inside is None or row.change_outside is None:
        return began
    return f"{began} Change from w = 1: {_percent(row.change_inside)} inside the mask, {_percent(row.change_outside, 2)} outside."


def _attention_cell(step: AttentionRow, shown: Picture | None, top: float, acts: bool) -> AttentionCell:
    """``acts``: whether its w changes anything at all at the steps where re-weighting is on, which w = 1 does not."""
    values, acting = np.asarray(step.attention, float).reshape(step.side, step.side) / top, step.acting and acts
    state = "re-weighted" if acting else "as it is"
    alt = f"Attention of {step.group} at step {step.step}, {state}, focus {step.focus:.2f}"
    caption = [f"step {step.step}", f"focus {step.focus:.2f}", *(["re-weighted"] if acting else [])]
    outline, width, height = (shown.outline, shown.width, shown.height) if shown else ("", step.side, step.side)
    return AttentionCell(data_uri(heat((255 * values).astype(np.uint8))), alt, caption, acting, outline, width, height)


def token_map(rows: Sequence[VectorRow]) -> tuple[Markup | None, str]:
    """Fig. 6: t-SNE of the contextual vectors, and in words how far concepts stand apart (cosine silhouette)."""
    if len({(row.product, row.concept) for row in rows}) < 2:
        return None, ""
    vectors, names = np.array([row.vector for row in rows]), [f"{row.product} {row.concept}" for row in rows]
    score = float(silhouette_score(vectors, names, metric="cosine"))
    perplexity = float(np.clip(len(rows) / 4, 2, 30))
    places = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=0).fit_transform(vectors)
    found = (
        f"{len(set(names))} tokens in {len(rows)} prompts. Silhouette by cosine distance {score:.2f}: 1 is one tight cluster for each "
        "token, 0 is overlap, below 0 is mixed up. Distances between clusters in a t-SNE map mean nothing."
    )
    return figures.scatter(places, [(row.product, row.concept) for row in rows], "tokens", found, len(set(names)) <= FEW), found
