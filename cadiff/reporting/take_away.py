"""The detectors that were made ready to be taken away: what their thresholds promise, what they call wrong, how to run them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cadiff.params import Params
from cadiff.records import Role
from cadiff.reporting.artefacts import Artefacts, shipped_folder
from cadiff.reporting.comparing import ABSENT
from cadiff.reporting.gallery import Picture, real_picture
from cadiff.reporting.maps import AnomalyMap, map_of
from cadiff.reporting.tables import Cell, Row, Table, named
from cadiff.storage import SEAL
from cadiff.threshold_words import INSTALL, NO_VERDICTS, asked, percent, threshold_said
from cadiff.thresholds import conformal

SHOWN = 3  # pictures of each way to be wrong
CHOICES = (0.01, 0.02, 0.05, 0.1, 0.2)  # shares of false alarms that one may ask for


@dataclass(frozen=True)
class Wrong:
    """A held-out picture that was called wrong, and what the detector saw."""

    picture: Picture
    map: AnomalyMap
    caption: str


@dataclass(frozen=True)
class Wrongs:
    """The worst of one way to be wrong, and in words how many there are."""

    title: str
    said: str
    shown: list[Wrong]


@dataclass(frozen=True)
class Shipped:
    """A product's detector in its folder: ``name`` is its method's, ``pace`` how long a picture takes, empty where that is not known,
    ``python`` is a program of three lines."""

    name: str
    seed: int
    folder: str
    size: str
    pace: str
    timed: str
    threshold: str
    commands: list[tuple[str, str]]
    python: str
    wrongs: list[Wrongs]
    choices: Table


def shipped(artefacts: Artefacts, product: str) -> list[Shipped]:
    """The product's detectors of ``ship.methods``; an absent one is left out where a part is enough."""
    found = []
    for method in artefacts.params.ship.methods:
        if (said := artefacts.shipped(method, product)) is None:
            continue
        folder, pace = shipped_folder(method, product), artefacts.pace(method, product, said[SEAL])
        found.append(
            Shipped(
                named(method), said["seed"], folder, size(artefacts.root / folder), *paced(pace), promise(artefacts.params, said),
                commands(artefacts.params, method, product, folder),
                f'import cadiff\ndetector = cadiff.load_detector("data/made/detectors/{method}/{product}/seed-{said["seed"]}.json")\n'
                'print(detector.predict("PICTURE"))',
                wrongs(artefacts, method, product, said), choices_table(artefacts, method, product, said),
            )
        )  # fmt: skip
    return found


def summary_lines(artefacts: Artefacts, out: Path) -> list[str]:
    """A line of Markdown for each detector: its folder, and what its threshold promises."""
    lines = []
    for product in artefacts.params.products:
        for method in artefacts.params.ship.methods:
            if said := artefacts.shipped(method, product):
                folder = artefacts.root / shipped_folder(method, product)
                pace, _ = paced(artefacts.pace(method, product, said[SEAL]))
                costs = f"{size(folder)}, {pace}" if pace else size(folder)
                lines.append(f"- [{product}, {method}]({link(folder, out)}) ({costs}): {promise(artefacts.params, said)}")
    return lines


def paced(pace: tuple[float, int] | None) -> tuple[str, str]:
    """How long a picture takes (``Artefacts.pace``), and how that was timed; both empty where it was not."""
    if pace is None:
        return "", ""
    seconds, count = pace
    milliseconds = f"{1000 * seconds:,.{0 if seconds >= 0.01 else 1}f} ms"
    of = f"the median of {count} calibration normals" if count > 1 else "one calibration normal"
    return f"{milliseconds} a picture on one thread", (
        f"Its run.py takes {milliseconds} a picture: {of}, on one thread of the machine that made it ready, from the file to the verdict."
    )


def promise(params: Params, said: dict[str, Any]) -> str:
    """At which score a detector stops the line, what that promises and what would promise more; ``said`` is its detector.json."""
    if said["image"] is None:
        return f"{NO_VERDICTS}: {uncalibrated(params)}"
    more = " Give more train normals, or a larger share of them (dataset.calibration)." if said["image"]["missing"] else ""
    return threshold_said(said) + more


def uncalibrated(params: Params) -> str:
    """Why there is no threshold, and what to set."""
    if params.dataset.calibration == 0:
        return (
            "dataset.calibration is 0, so no good pictures are left to set a threshold on. Set it, to 0.2 for example, the share of the "
            "train normals that nothing is trained on, and run dvc repro."
        )
    return "there are too few train normals to leave one out of training; three at least are needed."


def commands(params: Params, method: str, product: str, folder: str) -> list[tuple[str, str]]:
    """What to type, and what it does. The first of ``ship.methods`` need not be named."""
    which = "" if method == params.ship.methods[0] else f" --method {method}"
    return [
        (f"cadiff predict {product} FOLDER --out DIR{which}",
         "for each picture of a folder a verdict, score, type, regions and heat map, whether it is unlike those of training, and how many "
         "seconds it took"),
        (f"cadiff ship {product} --out DIR{which}",
         "the same detector in a folder of your choice; with --refit trained on all labelled pictures"),
        (f"python {folder}/run.py PICTURE", f"without this package, wherever the folder is copied to: {INSTALL}"),
    ]  # fmt: skip


