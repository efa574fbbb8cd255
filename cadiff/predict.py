"""A trained detector applied to pictures on disk: ``cadiff predict``."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image

from cadiff.detection import Inspector, Prediction, load_detector
from cadiff.detection.calibration import UNCALIBRATED
from cadiff.detection.overlay import overlay
from cadiff.detection.trained import Trained
from cadiff.errors import CADiffError, UsageError
from cadiff.gathering import SUFFIXES, Read, Sources, read_ahead, together
from cadiff.params import Params
from cadiff.pictures import is_grey
from cadiff.progress import Progress
from cadiff.stages import Run
from cadiff.storage import replacing, table_writer, write_bytes, write_image

Verdict = Literal["good", "defect", "unreadable"]
REGION = pa.struct([
    ("left", pa.int32()), ("top", pa.int32()), ("width", pa.int32()), ("height", pa.int32()), ("area", pa.int64()), ("score", pa.float64()),
])  # fmt: skip
# One row a picture. Of an unreadable one only path, verdict, seconds and error are set; without a threshold the verdict is null.
# ``unlike``: of another size than all of the product's normals, or grey where those have colours, or the other way round.
PREDICTION_SCHEMA = pa.schema(
    [
        ("path", pa.string()), ("verdict", pa.string()), ("score", pa.float64()), ("threshold", pa.float64()),
        ("anomaly_type", pa.string()), ("unlike", pa.bool_()), ("regions", pa.list_(REGION)), ("anomalous_area", pa.int64()),
        ("seconds", pa.float64()), ("error", pa.string()),
    ]
)  # fmt: skip
QUALITY = 85  # of the heat maps' JPEG
LISTED = 20  # unreadable pictures that are listed at the end; the table has all


class UnreadableError(CADiffError):
    """All is done, but of some pictures (exit code 3)."""

    exit_code = 3


class DefectError(CADiffError):
    """All is done, and ``--fail-on-defect`` was asked for (exit code 4: a line that stops for a defect tells it from a failure)."""

    exit_code = 4


@dataclass(frozen=True)
class Row:
    """A row of PREDICTION_SCHEMA; ``anomalous_area`` is in px, ``unlike`` what the function of this name says."""

    path: str
    verdict: Verdict | None
    score: float | None
    threshold: float | None
    anomaly_type: str | None
    unlike: bool | None
    regions: list[dict[str, Any]]
    anomalous_area: int | None
    seconds: float
    error: str | None


@dataclass
class Summary:
    """What came of a call: how many pictures of each verdict, and how many ``unlike`` the product's normals."""

    good: int = 0
    defects: int = 0
    unjudged: int = 0
    unreadable: int = 0
    unlike: int = 0
    left_alone: int = 0
    listed: list[str] = field(default_factory=list)


def predict_pictures(
    params: Params, product: str, given: Sequence[str], out: Path, method: str | None = None, seed: int | None = None,
    verdicts: bool = False, tell: Callable[[Row], None] = lambda row: None,
) -> Summary:  # fmt: skip
    """Looks at pictures with the product's trained detector; ``tell`` is given each one's row. ``verdicts``: scores alone are of no use.

    ``given`` are files, folders (all that is below; linked folders are not followed) and glob patterns. Into ``out`` go
    ``predictions.parquet`` and ``predictions.csv`` (PREDICTION_SCHEMA), ``heat/<path>.jpg`` of each picture and ``mask/<path>.png`` of
    each defective one, <path> being that below the folder that all of the call have in common. Files are listed and read as they
    come, in memory that does not grow with their number, and none below ``out``. A picture that cannot be read is a row with its error.
    Stopped by the user, the tables have what was done.

    Raises:
        UsageError: if there is no such product, method, seed or picture, ``out`` is not a new or empty folder outside of the data set, or
            ``verdicts`` are asked of a detector without a threshold.
        CADiffError: if the product has no trained detector.
    """
    inspector = trained_detector(params, product, method, seed)
    if verdicts and inspector.trained.thresholds is None:
        raise UsageError(f"--fail-on-defect: {product} has {UNCALIBRATED}")
    check_out(out, params)
    sources = Sources(given, out)
    total = sources.count()
    summary = Summary(left_alone=sources.left_alone)
    bar = Progress(f"predict {product}", total)
    with writer(out) as write:
        try:
            for group in together(read_ahead(sources.files(), inspector.trained.levels)):
                for row in looked_at(inspector, group, sources, out, summary):
                    count(row, summary)
                    write(row)
                    tell(row)
                bar.advance(len(group))
        except KeyboardInterrupt:
            stopped = True
        else:
            stopped = False
    if stopped:
        raise KeyboardInterrupt
    return summary


