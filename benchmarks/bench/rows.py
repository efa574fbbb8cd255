"""A measured figure, how it is taken, and how figures are told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

Rate = Callable[[], float]
BENCH_SCHEMA = pa.schema(
    [
        ("part", pa.string()), ("what", pa.string()), ("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
        ("unit", pa.string()), ("repeats", pa.int32()), ("note", pa.string()),
    ]
)  # fmt: skip
RATIO = "x"


@dataclass(frozen=True)
class Row:
    """The median of ``repeats`` measurements, the least and the largest of them. ``note``: what a reader would else misread."""

    part: str
    what: str
    value: float
    low: float
    high: float
    unit: str
    repeats: int
    note: str = ""


def row(part: str, what: str, values: Sequence[float], unit: str, note: str = "") -> Row:
    return Row(part, what, statistics.median(values), min(values), max(values), unit, len(values), note)


def ratio(part: str, what: str, above: Sequence[float], below: Sequence[float], note: str = "") -> Row:
    """Of measurements that were taken in the same rounds: one ratio a round."""
    return row(part, what, [a / b for a, b in zip(above, below, strict=True)], RATIO, note)


def per_second(count: float, work: Callable[[], object]) -> Rate:
    """How many of ``count`` things that ``work`` does get done in a second."""

    def measured() -> float:
        return count / seconds_of(work)

    return measured


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounds(repeat: int, rates: Mapping[str, Rate]) -> dict[str, list[float]]:
    """Each rate ``repeat`` times, all in turn within a round, after a round that does not count.

    Every other round goes backwards, so that a machine that grows slower favours none.
    """
    found: dict[str, list[float]] = {name: [] for name in rates}
    for number in range(repeat + 1):
        for name in list(rates)[:: -1 if number % 2 else 1]:
            value = rates[name]()
            if number:
                found[name].append(value)
    return found


def growth(part: str, what: str, least: tuple[int, float], most: tuple[int, float], unit: str) -> Row:
    """How much larger a figure is at the largest size than at the smallest; sizes and figures come in pairs."""
    value = most[1] / least[1]
    return Row(part, f"{what}, {most[0]:,} over {least[0]:,}", value, value, value, RATIO, 1, f"{least[1]:,.3g} and {most[1]:,.3g} {unit}")


def to_table(rows: Sequence[Row], machine: Mapping[str, str]) -> pa.Table:
    """As the Parquet file keeps them; where they were taken is in the schema's metadata."""
    return pa.Table.from_pylist([asdict(row) for row in rows], BENCH_SCHEMA.with_metadata(dict(machine)))


def told(rows: Sequence[Row]) -> list[str]:
    """Markdown: a line a figure."""
    lines = ["| part | what | median | least to most | unit | times | note |", "| --- " * 7 + "|"]
    for r in rows:
        spread = f"{number(r.low)} to {number(r.high)}" if r.repeats > 1 else ""
        lines.append(f"| {r.part} | {r.what} | {number(r.value)} | {spread} | {r.unit} | {r.repeats} | {r.note} |")
    return lines


def number(value: float) -> str:
    """Three digits that say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
