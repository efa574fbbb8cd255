"""What the quality signals say: per image in words, per method in a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cadiff.records import ATTEMPTS, QualityRow
from cadiff.reporting.artefacts import SHOWN, Artefacts
from cadiff.reporting.comparing import ABSENT
from cadiff.reporting.tables import Cell, Row, Table

COPY = 0.5  # exemplar_distance below this: twice as near to one exemplar as exemplars usually are to each other (benchmarks/copies.py)
LEAK = 0.5  # mask_agreement below this: most of the visible change lies outside the mask
FAINT = 1.0  # normal_distance below this: no more unusual than normal images are
LIMITS = {
    "likely copy": ("exemplar_distance", COPY),
    "off its mask": ("mask_agreement", LEAK),
    "not visible": ("normal_distance", FAINT),
}
SIGNALS = ("exemplar_distance", "nearest_exemplar", "mask_agreement", "normal_distance")


def signals_of(row: QualityRow | None) -> tuple[str, ...]:
    """What speaks against an image, in the words of the page's filter."""
    if row is None:
        return ()
    found = {name: (getattr(row, signal), limit) for name, (signal, limit) in LIMITS.items()}
    return tuple(name for name, (value, limit) in found.items() if value is not None and value < limit)


def quality_table(artefacts: Artefacts, methods: Sequence[str]) -> Table:
    """Per method that has images of its own: medians of the signals, and how many images each speaks against; the
    real exemplars first, measured by the same signals."""
    rows = {method: [row for product in artefacts.params.products for row in artefacts.quality(method, product)] for method in methods}
    own = {method: [row for row in found if row.source == "generated"] for method, found in rows.items()}
    real = next((real for found in rows.values() if (real := [row for row in found if row.source == "exemplar"])), [])
    table = [_row("real exemplars", real)] if real else []
    table += [_row(method, found) for method, found in own.items() if found]
    caption = (
        "Quality signals of all images that were made. Distance to the nearest exemplar, of the masked pixels alone, wherever they lie, "
        f"mirrored and turned too: 1 is usual among exemplars, below {COPY:g} a likely copy. Change inside the mask, of all that changed "
        f"from the real normal that the image was set in (normal_id; images without one do not count): below {100 * LEAK:g}\u202f% the "
        "image changed more beside its mask. Distance to normal images, in a window around the mask: 1 is usual among normal images, "
        f"below {FAINT:g} no defect can be seen. Median, and how many images are below the limit."
    )
    if SHOWN in methods and resamples_background(artefacts):
        caption += (
            " Where the background is kept as latents (recipe.generate.blend: null), what is off a mask is the autoencoder’s error, "
            "or was drawn in the cells beside the mask (recipe.generate.dilate)."
        )
    columns = ["Images of", "Number", "To nearest exemplar", "Likely copies", "Change inside the mask", "Off their masks",
               "To normal images", "Not visible"]  # fmt: skip
    return Table(caption, columns, table, sortable=True)


def _row(name: str, rows: Sequence[QualityRow]) -> Row:
    cells = [Cell(f"{len(rows):,}", len(rows))]
    for signal, limit in LIMITS.values():
        values = [value for row in rows if (value := getattr(row, signal)) is not None]
        if not values:
            cells += [Cell(ABSENT), Cell(ABSENT)]
            continue
        median, share = float(np.median(values)), float(np.mean([value < limit for value in values]))
        counted = f"{sum(value < limit for value in values):,}" + ("" if len(values) == len(rows) else f" of {len(values):,}")
        text = f"{100 * median:.0f}\u202f%" if signal == "mask_agreement" else f"{median:.2f}"
        cells += [Cell(text, median), Cell(f"{counted} ({100 * share:.0f}\u202f%)", share)]
    return Row([name], cells)


def filter_table(frame: pd.DataFrame) -> Table:
    """What the filter left out, per method, product and type, from the rows that detection wrote (cadiff/detection/filtering.py);
    empty where no filter was on."""
    counted: dict[tuple[str, str, str], dict[str, int]] = {}
    for row in frame[frame["metric"].str.match("images_kept(_unknown)?/")].to_dict("records"):
        name, kind = row["metric"].split("/", 1)
        counts = counted.setdefault((row["method"], row["product"], kind), {"made": int(row["n"])})
        counts[name] = round(row["value"] * row["n"])
    rows = []
    for heads, counts in counted.items():
        made, kept = counts["made"], counts["images_kept"]
        shown = (made, kept, made - kept, counts["images_kept_unknown"])
        rows.append(Row([*heads], [Cell(f"{count:,}", count) for count in shown]))
    caption = (
        "What the filter left out of training, by the rules among the parameters (filter), before any detector was trained. An image "
        "whose signal is unknown stays. Augmented exemplars are not filtered, nor counted here."
    )
    columns = ["Images of", "Product", "Anomaly type", "Made", "Kept", "Left out", "Kept, a signal unknown"]
    return Table(caption, columns, rows, sortable=True)