def wrongs(artefacts: Artefacts, method: str, product: str, said: dict[str, Any]) -> list[Wrongs]:
    """Held-out anomalies that score at the threshold or below, and good test pictures that score above it, the worst of each, and the
    calibration normals that set the threshold; nothing without a threshold."""
    if said["image"] is None:
        return []
    limit, seed = said["image"]["value"], said["seed"]
    samples = {row.sample_id: row for row in artefacts.samples(product)}
    anomalies, good, setting = (by_role(artefacts, method, product, seed)[role] for role in ("held_out", "test_good", "calibration"))
    missed = sorted((name for name, score in anomalies.items() if score <= limit), key=lambda name: (anomalies[name], name))
    alarms = sorted((name for name, score in good.items() if score > limit), key=lambda name: (-good[name], name))
    misses, others = of_each_type(missed, {name: row.anomaly_type for name, row in samples.items()}), alarms[:SHOWN]
    highest = sorted(setting, key=lambda name: (-setting[name], name))[:SHOWN]
    wanted = misses + others + highest
    shown = {wrong.picture.row["sample_id"]: wrong for wrong in _shown(artefacts, method, product, seed, wanted)}
    of_misses = _counted("held-out anomalies", "let pass", missed, len(anomalies), "lowest scores, of each type in turn")
    of_alarms = _counted("good test pictures", "called defective", alarms, len(good), "highest scores")
    return [
        Wrongs("Worst misses", of_misses, [shown[name] for name in misses if name in shown]),
        Wrongs("Worst false alarms", of_alarms, [shown[name] for name in others if name in shown]),
        Wrongs("Which good pictures set the threshold", _set_by(len(setting)), [shown[name] for name in highest if name in shown]),
    ]


def by_role(artefacts: Artefacts, method: str, product: str, seed: int) -> dict[Role, dict[str, float]]:
    """{sample_id: score} of held-out anomalies, good test pictures and calibration normals."""
    scores = artefacts.image_scores(method, product, seed)
    found: dict[Role, dict[str, float]] = {"held_out": {}, "test_good": {}, "calibration": {}}
    for row in artefacts.samples(product):
        if row.sample_id in scores and row.role in found:
            found[row.role][row.sample_id] = scores[row.sample_id]
    return found


def _set_by(count: int) -> str:
    if not count:
        return "Their scores were not kept: run the stage detect again."
    return (
        f"Of {count:,} calibration normals these score highest. One that is no good picture does not belong among the train normals; if it "
        "is good, more like it among them teach the detector so."
    )


def choices_table(artefacts: Artefacts, method: str, product: str, said: dict[str, Any]) -> Table:
    """What other shares of false alarms would give on the held-out pictures, by the calibration normals alone; no rows where nothing was
    calibrated, and none of a share that so few normals cannot promise but the one that was asked for."""
    found = by_role(artefacts, method, product, said["seed"])
    anomalies, good, setting = (np.array(list(found[role].values())) for role in ("held_out", "test_good", "calibration"))
    rows = []
    for share in sorted({*CHOICES, said["false_alarms"]}) if len(setting) else ():
        limit, own = conformal(setting, share), share == said["false_alarms"]
        if own or not limit.missing:
            shares = [share, limit.promised, *(float(np.mean(wrong)) if len(wrong) else None
                                               for wrong in (good > limit.value, anomalies <= limit.value))]  # fmt: skip
            cells = [Cell(f"{limit.value:.6g}", limit.value), *(Cell(ABSENT) if v is None else Cell(percent(v), v) for v in shares[1:])]
            rows.append(Row([asked(share)], cells, here=own))
    caption = (
        f"{product}, {named(method)}: if another share of false alarms were asked for (detector.false_alarms), the threshold that the "
        f"calibration normals alone set, what they promise, and what would come of it on {len(good):,} good test pictures and "
        f"{len(anomalies):,} held-out anomalies. Shaded: what is asked for."
    )
    return Table(caption, ["Asked for", "Threshold", "Promised at most", "False alarms", "Misses"], rows, sortable=True)


def of_each_type(names: Sequence[str], types: Mapping[str, str | None]) -> list[str]:
    """``SHOWN`` names in their order, but the first of every type before the second of any: one part photographed again and again would
    fill the row."""
    seen: Counter[str | None] = Counter()
    turns = []
    for place, name in enumerate(names):
        turns.append((seen[types[name]], place, name))
        seen[types[name]] += 1
    return [name for _, _, name in sorted(turns)[:SHOWN]]


def _counted(what: str, how: str, found: list[str], total: int, first: str) -> str:
    if not total:
        return f"No {what} were scored."
    if not found:
        return f"None of {total:,} {what} is {how}."
    shown = f"; shown are {SHOWN} with the {first}" if len(found) > SHOWN else ""
    return f"{len(found):,} of {total:,} {what} {'is' if len(found) == 1 else 'are'} {how}{shown}."


def _shown(artefacts: Artefacts, method: str, product: str, seed: int, names: list[str]) -> Iterable[Wrong]:
    """Each of these with its picture and the detector's map; one whose picture is absent is left out."""
    samples = {row.sample_id: row for row in artefacts.samples(product)}
    for row in artefacts.scored(method, product, set(names), seed):
        sample = samples[row.sample_id]
        if picture := real_picture(artefacts, sample):
            kind = sample.anomaly_type or "good"
            yield Wrong(picture, map_of(artefacts, row, sample, picture), f"{kind}, score {row.image_score:.4g}")


def link(folder: Path, out: Path) -> str:
    """The way from a page in ``out`` to a folder."""
    return Path(os.path.relpath(folder.resolve(), Path(out).resolve())).as_posix()


def size(folder: Path) -> str:
    """All of a folder's files together."""
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB"
