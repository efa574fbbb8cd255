"""Anomaly maps that another detector wrote, as a detector."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cadiff.decoding import decode_grey
from cadiff.detection.measuring import Scores, image_scores, resized
from cadiff.detection.tiles import View
from cadiff.errors import CADiffError, UsageError
from cadiff.opening import read_file
from cadiff.params import Params
from cadiff.records import SampleRow
from cadiff.storage import digest, sha256_file
from cadiff.visible import visible

SUFFIXES = (".npy", ".tiff", ".tif", ".png")
VARIANT = "maps"


@dataclass(frozen=True)
class MapFolder:
    """Maps by their sample's name, brought to the detector's scale; an image's score is the maximum after average pooling, as of
    the U-Net. ``black`` is subtracted before: pooling puts zeros beyond the border, which must not be more than any score."""

    files: dict[str, Path]
    view: View
    pooling: int
    black: float
    white: float
    made: str
    variant: str = VARIANT

    def score(self, rows: Sequence[SampleRow]) -> Scores:
        maps = [resized(read_map(self.files[row.sample_id]), self.view.shape(row)) for row in rows]
        above = [map_.astype(np.float64) - self.black for map_ in maps]  # in float32 one far value below would make all others equal
        return Scores(maps, image_scores(above, self.pooling))


def open_maps(params: Params, rows: Sequence[SampleRow], folder: Path) -> MapFolder:
    """The maps of all rows: ``folder/PRODUCT/test/TYPE/NAME`` with one of the suffixes .npy, .tiff, .tif, .png, where
    ``TYPE`` is ``good`` for normal images. Maps of other images are left alone: a detector that was run on the whole
    test set has them for exemplars too.

    Raises:
        UsageError: names the first row that has no map, or two.
        CADiffError: if a file is no map.
    """
    there: dict[Path, dict[str, list[Path]]] = {}
    files = {row.sample_id: _find(folder, row, there) for row in rows}
    spans = [(float(values.min()), float(values.max())) for values in map(read_map, files.values())]
    black = min(0.0, *(low for low, _ in spans))
    white = max(high for _, high in spans)
    made = digest(sorted((name, sha256_file(path)) for name, path in files.items()))
    return MapFolder(files, View.of(params), params.detector.pooling, black, white if white > black else black + 1.0, made)


def _find(folder: Path, row: SampleRow, there: dict[Path, dict[str, list[Path]]]) -> Path:
    """The row's map; ``there`` keeps the maps of each folder by name without suffix."""
    place = (folder / row.sample_id).parent
    if place not in there:
        maps = [path for path in visible(place) if path.suffix.lower() in SUFFIXES]
        for path in maps:
            there.setdefault(place, {}).setdefault(path.stem, []).append(path)
    found = there.get(place, {}).get((folder / row.sample_id).name, [])
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UsageError(
            f"{folder / row.sample_id}: expected one anomaly map of {row.image_path} here ({', '.join(SUFFIXES)}), found {names}."
        )
    return found[0]


def read_map(path: Path) -> Float[np.ndarray, "h w"]:
    """One anomaly map as it is: higher is more anomalous, in any unit.

    Raises:
        CADiffError: if the file is no two-dimensional array of finite numbers.
    """
    try:
        data = read_file(path, "an anomaly map")
        values = np.load(io.BytesIO(data), allow_pickle=False) if path.suffix.lower() == ".npy" else decode_grey(data, str(path))
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, MemoryError) as error:  # of an .npy's header
        raise CADiffError(f"{path}: expected an anomaly map, but it does not open ({error}).") from None
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.size or not np.isfinite(values).all():
        raise CADiffError(f"{path}: expected a map of finite numbers (h w), found {values.dtype} {values.shape}.")
    return values.astype(np.float32)