def source_table(artefacts: Artefacts) -> Table:
    """How the masks of each generator's images came to lie where they do: images by product, type and source."""
    params, found = artefacts.params, {}
    for method in params.taking("scenes"):
        for product in params.products:
            for kind in artefacts.types(product, method):
                if sources := artefacts.mask_sources(method, product, kind):
                    found[method, product, kind] = Counter(sources)
    columns = sorted({source for counts in found.values() for source in counts})
    rows = [
        Row([*heads], [Cell(f"{counts[source]:,}" if counts[source] else ABSENT, counts[source]) for source in columns])
        for heads, counts in found.items()
    ]
    caption = (
        "Where the masks lie: how each image’s masks were placed, as masks.placement says or, where that is auto, as was found for the "
        "type from its exemplars. Number of images."
    )
    return Table(caption, ["Images of", "Product", "Anomaly type", *columns], rows, sortable=True)


def second_look_table(artefacts: Artefacts) -> Table:
    """How many of each type's images lack what their scenes asked for after the last drawing: with a generated background their masks lie
    off the product that was drawn, else they are not seen, or leave too much of their masks empty. Such images are kept, and trained on."""
    params, counts = artefacts.params, dict[tuple[str, str, str, bool], str]()
    for method in params.taking("scenes"):
        for product in params.products:
            drawn = params.for_product(product).generate.background == "generated"
            for kind in artefacts.types(product, method):
                if looked := [one for one in artefacts.attempts(method, product, kind) if one is not None]:
                    counts[method, product, kind, drawn] = f"{sum(one > ATTEMPTS for one in looked):,} of {len(looked):,}"
    of = {True: "Off the product", False: "Not seen, or mask not filled"}
    shown = [background for background in of if background in {key[-1] for key in counts}]
    rows = [
        Row([*heads], [Cell(said if background == drawn else ABSENT) for background in shown]) for (*heads, drawn), said in counts.items()
    ]
    caption = (
        f"What the second look did not find. An image that lacks what was asked for is drawn again, {ATTEMPTS} times in all; then the best "
        "is kept, and trained on as all others. On a generated background it lacks it where too much of its mask lies off the product that "
        "was drawn, on a real one where its anomaly is not seen or leaves too much of its mask empty."
    )
    return Table(caption, ["Images of", "Product", "Anomaly type", *(of[background] for background in shown)], rows, sortable=True)


def left_out(frame: pd.DataFrame, method: str = SHOWN) -> tuple[int, int] | None:
    """How many of a method's images the filter left out, of how many; None where no filter was on."""
    rows = frame[(frame["method"] == method) & (frame["metric"] == "images_kept")]
    total = int(rows["n"].sum())
    return (total - int((rows["value"] * rows["n"]).round().sum()), total) if total else None


def spoken(artefacts: Artefacts, method: str = SHOWN) -> str:
    """One sentence on a method's images, empty where they were not assessed."""
    if method not in artefacts.params.methods:
        return ""
    rows = [row for product in artefacts.params.products for row in artefacts.quality(method, product) if row.source == "generated"]
    if not rows:
        return ""
    parts = []
    for name, (signal, limit) in LIMITS.items():
        values = [value for row in rows if (value := getattr(row, signal)) is not None]
        if values:
            known = "" if len(values) == len(rows) else f" (known of {len(values):,})"
            parts.append(f"{sum(value < limit for value in values):,} {PLAIN[name]}{known}")
    return f"Of {len(rows):,} images: " + ", ".join(parts) + "." if parts else ""


def resamples_background(artefacts: Artefacts) -> bool:
    """Whether cadiff's images of some product keep a real image outside of their masks, but as latents, so not to the byte."""
    own = [artefacts.params.for_product(product) for product in artefacts.params.products]
    return any(params.generate.background == "real" and params.generate.blend is None for params in own)


PLAIN = {
    "likely copy": "taken for copies of an exemplar",
    "off its mask": "changed more beside their mask than inside it",
    "not visible": "without a defect that can be told from a normal image",
}