def trained_detector(params: Params, product: str, method: str | None, seed: int | None) -> Inspector:
    """The product's detector of a method and seed; by default the first of ``ship.methods`` (or of those that train one), and of
    ``detector.seeds``."""
    own = params.for_product(product)
    trained = own.taking("detect")
    if not trained:
        raise UsageError(f"methods: none of {product}'s trains a detector; add one, such as exemplars to methods.synthesizers")
    chosen = method or [*own.ship.methods, *trained][0]
    if chosen not in trained:
        raise UsageError(f"--method {chosen}: expected a method that trains a detector; they are {', '.join(trained)}")
    folder = Run("detect", own, product, chosen).detector
    wanted = own.detector.seeds[0] if seed is None else seed
    if not (folder / f"seed-{wanted}.json").is_file():
        there = sorted(path.stem for path in folder.glob("seed-*.json"))
        if there:
            raise UsageError(f"--seed {wanted}: {folder} has no such detector; there are {', '.join(there)}")
        raise CADiffError(f"{folder}: {product} has no trained detector of {chosen} yet. `dvc repro` trains it (its stage detect).")
    return load_detector(folder, wanted, own.base.device)


def check_out(out: Path, params: Params) -> None:
    """An earlier call's results beside this one's would look like this one's."""
    if out.resolve().is_relative_to(Path(params.dataset.root).resolve()):
        raise UsageError(f"--out {out}: lies in the data set (dataset.root), which is only read; name another folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: expected a new or empty folder; name another, or remove it")


def looked_at(inspector: Inspector, group: list[Read], sources: Sources, out: Path, summary: Summary) -> list[Row]:
    """A row of each file; its pictures are written."""
    started = time.monotonic()
    shown = [each.pixels for each in group if each.pixels is not None]
    said = iter(predictions(inspector, shown))
    share = (time.monotonic() - started) / max(1, len(shown))
    rows = []
    for each in group:
        if each.pixels is None:
            rows.append(unreadable(each.path, each.seconds, str(each.error)))
            continue
        found = next(said)
        if isinstance(found, CADiffError):
            rows.append(unreadable(each.path, each.seconds + share, f"{each.path}: {found}"))
            continue
        try:
            write_pictures(each.pixels, found, inspector, out, sources.name(each.path))
        except OSError as error:  # of a name that is too long for the disk, the others are not to blame
            rows.append(unreadable(each.path, each.seconds + share, f"{each.path}: its heat map is not written ({error.strerror})"))
            continue
        rows.append(row_of(each.path, found, unlike(inspector.trained, each.pixels), each.seconds + share))
    return rows


def predictions(inspector: Inspector, images: list[UInt8[np.ndarray, "h w 3"]]) -> list[Prediction | CADiffError]:
    """What is said of each; where one is too small for the network, of each by itself."""
    try:
        return list(inspector.predict_all(images))
    except UsageError as error:
        if len(images) == 1:
            return [error]
        return [found for image in images for found in predictions(inspector, [image])]


def unreadable(path: str, seconds: float, error: str) -> Row:
    return Row(as_text(path), "unreadable", None, None, None, None, [], None, round(seconds, 4), as_text(error))


def as_text(name: str) -> str:
    """A name on disk may be no UTF-8, which a table must be: what is none is written as its bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def row_of(path: str, found: Prediction, odd: bool, seconds: float) -> Row:
    verdict: Verdict | None = None if found.defective is None else "defect" if found.defective else "good"
    area = None if found.defective is None else int(found.mask.sum())
    regions = [asdict(region) for region in found.regions]
    return Row(as_text(path), verdict, found.score, found.threshold, found.anomaly_type, odd, regions, area, round(seconds, 4), None)


def unlike(trained: Trained, pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a picture is narrower, wider, lower or higher than all of the product's normals, or grey where those have colours, or the
    other way round: nothing was measured on such."""
    (low, high), (flat, tall) = trained.width, trained.height
    return not (low <= pixels.shape[1] <= high and flat <= pixels.shape[0] <= tall) or trained.colour == is_grey(pixels)


