"""The model card: what a detector is, what was measured, what it is for and what not."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import cadiff
from cadiff.params import EXEMPLARS, parts_of
from cadiff.records import MetricRow, Role, SampleRow
from cadiff.storage import digest
from cadiff.threshold_words import INSTALL, NO_VERDICTS, percent, threshold_said

ROLES: dict[Role, str] = {
    "normal": "good, trained on", "calibration": "good, set the threshold", "exemplar": "defective, anomalies were made from them",
    "held_out": "defective, held out: measured on", "test_good": "good, held out: measured on",
}  # fmt: skip
REFITTED: dict[Role, str] = {
    "held_out": "defective, held out from the evaluated detector; this one was trained on them",
    "test_good": "good, held out from the evaluated detector; this one was trained on them",
}
FIGURES = {
    "image_auroc": "image AUROC", "image_ap": "image AP", "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP",
    "pixel_ap_types": "pixel AP, mean of the types", "pro": "PRO", "classification_accuracy": "type named right",
    "false_alarm_rate": "good pictures called defective", "miss_rate": "defective pictures called good",
}  # fmt: skip
MISSES = "miss_rate/"


def model_card(said: dict[str, Any], samples: Sequence[SampleRow], metrics: Sequence[MetricRow], megabytes: float) -> str:
    """Markdown. ``said`` is the folder's ``detector.json``, ``samples`` are the product's, ``metrics`` the evaluated detectors' of all
    seeds, ``megabytes`` the size of the graphs."""
    parts = [
        heading(said, megabytes), how_to_run(said), threshold(said), figures(said, metrics), misses(said, metrics), data(said, samples),
        use_and_limits(said),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(said: dict[str, Any], megabytes: float) -> str:
    text = f"""# Detector of defects on {said["product"]}

Made with CADiff {cadiff.__version__}: network {said["network"]}, trained on the pictures of the method `{said["method"]}`, seed \
{said["seed"]}. {megabytes:.1f} MB; it needs no other file than those of this folder."""
    if said["refitted"]:
        beside = "" if EXEMPLARS in parts_of(said["method"]) else " and without augmented exemplars beside its own pictures"
        text += f"""

**Trained once more on all labelled pictures** after it had been measured. So nothing is left to measure it on: the figures below are
those of the evaluated detector, which was trained in the same way without the held-out pictures{beside}.
The threshold is this one's own."""
    return text


def how_to_run(said: dict[str, Any]) -> str:
    return f"""## How to run it

```
{INSTALL}
python run.py PICTURE...
python run.py --json --heat MAPS PICTURE...
```

One line a picture: its path, the verdict (`good`, `defect` or `unreadable`; none where there is no threshold), the score, the threshold,
the type of defect, and whether the picture is unlike those of training: of another size than all of them, or grey where those have
colours, or the other way round. `--heat MAPS` writes each picture's map of anomaly. Exit status: 0; 4 with `--fail-on-defect` if there
was a defect; 2 if a file of this folder is not as shipped; else 3 if a picture could not be read.

`detector.json` says how pictures are resized, cut into tiles and scored, for those who write their own program; `sha256` in it are the
digests of the other files, `self` that of its own JSON without `self`, keys sorted (Python: `json.dumps(rest, sort_keys=True)`).
OpenVINO reads `detector.onnx` as it is; compile it with `{{"INFERENCE_PRECISION_HINT": "f32"}}`, or a processor that has bfloat16
rounds, and a score near the threshold gets another verdict."""


def threshold(said: dict[str, Any]) -> str:
    if said["image"] is None:
        return f"## The threshold\n\n{NO_VERDICTS}: no good pictures were kept apart to set a threshold (`dataset.calibration`)."
    return f"## The threshold\n\n{threshold_said(said)}"


def figures(said: dict[str, Any], metrics: Sequence[MetricRow]) -> str:
    protocols = ", ".join(sorted({row.protocol for row in metrics}))
    seeds = len({row.seed for row in metrics})
    of_seeds = f"{seeds} seed{'s' if seeds > 1 else ''}"
    of = "the evaluated detector" if said["refitted"] else "this detector"
    intro = f"On held-out pictures (protocol: {protocols}): the mean of {of_seeds}, and {of} (seed {said['seed']})."
    rows = [row_of(metrics, name, said["seed"], title) for name, title in FIGURES.items()]
    if any(row.approximate for row in metrics):
        intro += " Figures by pixel rest on masks that stem from boxes, and so are approximate."
    return f"## Figures\n\n{intro}\n\n" + table(["figure", "mean", f"seed {said['seed']}", "pictures"], rows)


def misses(said: dict[str, Any], metrics: Sequence[MetricRow]) -> str:
    """Where it is blind, by type; nothing where there is no threshold."""
    names = sorted({row.metric for row in metrics if row.metric.startswith(MISSES)})
    if not names:
        return ""
    rows = [row_of(metrics, name, said["seed"], name.removeprefix(MISSES)) for name in names]
    return "### Defective pictures called good, by type\n\n" + table(["type", "mean", f"seed {said['seed']}", "pictures"], rows)


def row_of(metrics: Sequence[MetricRow], name: str, seed: int, title: str) -> list[str]:
    """A row of a table; empty where the figure was not measured."""
    found = {row.seed: row for row in metrics if row.metric == name}
    if not found:
        return []
    own = percent(found[seed].value) if seed in found else "-"
    return [title, percent(mean(row.value for row in found.values())), own, str(next(iter(found.values())).n)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; rows that are empty are left out."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *filter(None, rows)))


def data(said: dict[str, Any], samples: Sequence[SampleRow]) -> str:
    """How many pictures of each kind, and a digest of their bytes."""
    rows = []
    for role, title in {**ROLES, **(REFITTED if said["refitted"] else {})}.items():
        if own := sorted(row.image_sha256 for row in samples if row.role == role):
            rows.append([title, str(len(own)), f"`{digest(own)}`"])
    kinds = ", ".join(sorted({row.anomaly_type for row in samples if row.anomaly_type}))
    return f"""## Data

Data set `{samples[0].dataset}`, product `{said["product"]}`.

{table(["pictures", "number", "digest"], rows)}

A digest is of the sorted SHA-256 of the files. Types of defects: {kinds}. Digest of what the training pictures were generated with:
`{said["made_by"]}`."""


def use_and_limits(said: dict[str, Any]) -> str:
    wide, high = (span(said["normals"][side]) for side in ("width", "height"))
    named = "It names the type of a defect, which may be wrong; " if said["classes"] else "It does not name types of defects; "
    return f"""## Intended use

Pointing out {said["product"]} pictures that somebody should look at. The pictures come from the same camera, light and pose as those above.

## Limits

- It was trained on pictures {wide} px wide and {high} px high. Others are resized alike and called unlike; nothing was measured on them.
- Of a type of defect that is not named above nothing is known.
- The promise on false alarms ends where light, camera or product change. Then set the threshold anew with good pictures of that kind.
- {named}a score is no probability that a picture is defective.
- A defect that it misses is called good. Where that harms somebody, it must not be the only check."""


def span(limits: Sequence[int]) -> str:
    return " to ".join(map(str, sorted(set(limits))))
