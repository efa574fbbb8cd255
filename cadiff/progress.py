"""Progress that people can follow: a bar in a terminal, lines in a log, nothing when asked to be quiet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping


class Progress:
    """Counts to ``total``; shows rate, time left and the latest figures.

    In a terminal one line is redrawn; elsewhere a line is printed at most every ``log_seconds``, and always at the
    start and the end, so that a log is never silent for long. ``CADIFF_QUIET=1`` silences both.
    """

    def __init__(self, title: str, total: int, done: int = 0, log_seconds: float = 5.0) -> None:
        self.title, self.total, self.done, self.start_done = title, total, done, done
        self.quiet = os.environ.get("CADIFF_QUIET", "") not in ("", "0")
        self.terminal = sys.stderr.isatty()
        self.every = 0.2 if self.terminal else log_seconds
        self.started = time.monotonic()
        self.shown = -1e9
        self._show({})

    def advance(self, count: int = 1, figures: Mapping[str, float] | None = None) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.shown >= self.every or self.done >= self.total:
            self._show(figures or {})

    def _show(self, figures: Mapping[str, float]) -> None:
        if self.quiet:
            return
        self.shown = time.monotonic()
        elapsed = self.shown - self.started
        rate = (self.done - self.start_done) / elapsed if elapsed > 0.05 else 0.0
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        numbers = "".join(f" {name} {value:.4g}" for name, value in figures.items())
        text = f"{self.title} {self.done}/{self.total}"
        text += f" ({rate:.2f}/s{left}){numbers}" if rate else numbers
        if not self.terminal:
            print(text, file=sys.stderr, flush=True)
            return
        filled = int(24 * self.done / max(self.total, 1))
        end = "\n" if self.done >= self.total else ""
        print(f"\r\x1b[K[{'#' * filled}{'.' * (24 - filled)}] {text}", end=end, file=sys.stderr, flush=True)