def write_pictures(pixels: UInt8[np.ndarray, "h w 3"], found: Prediction, inspector: Inspector, out: Path, name: str) -> None:
    thresholds, buffer = inspector.trained.thresholds, io.BytesIO()
    shown = overlay(pixels, found.heat, found.mask, None if thresholds is None else thresholds.pixel.value)
    Image.fromarray(shown).save(buffer, format="JPEG", quality=QUALITY)
    write_bytes(out / "heat" / f"{name}.jpg", buffer.getvalue())
    if found.defective:
        write_image(out / "mask" / f"{name}.png", np.where(found.mask, 255, 0).astype(np.uint8))


def count(row: Row, summary: Summary) -> None:
    summary.unlike += bool(row.unlike)
    if row.verdict == "unreadable":
        summary.unreadable += 1
        if len(summary.listed) < LISTED:
            summary.listed.append(str(row.error))
    elif row.verdict is None:
        summary.unjudged += 1
    elif row.verdict == "defect":
        summary.defects += 1
    else:
        summary.good += 1


@contextmanager
def writer(out: Path) -> Iterator[Callable[[Row], None]]:
    """A function that appends a row to ``out/predictions.parquet`` and ``out/predictions.csv``; both appear when the block ends well."""
    waiting: list[dict[str, Any]] = []
    with (
        table_writer(out / "predictions.parquet", PREDICTION_SCHEMA) as append,
        replacing(out / "predictions.csv") as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        lines = csv.DictWriter(file, PREDICTION_SCHEMA.names)
        lines.writeheader()

        def write(row: Row) -> None:
            values = asdict(row)
            lines.writerow({**values, "regions": json.dumps(values["regions"])})
            waiting.append(values)
            if len(waiting) == 256:
                append(pa.Table.from_pylist(waiting, schema=PREDICTION_SCHEMA))
                waiting.clear()

        yield write
        append(pa.Table.from_pylist(waiting, schema=PREDICTION_SCHEMA))


def json_line(row: Row) -> str:
    return json.dumps(asdict(row))


def told(row: Row) -> str:
    """A row for a terminal."""
    if row.verdict == "unreadable":
        return f"unreadable  {row.error}"
    said = f"{row.verdict or '-':<10}  {row.path}  score {row.score:.4f}"
    if row.verdict != "defect":
        return said
    largest = row.regions[0]
    where = f"{largest['width']}x{largest['height']} px at {largest['left']}, {largest['top']}"
    others = f" and {len(row.regions) - 1} more" if len(row.regions) > 1 else ""
    return f"{said}  {row.anomaly_type or 'anomaly'}, {where}{others}"


def summary_lines(summary: Summary, out: Path) -> list[str]:
    """What came of a call, what to know about it, and the pictures that could not be read."""
    judged = f"{summary.defects} defective, {summary.good} good" if not summary.unjudged else f"{summary.unjudged} scored"
    lines = [f"{out}: {judged}, {summary.unreadable} unreadable; predictions.parquet, predictions.csv, heat/, mask/"]
    if summary.unjudged:
        lines.append(f"No verdicts: {UNCALIBRATED}.")
    if summary.unlike:
        lines.append(
            "Caution: larger or smaller than any normal picture of the product, and scaled as those are, or grey where those have colours, "
            f"or the other way round: {summary.unlike} (in the tables: unlike)."
        )
    if summary.left_alone:
        lines.append(f"Files in the folders that are no pictures ({SUFFIXES}), left alone: {summary.left_alone}.")
    if summary.unreadable:
        rest = summary.unreadable - len(summary.listed)
        lines += ["Unreadable:", *(f"  {error}" for error in summary.listed), *([f"  and {rest} more, in the table"] if rest else [])]
    return lines


def check_verdicts(summary: Summary, fail_on_defect: bool) -> None:
    """
    Raises:
        DefectError: if a picture is defective and that was asked for.
        UnreadableError: if a picture could not be read.
    """
    total = summary.good + summary.defects + summary.unjudged + summary.unreadable
    if fail_on_defect and summary.defects:
        raise DefectError(f"--fail-on-defect: defective {summary.defects} of {total}")
    if summary.unreadable:
        raise UnreadableError(f"unreadable {summary.unreadable} of {total}, listed above; all others are done")
