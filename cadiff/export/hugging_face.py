"""A folder that Hugging Face ``datasets`` loads and its hub shows: ``data/<type>.parquet`` and the card, ``README.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cadiff.export.items import Items, kind_of
from cadiff.names import GOOD
from cadiff.params import as_written
from cadiff.records import GENERATED_SCHEMA, GeneratedRow
from cadiff.storage import read_batches, table_writer, write_text

COLUMNS = {
    "sample_id": "a name for the row",
    "product": "what is shown",
    "anomaly_types": "the anomalies in the image; none for a normal image that took the generator's path",
    "image": "the picture (PNG)",
    "mask": "255 where it is anomalous, or where a normal one was drawn anew, 0 elsewhere (PNG)",
    "mask_source": "where the mask comes from; `redrawn`: of a normal image in which a place was drawn anew",
    "prompt": "what the generator was asked for",
    "intensity": "w of the anomaly; null where there are several, or none",
    "seed": "of the noise",
    "steps": "denoising steps",
    "guidance_scale": "of classifier-free guidance",
    "focus_step": "the denoising step at which re-weighting began",
    "normal_id": "the real normal picture that is left outside of the mask",
    "exemplar_ids": "the real anomaly that each type's mask was taken from",
    "base_digest": "of the base's weights",
    "generator_digest": "of the generator's weights",
    "params_digest": "of the parameters",
    "image_sha256": "of the picture's bytes",
    "attempts": "the drawing that had what was asked for; one more than there are: none had, the best is kept",
    "approximate": "whether the mask has the shape of a real one that stems from a box, and so is not exact",
}


def write(items: Items, product: str, out: Path) -> None:
    """The shards, written anew so that those of an older version tell ``datasets`` of their images too."""
    for path in items.shards:
        with table_writer(out / "data" / path.name, GENERATED_SCHEMA) as write_batch:
            for batch in read_batches(path, GENERATED_SCHEMA):
                write_batch(batch.cast(GENERATED_SCHEMA))
    write_text(out / "README.md", _card(product, (item.row for item in items)))


def _card(product: str, rows: Iterable[GeneratedRow]) -> str:
    """What the images are, how many of each type, how they were made and what each column says."""
    counts: Counter[str] = Counter()
    made, approximate = set(), 0
    for row in rows:
        counts[kind_of(row.anomaly_types) or GOOD] += 1
        approximate += bool(row.anomaly_types) and row.approximate
        made.add((row.generator_digest or "none", row.base_digest or "none", row.params_digest or "none"))
    head = {
        "pretty_name": f"{product}: generated anomalies", "task_categories": ["image-segmentation", "image-classification"],
        "tags": ["anomaly-detection", "synthetic"], "configs": [{"config_name": "default", "data_files": "data/*.parquet"}],
    }  # fmt: skip
    lines = ["---", *as_written(head), "---", "", f"# {_plain(product)}: generated anomalies", ""]
    lines += [
        "None of these images was photographed as it is: CADiff drew an anomaly into each real picture, with its mask. Outside of the mask "
        "they are the pictures that they were made from, whose licence holds for them too: state it in this card before you publish them.",
        "",
        "They are for training. Measure on real pictures that no generator has seen.",
        *_approximate_said(approximate, counts.total() - counts[GOOD]),
        "", "| type | images |", "| --- | ---: |", *(f"| {_plain(kind)} | {count} |" for kind, count in sorted(counts.items())),
        "", "```python", "from datasets import load_dataset", "",
        'row = load_dataset("THIS/FOLDER", split="train")[0]  # row["image"] and row["mask"] are PIL images', "```",
        "", "| column | meaning |", "| --- | --- |", *(f"| {name} | {meaning} |" for name, meaning in COLUMNS.items()),
        "", "| generator | base | parameters |", "| --- | --- | --- |", *(f"| {' | '.join(digests)} |" for digests in sorted(made)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _approximate_said(approximate: int, anomalies: int) -> list[str]:
    if not approximate:
        return []
    return ["", f"The masks of {approximate} of the {anomalies} anomalies are approximate (`approximate`): their shapes stem from boxes."]


def _plain(name: str) -> str:
    """A name as text of a table's cell: what Markdown or HTML would read in it is escaped."""
    return "".join(f"&#{ord(sign)};" if sign in "|`*_<>&[]\\#" or not sign.isprintable() else sign for sign in name)
