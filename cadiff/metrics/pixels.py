"""Ranking of pixels over exact thresholds, in bounded memory however many there are.

Every pixel becomes one 64-bit key: its score (high half, larger scores first) and what it counts for (low half: the
image group of a normal pixel, or the region of an anomalous one). Keys are sorted in runs of at most ``run`` pixels,
equal ones counted, and runs that do not fit are kept in files. Merging the runs yields the distinct scores from high
to low, and AUROC, AP, F1-max and PRO are sums over them, so that nothing is binned or sampled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Num, UInt32, UInt64
from scipy import ndimage

from cadiff.errors import CADiffError

PRO_LIMIT = 0.3
RUN = 2**23  # pixels sorted at a time: 64 MiB of keys
_EIGHT_CONNECTED = np.ones((3, 3), dtype=int)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


class Figures(NamedTuple):
    """Shares in [0, 1]; all nan where no pixel is anomalous or none is normal."""

    auroc: float
    ap: float
    f1max: float
    pro: float


class PixelRanking:
    """Takes masks and anomaly maps image by image, then gives ``overall()`` and, per anomaly type, ``of_type()``.

    Scores are compared as float32. A context manager: the two files of the runs that do not fit (12 bytes a pixel, in
    ``folder`` or the system's temporary folder, which TMPDIR names) go when it ends.

    Args:
        limit: the false positive rate up to which PRO is integrated.
        run: how many pixels are sorted at a time; memory grows with it alone.
        folder: where runs are kept.
        thresholds: F1-max is the largest of the F1 above each of these alone; none: over all thresholds.
    """

    def __init__(
        self, limit: float = PRO_LIMIT, run: int = RUN, folder: Path | None = None, thresholds: Sequence[float] = ()
    ) -> None:
        if not 0 < limit <= 1:
            raise CADiffError(f"limit: expected a false positive rate in (0, 1], found {limit}.")
        self.limit, self.run, self.thresholds = limit, run, thresholds
        self._folder = tempfile.TemporaryDirectory(prefix="cadiff-pixels-", dir=folder)
        self._types: list[str | None] = [None]  # a group is a type; group 0 the good images
        self._group_of_region, self._size_of_region = [0], [0]  # region 0 is none
        self._normal = [0]  # normal pixels of each group
        self._waiting: list[np.ndarray] = []
        self._kept: list[_StoredRun] = []
        self._result: dict[str | None, Figures] | None = None

    def __enter__(self) -> PixelRanking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.cleanup()

    def add(
        self, masks: Sequence[Bool[np.ndarray, "h w"]], maps: Sequence[Num[np.ndarray, "h w"]], types: Sequence[str | None] = ()
    ) -> None:
        """More images, each of its own shape; ``types`` are their anomaly types (None, or left out: a good image, or of no type).

        Raises:
            CADiffError: if a map is not of its mask's shape, or a score is not finite.
        """
        if len(masks) != len(maps):
            raise CADiffError(f"scores: expected one per label, a map for each of {len(masks)} masks, found {len(maps)}.")
        pairs = [(np.asarray(mask, bool), np.asarray(scores, np.float32)) for mask, scores in zip(masks, maps, strict=True)]
        for mask, scores in pairs:  # before any is taken: an error leaves the ranking as it was
            check_scores(mask, scores)
        for (mask, scores), kind in zip(pairs, types or [None] * len(pairs), strict=True):
            self._waiting.append(self._keys(mask, scores, self._group(kind)))
            if sum(map(len, self._waiting)) >= self.run:
                self._keep(self._sorted())
        self._result = None

    def overall(self) -> Figures:
        """Over all images."""
        return self._figures()[""]

    def of_type(self, anomaly_type: str) -> Figures:
        """Over the images of one type and the good ones."""
        return self._figures()[anomaly_type]

    def _group(self, kind: str | None) -> int:
        if kind not in self._types:
            self._types.append(kind)
            self._normal.append(0)
        return self._types.index(kind)

    def _keys(self, mask: Bool[np.ndarray, "h w"], scores: Num[np.ndarray, "h w"], group: int) -> np.ndarray:
        """An image's pixels as keys. Labels: 2 g for a normal pixel of group g, 2 r + 1 for region r."""
        self._normal[group] += int(mask.size - np.count_nonzero(mask))
        keys = falling_bits(scores) << _SHIFT
        if not mask.any():
            return (keys | np.uint64(2 * group)).ravel()
        labels = np.full(mask.shape, 2 * group, np.uint64)
        regions, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        labels[mask] = 2 * (regions[mask].astype(np.uint64) + np.uint64(len(self._size_of_region) - 1)) + 1
        self._size_of_region += np.bincount(regions[mask], minlength=count + 1)[1:].tolist()
        self._group_of_region += [group] * count
        return (keys | labels).ravel()

    def _sorted(self) -> _Run:
        """The waiting keys as one run; nothing waits any more."""
        keys = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.uint64)
        self._waiting = []
        keys.sort()
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.zeros(0, int)
        return _Run(keys[first], np.diff(np.append(first, len(keys))).astype(np.uint32))

    def _keep(self, run: _Run) -> None:
        folder, offset = Path(self._folder.name), sum(kept.length for kept in self._kept)
        self._kept.append(_StoredRun((folder / "keys", folder / "counts"), offset, run, max(1, self.run // 2**13)))

    def _figures(self) -> dict[str | None, Figures]:
        if self._result is None:
            last = self._sorted()
            self._waiting = [np.repeat(last.keys, last.counts)]  # more images may come
            groups, sizes = np.array(self._group_of_region), np.array(self._size_of_region)
            curves = {"": _Curve(sizes, sum(self._normal), self.limit, self.thresholds)}
            for index, kind in enumerate(self._types[1:], start=1):
                own = np.where((groups == index) | (groups == 0), sizes, 0)
                curves[str(kind)] = _Curve(own, self._normal[0] + self._normal[index], self.limit, self.thresholds)
            for keys, counts in merged([*self._kept, last], self.run // 4):
                self._feed(curves, keys, counts, groups)
            self._result = {kind: curve.figures() for kind, curve in curves.items()}
        return self._result

    def _feed(self, curves: dict[str, _Curve], keys: np.ndarray, counts: np.ndarray, groups: np.ndarray) -> None:
        labels = (keys & _LOW).astype(np.int64)
        scores = keys >> _SHIFT
        starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
        anomalous = labels % 2 == 1
        regions = np.where(anomalous, labels // 2, 0)
        group = np.where(anomalous, groups[regions], labels // 2)
        for index, curve in enumerate(curves.values()):
            chosen = counts if index == 0 else np.where((group == index) | (group == 0), counts, 0)
            curve.feed(chosen, anomalous, regions, starts, scores[starts])


class _Run(NamedTuple):
    """Distinct keys, rising, and how often each comes."""

    keys: UInt64[np.ndarray, " n"]
    counts: UInt32[np.ndarray, " n"]

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        return self.keys[begin:end], self.counts[begin:end]

    def sample(self, every: int) -> UInt64[np.ndarray, " m"]:
        return self.keys[::every]

    def find(self, cuts: UInt64[np.ndarray, " m"]) -> list[int]:
        """For each cut the number of keys below it; then the number of keys."""
        return [*self.keys.searchsorted(cuts).tolist(), len(self.keys)]


class _StoredRun:
    """A run in two files that it shares with others; of every ``stride``-th key a copy stays in memory.

    Files are read, not memory-mapped: mapped pages would count as memory.
    """

    def __init__(self, files: tuple[Path, Path], offset: int, run: _Run, stride: int) -> None:
        self.files, self.offset, self.length = files, offset, len(run.keys)
        self.stride, self.samples = stride, run.keys[::stride].copy()
        for path, values in zip(files, run, strict=True):
            with path.open("ab") as file:
                values.tofile(file)

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        return self._read(0, np.uint64, begin, end), self._read(1, np.uint32, begin, end)

    def sample(self, every: int) -> UInt64[np.ndarray, " m"]:
        return self.samples[:: max(1, every // self.stride)]

    def find(self, cuts: UInt64[np.ndarray, " m"]) -> list[int]:
        """For each cut the number of keys below it; then the number of keys."""
        found = []
        for cut, block in zip(cuts, self.samples.searchsorted(cuts), strict=True):
            begin = max(0, int(block) - 1) * self.stride
            near = self._read(0, np.uint64, begin, min(begin + self.stride, self.length))
            found.append(begin + int(near.searchsorted(cut)))
        return [*found, self.length]

    def _read(self, file: int, kind: type, begin: int, end: int) -> np.ndarray:
        return np.fromfile(self.files[file], kind, end - begin, offset=(self.offset + begin) * np.dtype(kind).itemsize)


class _Curve:
    """Figures as sums over the distinct scores, fed from the highest on."""

    def __init__(self, sizes: np.ndarray, normal: int, limit: float, thresholds: Sequence[float] = ()) -> None:
        self.positive, self.normal, self.limit = int(sizes.sum()), normal, limit
        # What each pixel of a region adds to the mean overlap: 1 / (regions * the region's pixels).
        self.share = np.where(sizes > 0, 1.0 / (max(1, np.count_nonzero(sizes)) * np.maximum(sizes, 1)), 0.0)
        self.hits = self.false = 0  # counts so far
        self.overlap = 0.0
        self.auroc = self.ap = self.f1max = self.pro = 0.0
        self.thresholds = falling_bits(np.array([_below(value) for value in thresholds], np.float32))
        self.above = np.zeros((2, len(thresholds)), np.int64)  # hits and false alarms above each

    def feed(
        self, counts: np.ndarray, anomalous: np.ndarray, regions: np.ndarray, starts: np.ndarray, scores: UInt64[np.ndarray, " n"]
    ) -> None:
        """Adds the pixels whose distinct scores (``falling_bits``) begin at ``starts``."""
        found = np.add.reduceat(np.where(anomalous, counts, 0).astype(np.int64), starts)
        missed = np.add.reduceat(np.where(anomalous, 0, counts).astype(np.int64), starts)
        overlap = np.add.reduceat(counts * self.share[regions], starts)
        hits, false = self.hits + np.cumsum(found), self.false + np.cumsum(missed)
        if self.positive and self.normal:
            self.auroc += float(np.sum(missed * (hits - found / 2.0))) / self.positive / self.normal
            called = np.maximum(hits + false, 1)
            self.ap += float(np.sum(found * (hits / called))) / self.positive
            if len(self.thresholds):
                passed = scores.searchsorted(self.thresholds)  # scores above each, of these
                self.above[:, passed > 0] = np.stack([hits, false])[:, passed[passed > 0] - 1]
            else:
                self.f1max = max(self.f1max, float(np.max(2 * hits / (hits + false + self.positive))))
            self._integrate(false / self.normal, self.overlap + np.cumsum(overlap))
        self.hits, self.false, self.overlap = int(hits[-1]), int(false[-1]), self.overlap + float(overlap.sum())

    def _integrate(self, x: np.ndarray, y: np.ndarray) -> None:
        """Adds the trapezoids from the point reached so far on, cut off at ``limit``."""
        x0, y0 = np.append(self.false / self.normal, x[:-1]), np.append(self.overlap, y[:-1])
        inside = (x0 < self.limit) & (x > x0)
        x0, y0, x, y = x0[inside], y0[inside], x[inside], y[inside]
        end = np.minimum(x, self.limit)
        y_end = y0 + (y - y0) * (end - x0) / (x - x0)
        self.pro += float(np.sum((end - x0) * (y0 + y_end) / 2)) / self.limit

    def figures(self) -> Figures:
        if not (self.positive and self.normal):
            return Figures(*[float("nan")] * 4)
        hits, false = self.above
        largest = float(np.max(2 * hits / (hits + false + self.positive))) if len(self.thresholds) else self.f1max
        return Figures(self.auroc, self.ap, largest, self.pro)


def pro(
    masks: Sequence[Bool[np.ndarray, "h w"]], maps: Sequence[Num[np.ndarray, "h w"]], limit: float = PRO_LIMIT
) -> float:
    """Per-region overlap, integrated over the false positive rate up to ``limit`` and divided by it.

    Regions are the 8-connected components of each mask and weigh the same whatever their size; the false positive
    rate is over all normal pixels of all images. The curve starts at (0, 0), its points are the distinct scores, and
    it is linear between them, as in Bergmann et al., "The MVTec Anomaly Detection Dataset" (IJCV 2021), 5.2.

    Returns:
        A share in [0, 1]; nan where no pixel is anomalous or none is normal.

    Raises:
        CADiffError: if the shapes differ, a score is not finite, or the limit is not in (0, 1].
    """
    with PixelRanking(limit) as ranking:
        ranking.add(masks, maps)
        return ranking.overall().pro


def check_scores(labels: np.ndarray, scores: np.ndarray) -> None:
    """Raises CADiffError where scores are not one finite number per label."""
    if labels.shape != scores.shape:
        raise CADiffError(f"scores: expected one per label, {labels.shape}, found {scores.shape}.")
    if not np.isfinite(scores).all():
        count = np.count_nonzero(~np.isfinite(scores))
        raise CADiffError(f"scores: expected finite numbers, {count} are not; did training diverge?")


def falling_bits(scores: Num[np.ndarray, "*n"]) -> UInt64[np.ndarray, "*n"]:
    """float32 scores as unsigned integers (in 64 bits) that fall where the scores rise; equal where they are equal."""
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.uint32)  # + 0 makes -0 equal to 0
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (~rising).astype(np.uint64)


def _below(value: float) -> np.float32:
    """The largest float32 that is not above a number: a float32 is above the one where it is above the other."""
    near = np.float32(value)
    return near if float(near) <= value else np.nextafter(near, np.float32(-np.inf))


def merged(runs: Sequence[_Run | _StoredRun], size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All runs' keys and counts in order, about ``size`` at a time; no score is split between two parts."""
    cuts = _cuts(runs, size)
    ends = [[0, *run.find(cuts)] for run in runs]
    for part in range(len(cuts) + 1):
        pieces = [run.read(end[part], end[part + 1]) for run, end in zip(runs, ends, strict=True)]
        keys, counts = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        if len(keys) == 0:
            continue
        if counts.max() == 1:  # then the keys say it all, and sorting them is many times faster than their order
            yield np.sort(keys), counts
        else:
            order = np.argsort(keys, kind="stable")
            yield keys[order], counts[order]


def _cuts(runs: Sequence[_Run | _StoredRun], size: int) -> UInt64[np.ndarray, " n"]:
    """Keys to cut all runs at, each the first of its score, between which lie at most about ``size`` keys.

    Of each run every s-th key is taken, s = size / 4 runs; between 2 * runs of these in a row lie at most
    3 * runs * s keys.
    """
    every = max(1, size // (4 * len(runs)))
    samples = np.sort(np.concatenate([run.sample(every) for run in runs]))
    return np.unique(samples[:: 2 * len(runs)] >> _SHIFT) << _SHIFT
