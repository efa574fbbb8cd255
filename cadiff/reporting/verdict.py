"""Whether the generated images helped, in sentences that claim no more than the seeds agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from cadiff.params import ADDED, EXEMPLARS, METHODS, OURS, WITHOUT_DEFECTS
from cadiff.reporting.comparing import (
    HEADLINE,
    METRIC_NAMES,
    MIXTURES,
    TYPES,
    Comparison,
    comparable,
    compare,
    counted,
    mean_and_spread,
    percent,
    points,
    ranking,
    title_of,
)

# What can be had of the real exemplars without a model that draws, the exemplars themselves first.
CONTROLS = sorted((name for name in METHODS if METHODS[name].control), key=lambda name: name != EXEMPLARS)
CHANCE = 0.65  # a pixel AUROC below this is no detector; ranking at random gives 0.5
FEW = 6  # anomalies that a product is scored on, below which no figure of it is a claim
SEEDS = 3  # of a detector, below which no figure is a claim


def verdict(frame: pd.DataFrame, held_out: Mapping[str, int] = MappingProxyType({}), metric: str = "pixel_ap") -> list[str]:
    """A conclusion and the figures behind it: did the generated images help the same detector, against the strongest of ``CONTROLS`` that
    was measured?

    Whoever has exemplars uses them, so the question is asked of both together where that was measured; what the generated images are
    worth alone stands beside it.

    ``held_out``: how many anomalies each product is scored on.
    """
    subject = ADDED if ADDED in set(frame["method"]) else OURS
    controls = [name for name in CONTROLS if compare(frame, metric, subject, name)]
    peer = ranking(comparable(frame, controls, metric), controls, metric)[0][0] if controls else CONTROLS[0]
    comparison = compare(frame, metric, subject, peer)
    if comparison is None:
        return [f"Not compared: {METRIC_NAMES[metric]} was not measured for both {subject} and {peer}.", "No claim is made."]
    alone = compare(frame, metric, OURS, peer) if subject == ADDED else None
    figures = _figures(frame, metric, comparison, subject, f"{title_of(peer)}{_strongest(controls)}")
    if alone is not None:
        figures += f" {title_of(OURS)} alone: {percent(alone.means[0])}, {points(alone.gain)} points."
    figures += lost(frame, subject, peer, metric)
    return [_conclusion(frame, metric, comparison, (subject, peer), alone, held_out), figures]


def _figures(frame: pd.DataFrame, metric: str, found: Comparison, subject: str, against: str) -> str:
    own, theirs = map(percent, found.means)
    won = [sum(gain > 0 for gain in gains) for gains in (found.by_product.values(), found.by_seed)]
    return (
        f"{METRIC_NAMES[metric]} is {own} for the detector trained on {title_of(subject)} and {theirs} for "
        f"the same detector trained on {against}: {points(found.gain)} points, "
        f"better on {won[0]} of {counted(len(found.by_product), 'product')} and in {won[1]} of {counted(len(found.by_seed), 'seed')}."
        f"{_over_types(frame, subject, found.peer)}"
    )


def _conclusion(
    frame: pd.DataFrame, metric: str, found: Comparison, pair: tuple[str, str], alone: Comparison | None, held_out: Mapping[str, int]
) -> str:
    added = ", added to the exemplars," if pair[0] == ADDED else ""
    rankings = [value for method in pair if pd.notna(value := mean_and_spread(frame, method, "pixel_auroc")[0])]
    if rankings and max(rankings) < CHANCE:
        return (
            f"Neither detector works: both are near chance (pixel AUROC below {percent(CHANCE)}), so their difference "
            "means nothing. Train the detector longer (detector.epochs)."
        )
    if len(found.by_seed) < SEEDS:
        changed = f"{points(found.gain)} points of {METRIC_NAMES[metric]} with CADiff’s images"
        changed += f" added to the exemplars{_points_over_types(frame, *pair)}" if added else " in place of the exemplars"
        apart = f", {points(alone.gain)} with them alone" if alone else ""
        return f"An indication only: {changed}{apart}. A claim needs at least {SEEDS} seeds."
    conclusion = {
        "better": f"Yes: the generated images{added} helped, in every seed.",
        "worse": f"No: the generated images{added} did harm, in every seed.",
        "undecided": "Undecided: the seeds do not agree, so no claim is made.",
    }[found.outcome]
    if alone is not None:
        conclusion += {
            "better": " In place of the exemplars they helped too, in every seed.",
            "worse": " In place of the exemplars they were worse, in every seed.",
            "undecided": " In place of the exemplars the seeds do not agree.",
        }[alone.outcome]
    if found.outcome != "better":
        return conclusion
    return _of_few({name: held_out[name] for name in found.by_product if name in held_out}, conclusion)


def _strongest(controls: Sequence[str]) -> str:
    """That a control was chosen, in brackets; empty where there was no choice."""
    return f" (the strongest control of {len(controls)})" if len(controls) > 1 else ""


def _over_types(frame: pd.DataFrame, ours: str, peer: str) -> str:
    """A sentence on the mean over anomaly types; empty where it was not measured for both."""
    found = compare(frame, TYPES, ours, peer)
    if found is None:
        return ""
    own, theirs = map(percent, found.means)
    return f" The mean over anomaly types is {own} and {theirs}: {points(found.gain)} points."


def _points_over_types(frame: pd.DataFrame, ours: str, peer: str) -> str:
    """The same gain in brackets."""
    found = compare(frame, TYPES, ours, peer)
    return "" if found is None else f" ({points(found.gain)} in the mean over types)"


def _of_few(held_out: Mapping[str, int], conclusion: str) -> str:
    """A "Yes" as what it is where a product has too few anomalies to be scored on: its seeds tell of the detector, not of these."""
    fewest = min(held_out, key=lambda name: held_out[name], default=None)
    if fewest is None or held_out[fewest] >= FEW:
        return conclusion
    number = f"{held_out[fewest]} anomal{'y' if held_out[fewest] == 1 else 'ies'}"
    rest = conclusion.removeprefix("Yes").lstrip(":, ")
    return f"An indication only, since {fewest} is scored on {number} and a claim needs at least {FEW} of each product: {rest}"


def lost(frame: pd.DataFrame, ours: str, peer: str, but: str) -> str:
    """A sentence on the headline metrics other than ``but`` that ``ours`` lowers, visibly and in every one of at least three
    seeds; empty where there are none."""
    found = {name: compare(frame, metric, ours, peer) for metric, name in HEADLINE.items() if metric != but}
    gains = {name: c.gain for name, c in found.items() if c and c.outcome == "worse"}
    worse = [f"{name} by {100 * -gain:.1f} points" for name, gain in gains.items() if points(gain) != "0.0"]
    return f" Lost, in every seed: {', '.join(worse)}." if worse else ""


def needs_no_defect(frame: pd.DataFrame, trained: Sequence[str], peer: str = WITHOUT_DEFECTS) -> str:
    """That ``peer``, which learns from normal images alone, is ahead of every detector trained on anomalies, by pixel AP or by image
    AUROC; empty where it is ahead by neither, or was not run."""
    methods, found = [peer, *trained], []
    for metric in ("pixel_ap", "image_auroc"):
        order = ranking(comparable(frame, methods, metric), methods, metric)
        values = dict(order)
        if peer in values and len(values) > 1:
            own, (best, other) = values[peer], next(pair for pair in order if pair[0] != peer)
            said = f"by {METRIC_NAMES[metric]} ({percent(own)}; {best} has {percent(other)})"
            found.append((own > other and points(own - other) != "0.0", said))
    ahead = [text for won, text in found if won]
    if not ahead:
        return ""
    behind = "".join(f" It is not {text}." for won, text in found if not won)
    few = frame[frame.method.isin(trained)].seed.nunique() < SEEDS
    said = f"PatchCore, which needs no defect at all, is ahead of every detector trained on anomalies {' and '.join(ahead)}."
    return said + behind + (f" Fewer than {SEEDS} seeds: an indication only." if few else "")


def place_among(frame: pd.DataFrame, methods: Sequence[str]) -> str:
    """Where the generated images alone stand among the sources of training images by pixel AP, in a sentence."""
    sources = [method for method in methods if method not in MIXTURES]
    order = ranking(comparable(frame, sources), sources)
    names = [method for method, _ in order]
    if OURS not in names or len(names) < 2:
        return ""
    place, values = names.index(OURS) + 1, dict(order)
    first = names[1] if place == 1 else names[0]
    gap = points(values[OURS] - values[first])
    apart = f"{gap} points {'ahead of the next' if place == 1 else 'from the first'} ({title_of(first)})"
    return f"CADiff’s images alone are number {place} of {len(names)} sources of training images by pixel AP, {apart}."
